//! The control channel is made anew over another NIC of a host: where the host's route to the peer leads over one that is dead and still has
//! its address and its carrier, and at once where the port goes down of the NIC that it takes.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::software::open_software;
use flagcx_p2p::internals::fabric::{Opcode, SoftwareOptions};

use super::{HERE, Host, Hosts, MIB, THERE};
use crate::chaos::nics::Nics;
use crate::odd_host::{ip, play, wait_until_up};
use crate::second_host::{expect_notification, keep_addresses_apart};
use crate::support::{blocks, eventually};

/// Of two NICs in one network: on `eth0`, to which the kernel's route leads, and on `eth1`.
const NEAR: [&str; 2] = [HERE, "192.0.2.11"];
const FAR: [&str; 2] = [THERE, "192.0.2.12"];
/// The limit is longer than what a rebuild or a transfer may take.
const SETTINGS: [(&str, &str); 3] = [
    ("FLAGCX_P2P_CONTROL_REDIAL", "20000"),
    ("FLAGCX_P2P_KEEPALIVE_MS", "1500"),
    ("FLAGCX_P2P_XFER_TIMEOUT_MS", "20000"),
];

/// `ip` for a switch with the ports eth0 and eth1, which has an address too, and a MAC address of its own: what arrives at a port that was
/// taken out is for no one.
fn a_switch_at(address: &str) -> [String; 3] {
    [
        "link add br0 address 02:00:00:00:00:01 type bridge; link set lo up".to_owned(),
        "link set eth0 master br0; link set eth1 master br0; link set eth0 up; link set eth1 up".to_owned(),
        format!("addr add {address}/24 dev br0; link set br0 up"),
    ]
}

/// This host has two NICs in one network, the other one a switch for both.
fn two_nics_here() -> Hosts {
    let [switch, ports, address] = a_switch_at(THERE);
    let mut host = Host::behind_a_link(&switch);
    host.add_link("eth1");
    host.ip(&format!("{ports}; {address}"));
    host.keep_addresses_apart();
    keep_addresses_apart();
    for (name, address) in ["eth0", "eth1"].into_iter().zip(NEAR) {
        ip(&format!("addr add {address}/24 dev {name}; link set {name} up"));
        wait_until_up(name);
    }
    Hosts::between(("0.0.0.0", THERE), host, MIB, &SETTINGS)
}

/// The other host has two NICs in one network, this one a switch for both.
fn two_nics_there() -> Host {
    let [switch, ports, address] = a_switch_at(HERE);
    let mut host = Host::behind_a_link("link set lo up");
    host.add_link("eth1");
    ip(&format!("{switch}; {ports}; {address}"));
    keep_addresses_apart();
    host.keep_addresses_apart();
    for (name, address) in ["eth0", "eth1"].into_iter().zip(FAR) {
        host.ip(&format!("addr add {address}/24 dev {name}; link set {name} up"));
        host.wait_until_up(name);
    }
    wait_until_up("br0");
    host
}

#[test]
fn a_channel_of_a_dead_nic_is_made_anew_from_another_one() {
    play("channel::a_channel_of_a_dead_nic_is_made_anew_from_another_one", || {
        let mut hosts = two_nics_here();
        eventually("it can be made anew", || hosts.here.channel_record().is_resumable());
        hosts.move_bytes(Opcode::Write, 1, MIB);
        hosts.host.ip("link set eth0 nomaster");
        expect_another_way(&mut hosts);
        // Lanes have no other way, and need this one again.
        hosts.host.ip("link set eth0 master br0");
        hosts.move_bytes(Opcode::Write, 4, MIB);
        hosts.move_bytes(Opcode::Read, 5, MIB);
    });
}

#[test]
fn a_channel_of_a_dead_nic_of_the_peer_is_made_anew_to_another_one() {
    play("channel::a_channel_of_a_dead_nic_of_the_peer_is_made_anew_to_another_one", || {
        let mut host = two_nics_there();
        host.open("0.0.0.0", MIB, &SETTINGS);
        host.ip = THERE.to_owned();
        let mut hosts = Hosts::to(host, HERE, MIB, &SETTINGS);
        eventually("it can be made anew", || hosts.here.channel_record().is_resumable());
        hosts.move_bytes(Opcode::Write, 1, MIB);
        ip("link set eth0 nomaster");
        expect_another_way(&mut hosts);
        ip("link set eth0 master br0");
        hosts.move_bytes(Opcode::Write, 4, MIB);
        hosts.move_bytes(Opcode::Read, 5, MIB);
    });
}

