//! Hosts with several interfaces, some of them unusable: the address that an engine announces, and that peers reach it.
//!
//! Each host is a network namespace made for the test; the table of `docs/addresses.md` lists them.
#![allow(unsafe_code, reason = "makes a tunnel, which has to be held open")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod odd_host;
mod support;

use flagcx_p2p::internals::control::local_address;
use odd_host::peer::{Peer, connect_on_one_host, connect_to};
use odd_host::{chosen, config, forward, ip, link, play, tunnel, wait_until_up};

#[test]
fn an_interface_that_is_down() {
    play("an_interface_that_is_down", || {
        ip("link add eth0 type veth peer name far0; addr add 192.0.2.1/24 dev eth0; link set far0 up");
        link("eth1", "198.51.100.1/24");
        assert_eq!(chosen(&[]), "198.51.100.1 eth1: network interface");
        let asked = local_address(&config(&[("FLAGCX_SOCKET_IFNAME", "eth0")])).unwrap_err().to_string();
        assert!(asked.contains("eth0 192.0.2.1 (down"), "{asked}");
    });
}

#[test]
fn an_interface_without_carrier() {
    play("an_interface_without_carrier", || {
        ip("link add eth0 type veth peer name far0; addr add 192.0.2.1/24 dev eth0; link set eth0 up");
        ip("route add default dev eth0");
        link("eth1", "198.51.100.1/24");
        assert_eq!(chosen(&[]), "198.51.100.1 eth1: network interface");
        let asked = local_address(&config(&[("FLAGCX_SOCKET_IFNAME", "eth0")])).unwrap_err().to_string();
        assert!(asked.contains("eth0 192.0.2.1 (") && asked.contains("carrier)"), "{asked}");
    });
}

#[test]
fn link_local_addresses_come_last() {
    play("link_local_addresses_come_last", || {
        let mut peer = Peer::behind("eth0", "addr add 169.254.7.2/16 dev eth0; link set eth0 up");
        ip("addr add 169.254.7.1/16 dev eth0; link set eth0 up; link set lo up");
        wait_until_up("eth0");
        // Nothing else is there: better than loopback, where no other host is.
        assert_eq!(chosen(&[]), "169.254.7.1 eth0: link-local address");
        connect_to(&mut peer, "169.254.7.2 eth0: link-local address");
        link("eth1", "198.51.100.1/24");
        assert_eq!(chosen(&[]), "198.51.100.1 eth1: network interface");
    });
}

#[test]
fn bridges_come_after_the_interface_of_the_default_route() {
    play("bridges_come_after_the_interface_of_the_default_route", || {
        for (bridge, address) in [("br0", "10.0.0.1/24"), ("docker0", "172.17.0.1/16")] {
            ip(&format!(
                "link add {bridge} type bridge; link add p{bridge} type veth peer name q{bridge}; \
                 link set p{bridge} master {bridge}; link set p{bridge} up; link set q{bridge} up; \
                 addr add {address} dev {bridge}; link set {bridge} up"
            ));
            wait_until_up(bridge);
        }
        assert_eq!(chosen(&[]), "10.0.0.1 br0: bridge");
        link("eth0", "192.0.2.1/24");
        assert_eq!(chosen(&[]), "192.0.2.1 eth0: network interface");
        ip("route add default via 192.0.2.254");
        assert_eq!(chosen(&[]), "192.0.2.1 eth0: interface of the default route");
        // A host of virtual machines: its uplink is a port of the bridge.
        ip("route del default; route add default via 10.0.0.254");
        assert_eq!(chosen(&[]), "10.0.0.1 br0: interface of the default route");
        assert_eq!(chosen(&[("FLAGCX_SOCKET_IFNAME", "docker")]), "172.17.0.1 docker0: FLAGCX_SOCKET_IFNAME");
    });
}

#[test]
fn a_tunnel_comes_after_other_interfaces() {
    play("a_tunnel_comes_after_other_interfaces", || {
        let _held = match tunnel("tun0") {
            Ok(held) => held,
            Err(error) => return println!("skipped: no tunnel can be made: {error}"),
        };
        ip("addr add 10.8.0.2/24 dev tun0; link set tun0 up");
        wait_until_up("tun0");
        assert_eq!(chosen(&[]), "10.8.0.2 tun0: tunnel");
        link("eth0", "192.0.2.1/24");
        assert_eq!(chosen(&[]), "192.0.2.1 eth0: network interface");
    });
}

#[test]
fn two_subnets() {
    play("two_subnets", || {
        link("eth0", "192.0.2.1/24");
        let mut peer = Peer::behind("eth1", "addr add 198.51.100.2/24 dev eth1; link set eth1 up");
        ip("addr add 198.51.100.1/24 dev eth1; link set eth1 up; route add default via 198.51.100.254");
        wait_until_up("eth1");
        assert_eq!(chosen(&[("FLAGCX_COMM_ID", "192.0.2.9:1")]), "192.0.2.1 eth0: subnet of FLAGCX_COMM_ID");
        assert_eq!(chosen(&[]), "198.51.100.1 eth1: interface of the default route");
        connect_to(&mut peer, "198.51.100.2 eth1: network interface");
    });
}

