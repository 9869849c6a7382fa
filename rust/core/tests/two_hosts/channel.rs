//! The control channel is made anew from another NIC of this host, where the kernel's route to the peer leads over one that is dead and
//! still has its address and its carrier.

use std::time::Instant;

use flagcx_p2p::internals::fabric::Opcode;

use super::{Host, Hosts, MIB, THERE};
use crate::odd_host::{ip, play, wait_until_up};
use crate::second_host::expect_notification;
use crate::support::{blocks, eventually};

/// On `eth0`, to which the kernel's route leads, and on `eth1`.
const NEAR: [&str; 2] = ["192.0.2.1", "192.0.2.11"];
/// The limit is longer than what a rebuild or a transfer may take.
const SETTINGS: [(&str, &str); 3] = [
    ("FLAGCX_P2P_CONTROL_REDIAL", "20000"),
    ("FLAGCX_P2P_KEEPALIVE_MS", "1500"),
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "20000"),
];

/// This host has two NICs in one network, the other one a switch for both.
fn two_nics_on_a_switch() -> Hosts {
    let mut host = Host::behind_a_link("link add br0 type bridge; link set lo up");
    host.add_link("eth1");
    host.ip("link set eth0 master br0; link set eth1 master br0; link set eth0 up; link set eth1 up");
    host.ip(&format!("addr add {THERE}/24 dev br0; link set br0 up"));
    // Each NIC answers for its own address alone, as on hosts with several in one network.
    for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "0")] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{name}"), value).unwrap();
    }
    for (name, address) in ["eth0", "eth1"].into_iter().zip(NEAR) {
        ip(&format!("addr add {address}/24 dev {name}; link set {name} up"));
        wait_until_up(name);
    }
    Hosts::between(("0.0.0.0", THERE), host, MIB, &SETTINGS)
}

#[test]
fn a_channel_of_a_dead_nic_is_made_anew_from_another_one() {
    play("channel::a_channel_of_a_dead_nic_is_made_anew_from_another_one", || {
        let mut hosts = two_nics_on_a_switch();
        eventually("it can be made anew", || hosts.here.channel_record().is_resumable());
        hosts.move_bytes(Opcode::Write, 1, MIB);
        hosts.host.ip("link set eth0 nomaster");
        let begin = Instant::now();
        // Sent over a socket that is dead, and again over the next one.
        hosts.here.send_notification_bytes(b"first host", &blocks(2, 5000)).unwrap();
        eventually("the channel is made anew", || hosts.here.channel_record().resumed() == 1);
        println!("the channel is made anew after {:?}", begin.elapsed());
        hosts.host.expect_notification(2, 5000);
        assert_eq!((hosts.here.is_usable(), hosts.host.usable()), (true, 1));
        // Lanes have no other way, and need this one again; so do sockets that the other host opens, for this one answers them over the
        // kernel's route.
        hosts.host.notify(3, 100_000);
        hosts.host.ip("link set eth0 master br0");
        expect_notification(&hosts.engine, 3, 100_000);
        hosts.move_bytes(Opcode::Write, 4, MIB);
        hosts.move_bytes(Opcode::Read, 5, MIB);
    });
}