/// The channel is made anew, and notifications arrive at both ends, over the NIC that is left.
fn expect_another_way(hosts: &mut Hosts) {
    let begin = Instant::now();
    // Sent over a socket that is dead, and again over the next one.
    hosts.here.send_notification_bytes(b"first host", &blocks(2, 5000)).unwrap();
    eventually("the channel is made anew", || hosts.here.channel_record().resumed() == 1);
    println!("the channel is made anew after {:?}", begin.elapsed());
    hosts.host.expect_notification(2, 5000);
    assert_eq!((hosts.here.is_usable(), hosts.host.usable()), (true, 1));
    hosts.host.notify(3, 100_000);
    expect_notification(&hosts.engine, 3, 100_000);
}

/// Pings are unanswered for 100 s before the channel is missed by them.
const PATIENT: (&str, &str) = ("FLAGCX_P2P_KEEPALIVE_MS", "300000");

/// Of two hosts with two links: the first one, which the channel takes, and the second one.
const FIRST: [&str; 2] = ["198.51.100.1", "198.51.100.2"];
const SECOND: [&str; 2] = ["203.0.113.1", "203.0.113.2"];

/// Each link is a network of its own. The NIC of this host has a port that the test turns off.
fn two_links(redial_ms: &str) -> (Hosts, Nics) {
    let mut host = Host::behind_a_link("link set lo up");
    host.add_link("eth1");
    ip("link set lo up");
    for (name, [near, far]) in [("eth0", FIRST), ("eth1", SECOND)] {
        host.ip(&format!("addr add {far}/24 dev {name}; link set {name} up"));
        ip(&format!("addr add {near}/24 dev {name}; link set {name} up"));
        wait_until_up(name);
    }
    with_switches(host, FIRST, redial_ms)
}

/// With engines at these addresses. The NIC of this host has switches for faults.
fn with_switches(mut host: Host, [near, far]: [&str; 2], redial_ms: &str) -> (Hosts, Nics) {
    let settings = [("FLAGCX_P2P_CONTROL_REDIAL", redial_ms), PATIENT];
    host.open("0.0.0.0", MIB, &settings);
    host.ip = far.to_owned();
    let options = SoftwareOptions {
        device_count: 1,
        switches: true,
        bind: Some(near.parse().unwrap()),
        ..SoftwareOptions::default()
    };
    let nics = Nics { devices: open_software(&options).unwrap() };
    let engine = nics.engine(&[&[("FLAGCX_P2P_BIND", "0.0.0.0")], &settings[..]].concat());
    let near = engine.allocate(MIB).unwrap();
    let here = engine.connect(&host.ip, host.port, 0, false).unwrap();
    eventually("it can be made anew", || here.channel_record().is_resumable());
    (Hosts { engine, here, near, host }, nics)
}

/// The second network does not lead to the peer.
fn one_way(redial_ms: &str) -> (Hosts, Nics) {
    let (mut hosts, nics) = two_links(redial_ms);
    hosts.host.ip(&format!("addr del {}/24 dev eth1", SECOND[1]));
    hosts.host.keep_addresses_apart();
    (hosts, nics)
}

/// The interface goes down, and the port of its NIC.
fn link_down(nics: &Nics) {
    ip("link set eth0 down");
    nics.set_port(0, false);
}

fn link_up(nics: &Nics) {
    ip("link set eth0 up");
    wait_until_up("eth0");
    nics.set_port(0, true);
}