#[test]
fn ipv6_only() {
    play("ipv6_only", || {
        let mut peer = Peer::behind("eth0", "addr add 2001:db8::2/64 dev eth0 nodad; link set eth0 up");
        ip("addr add 2001:db8::1/64 dev eth0 nodad; link set eth0 up; link set lo up");
        wait_until_up("eth0");
        assert_eq!(chosen(&[]), "2001:db8::1 eth0: network interface");
        ip("-6 route add default via 2001:db8::ff");
        assert_eq!(chosen(&[]), "2001:db8::1 eth0: interface of the default route");
        connect_to(&mut peer, "2001:db8::2 eth0: network interface");
    });
}

#[test]
fn dual_stack() {
    play("dual_stack", || {
        let far = "addr add 192.0.2.2/24 dev eth0; addr add 2001:db8::2/64 dev eth0 nodad; link set eth0 up";
        let mut peer = Peer::behind("eth0", far);
        ip("addr add 192.0.2.1/24 dev eth0; addr add 2001:db8::1/64 dev eth0 nodad; link set eth0 up");
        ip("-6 route add default via 2001:db8::ff");
        wait_until_up("eth0");
        assert_eq!(chosen(&[]), "192.0.2.1 eth0: interface of the default route");
        let six = [("FLAGCX_SOCKET_FAMILY", "AF_INET6")];
        assert_eq!(chosen(&six), "2001:db8::1 eth0: interface of the default route");
        connect_to(&mut peer, "192.0.2.2 eth0: network interface");
    });
}

/// Two hosts with private addresses, each behind a forwarder that publishes its ports one to one. This namespace is both
/// forwarders, and routes nothing.
#[test]
fn both_behind_nat() {
    play("both_behind_nat", || {
        ip("link set lo up; addr add 203.0.113.1/32 dev lo; addr add 203.0.113.2/32 dev lo");
        let private = |link: &str, network: &str| {
            ip(&format!("addr add {network}.1/24 dev {link}; link set {link} up"));
            wait_until_up(link);
        };
        let inside = |link: &str, network: &str| {
            format!(
                "addr add {network}.2/24 dev {link}; link set {link} up; route add default via {network}.1"
            )
        };
        let range = ("FLAGCX_P2P_PORT_RANGE", "20000-20015");
        let advertised = [("FLAGCX_P2P_ADVERTISE", "203.0.113.1:7000"), range];
        let mut server = Peer::with_settings("eth0", &inside("eth0", "10.0.0"), &advertised);
        let advertised = [("FLAGCX_P2P_ADVERTISE", "203.0.113.2"), range];
        let mut client = Peer::with_settings("eth1", &inside("eth1", "10.0.1"), &advertised);
        private("eth0", "10.0.0");
        private("eth1", "10.0.1");
        for port in 20_000..=20_015 {
            forward("203.0.113.1", port, "10.0.0.2", port);
            forward("203.0.113.2", port, "10.0.1.2", port);
        }
        forward("203.0.113.1", 7000, "10.0.0.2", 20_000);
        let metadata = server.open("203.0.113.1 eth0: interface of the default route");
        assert!(metadata.starts_with("203.0.113.1:7000?0?200"), "{metadata}");
        let client_metadata = client.open("203.0.113.2 eth1: interface of the default route");
        assert!(client_metadata.starts_with("203.0.113.2:20000?0?200"), "{client_metadata}");
        server.accept();
        client.connect(&metadata, &server);
    });
}

/// Two processes that advertise one address connect through its forwarder, and are still recognised as on one host.
#[test]
fn one_host_behind_nat() {
    play("one_host_behind_nat", || {
        ip("link set lo up; addr add 203.0.113.1/32 dev lo");
        (20_000..=20_015).for_each(|port| forward("203.0.113.1", port, "127.0.0.1", port));
        let settings = [
            ("FLAGCX_P2P_ADVERTISE", "203.0.113.1"),
            ("FLAGCX_P2P_BIND", "127.0.0.1"),
            ("FLAGCX_P2P_PORT_RANGE", "20000-20015"),
        ];
        connect_on_one_host(&mut Peer::here(&settings), "203.0.113.1 FLAGCX_P2P_BIND", &settings);
    });
}

/// A host with a container: the container has its end of a veth pair and a default route to the bridge.
#[test]
fn a_container_and_its_host() {
    play("a_container_and_its_host", || {
        let far = "addr add 172.17.0.2/16 dev eth0; link set eth0 up; route add default via 172.17.0.1";
        let mut container = Peer::named("eth0", "veth7", far, &[]);
        ip("link add docker0 type bridge; link set veth7 master docker0; link set veth7 up");
        ip("addr add 172.17.0.1/16 dev docker0; link set docker0 up");
        link("eth0", "192.0.2.1/24");
        ip("route add default via 192.0.2.254");
        wait_until_up("docker0");
        assert_eq!(chosen(&[]), "192.0.2.1 eth0: interface of the default route");
        connect_to(&mut container, "172.17.0.2 eth0: interface of the default route");
    });
}

/// Not a test of its own: what the namespaces of the tests above run.
#[test]
fn peer_of_an_odd_host() {
    odd_host::peer::play();
}
