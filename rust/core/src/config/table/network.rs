//! Variables of listeners and addresses.

use crate::config::Variable;

variables! {
    BIND = Variable::text("FLAGCX_P2P_BIND", "the chosen interface's address", "IP address")
        .refuses()
        .read_by("engine, control")
        .changes("The address that all listeners bind to and that is announced to peers, unless `FLAGCX_P2P_ADVERTISE` is set.")
        .when("To stay on loopback, or when the choice of interface is wrong.")
        .example("127.0.0.1");
    ADVERTISE = Variable::text("FLAGCX_P2P_ADVERTISE", "the address that is bound to", "`host`, `host:port` or `[IPv6 address]:port`")
        .refuses()
        .read_by("engine, control, fabric::software")
        .changes("The address that is announced to peers instead of this host's own. The port replaces the control port alone; a forwarder publishes the others of `FLAGCX_P2P_PORT_RANGE` one to one. A name is looked up when an engine opens, within `FLAGCX_P2P_CONNECT_TIMEOUT_MS`; if it has no address the engine does not open.")
        .when("Behind NAT, or in a container with published ports: [addresses](addresses.md).")
        .example("203.0.113.7:20000");
    CONTROL_REDIAL_ADDRESSES = Variable::text("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", "those of the host", "`IP address,...`")
        .read_by("control")
        .changes("The addresses at which this host can be dialled, and from which it dials, when a control channel has failed: see `FLAGCX_P2P_CONTROL_REDIAL`. At most 32. Unset: that of `FLAGCX_P2P_BIND`, or those of the interfaces that `FLAGCX_SOCKET_IFNAME` and `FLAGCX_SOCKET_FAMILY` leave, but for bridges without a default route and link-local addresses.")
        .when("The host has addresses that peers cannot reach, or is reached by others.")
        .example("192.0.2.7,198.51.100.7");
    PORT_RANGE = Variable::text("FLAGCX_P2P_PORT_RANGE", "ports chosen by the kernel", "`low-high`")
        .refuses()
        .read_by("control, notify, fabric::software")
        .changes("The ports that listeners use. An engine needs two, three with `FLAGCX_P2P_CONTROL_REDIAL`, and one more during each handshake; a process that uses the software fabric one more for each device.")
        .when("Behind a firewall.")
        .example("20000-20999");
    SOCKET_IFNAME = Variable::text("FLAGCX_SOCKET_IFNAME", "chosen", "`[^][=]name,...`")
        .refuses()
        .read_by("control")
        .changes("Which network interface gives the address: `^` excludes, `=` matches names exactly instead of by prefix. One that is down or has no carrier is refused.")
        .when("The host has several networks.")
        .example("eth1");
    SOCKET_FAMILY = Variable::word("FLAGCX_SOCKET_FAMILY", "any", &["any", "AF_INET", "AF_INET6"])
        .refuses()
        .read_by("control")
        .changes("The address family of the interface's address.")
        .when("The host has addresses of both families and peers reach only one.")
        .example("AF_INET6");
    COMM_ID = Variable::text("FLAGCX_COMM_ID", "none", "`host:port`")
        .read_by("control")
        .changes("The interface in this host's subnet is preferred.")
        .when("Usually set for the collectives already.")
        .example("192.0.2.7:9999");
}