#[test]
fn a_channel_of_a_port_that_goes_down_is_made_anew_at_once() {
    play("channel::a_channel_of_a_port_that_goes_down_is_made_anew_at_once", || {
        let (mut hosts, nics) = two_links("20000");
        hosts.move_bytes(Opcode::Write, 1, MIB);
        let begin = Instant::now();
        link_down(&nics);
        eventually("the channel is made anew", || hosts.here.channel_record().resumed() == 1);
        println!("the channel is made anew after {:?}", begin.elapsed());
        assert_eq!((hosts.here.is_usable(), hosts.host.usable()), (true, 1));
        hosts.here.send_notification_bytes(b"first host", &blocks(2, 5000)).unwrap();
        hosts.host.expect_notification(2, 5000);
        link_up(&nics);
        hosts.move_bytes(Opcode::Read, 3, MIB);
        assert_eq!(hosts.here.channel_record().lost(), 1);
    });
}

/// The other network leads nowhere, and the link is down for longer than the variable says: TCP outlives that.
#[test]
fn a_channel_of_which_no_other_way_leads_to_the_peer_is_not_left() {
    play("channel::a_channel_of_which_no_other_way_leads_to_the_peer_is_not_left", || {
        let (mut hosts, nics) = one_way("300");
        link_down(&nics);
        // That is the fault.
        std::thread::sleep(Duration::from_secs(1));
        link_up(&nics);
        hosts.here.send_notification_bytes(b"first host", &blocks(2, 5000)).unwrap();
        hosts.host.expect_notification(2, 5000);
        hosts.move_bytes(Opcode::Write, 3, MIB);
        let record = hosts.here.channel_record();
        assert_eq!((record.lost(), hosts.here.is_usable(), hosts.host.usable()), (0, true, 1));
    });
}

/// The other network leads to the peer 2 s after the link has gone down: it is looked for until then.
#[test]
fn a_way_that_is_there_later_is_found() {
    play("channel::a_way_that_is_there_later_is_found", || {
        let (mut hosts, nics) = one_way("20000");
        link_down(&nics);
        // That is the fault.
        std::thread::sleep(Duration::from_secs(2));
        let lost = hosts.here.channel_record().lost();
        let begin = Instant::now();
        hosts.host.ip(&format!("addr add {}/24 dev eth1", SECOND[1]));
        eventually("the channel is made anew", || hosts.here.channel_record().resumed() == 1);
        println!("the channel is made anew {:?} after there is another way", begin.elapsed());
        assert_eq!((lost, hosts.here.is_usable(), hosts.host.usable()), (0, true, 1));
        hosts.here.send_notification_bytes(b"first host", &blocks(2, 5000)).unwrap();
        hosts.host.expect_notification(2, 5000);
    });
}

/// The link is lost at the peer, of which no port of this host tells. The sign is a lane that fails.
#[test]
fn a_channel_that_is_lost_with_a_lane_is_made_anew_soon() {
    play("channel::a_channel_that_is_lost_with_a_lane_is_made_anew_soon", || {
        let (mut hosts, nics) = with_switches(two_nics_there(), [HERE, THERE], "20000");
        hosts.move_bytes(Opcode::Write, 1, MIB);
        // The peer answers over the channel as long as that carries anything.
        fail_a_lane(&hosts, &nics);
        std::thread::sleep(Duration::from_secs(1));
        hosts.move_bytes(Opcode::Write, 2, MIB);
        assert_eq!(hosts.here.channel_record().lost(), 0);

        ip("link set eth0 nomaster");
        let begin = Instant::now();
        fail_a_lane(&hosts, &nics);
        eventually("the channel is made anew", || hosts.here.channel_record().resumed() == 1);
        println!("the channel is made anew after {:?}", begin.elapsed());
        assert!(begin.elapsed() < Duration::from_secs(5), "as rebuilds that are not answered for 9 s");
        assert_eq!((hosts.here.is_usable(), hosts.host.usable()), (true, 1));
        hosts.here.send_notification_bytes(b"first host", &blocks(2, 5000)).unwrap();
        hosts.host.expect_notification(2, 5000);
        ip("link set eth0 master br0");
        hosts.move_bytes(Opcode::Read, 3, MIB);
        assert_eq!(hosts.here.channel_record().lost(), 1);
    });
}

/// As an adapter does that has sent a request again and again without an answer.
fn fail_a_lane(hosts: &Hosts, nics: &Nics) {
    let before = nics.injected();
    nics.switches(0).set_failing(1);
    hosts.start(Opcode::Write, 4096);
    eventually("the request fails", || nics.injected() > before);
    nics.heal();
}
