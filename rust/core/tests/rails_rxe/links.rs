//! Two links, each between two soft-RoCE devices of one network namespace, and what may become of a link.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Makes both links: `a1` to `b1`, `a2` to `b2`, with a device on each end, `rxa1` and so on. They go when this is dropped.
///
/// Both ends of a link are in one namespace, because soft-RoCE devices know only one on some kernels: rules of routing, not the local
/// table, send their packets over it.
pub(crate) struct Links {
    /// Tools that wait for commands: to start one takes longer there than a transfer.
    ip: Tool,
    tc: Tool,
}

const LINKS: [&str; 2] = ["1", "2"];

/// A link: addresses, and rules for what this host sends from one end to the other.
const LINK: &str =
    "link add aN mtu 4200 address 02:00:00:00:0N:01 type veth peer name bN mtu 4200 address 02:00:00:00:0N:02
    address add 10.8N.0.1/24 dev aN
    address add 10.8N.0.2/24 dev bN
    link set aN up
    link set bN up
    rule add pref 10N iif lo from 10.8N.0.1 to 10.8N.0.2 lookup 10N
    rule add pref 11N iif lo from 10.8N.0.2 to 10.8N.0.1 lookup 11N";

/// They go with their link, and have to be made again.
const ROUTES: &str = "route replace 10.8N.0.2 dev aN table 10N
    route replace 10.8N.0.1 dev bN table 11N
    neigh replace 10.8N.0.2 lladdr 02:00:00:00:0N:02 dev aN nud permanent
    neigh replace 10.8N.0.1 lladdr 02:00:00:00:0N:01 dev bN nud permanent";

const DEVICES: &str = "link add rxaN type rxe netdev aN
    link add rxbN type rxe netdev bN";

impl Links {
    pub(crate) fn make() -> Self {
        let modprobe = Command::new("modprobe").args(["-a", "veth", "sch_netem"]).status();
        assert!(modprobe.is_ok_and(|status| status.success()), "the kernel has no veth or netem");
        // All packets of a veth wait in one queue of the processor that sends. The peer answers a READ of 8 MiB with 2,048 packets at once, and
        // of the 1,000 that the queue holds by default the others would be lost: the READ would take seconds.
        set("core/netdev_max_backlog", "100000");
        set("ipv4/conf/all/rp_filter", "0");
        let links = Self { ip: Tool::start("ip"), tc: Tool::start("tc") };
        let mut making = Tool::start("ip");
        LINKS.iter().for_each(|link| making.run(&LINK.replace('N', link)));
        making.run("rule add pref 200 lookup local\nrule del pref 0");
        making.end();
        for end in ["a1", "b1", "a2", "b2"] {
            set(&format!("ipv4/conf/{end}/accept_local"), "1");
            set(&format!("ipv4/conf/{end}/rp_filter"), "0");
        }
        let (mut routes, mut devices) = (Tool::start("ip"), Tool::start("rdma"));
        LINKS.iter().for_each(|link| routes.run(&ROUTES.replace('N', link)));
        LINKS.iter().for_each(|link| devices.run(&DEVICES.replace('N', link)));
        routes.end();
        devices.end();
        links
    }

    /// Does this to a link, or undoes it. It is done shortly after.
    pub(crate) fn set(&mut self, fault: Fault, link: &str, broken: bool) {
        match (fault, broken) {
            (Fault::Down, true) => self.ip.run(&format!("link set a{link} down")),
            (Fault::Down, false) => {
                self.ip.run(&format!("link set a{link} up\n{}", ROUTES.replace('N', link)));
            }
            (Fault::EveryPacketLost, true) => self.tc.run(&format!(
                "qdisc replace dev a{link} root netem loss 100%\nqdisc replace dev b{link} root netem loss 100%"
            )),
            (Fault::EveryPacketLost, false) => {
                self.tc.run(&format!("qdisc del dev a{link} root\nqdisc del dev b{link} root"));
            }
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.ip.run("rule add pref 0 lookup local\nrule del pref 200");
        for link in LINKS {
            let text = "link del aN\nrule del pref 10N\nrule del pref 11N";
            self.ip.run(&text.replace('N', link));
        }
    }
}

/// Sets a value of the network's.
fn set(name: &str, value: &str) {
    let file = format!("/proc/sys/net/{name}");
    std::fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// What becomes of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// `ip link set down`: both ports are down, and say so.
    Down,
    /// Both ends drop what they send, and the ports stay up.
    EveryPacketLost,
}

/// One of iproute2's, which carries out commands, a line each, as they come.
struct Tool(Child);

impl Tool {
    fn start(name: &str) -> Self {
        let arguments = if name == "rdma" { ["-f", "-b", "-"] } else { ["-force", "-batch", "-"] };
        Self(Command::new(name).args(arguments).stdin(Stdio::piped()).spawn().expect("iproute2 is installed"))
    }

    fn run(&mut self, commands: &str) {
        let input = self.0.stdin.as_mut().expect("it was piped");
        for command in commands.lines() {
            writeln!(input, "{}", command.trim()).expect("the tool runs");
        }
    }

    /// Waits until its commands are carried out.
    fn end(mut self) {
        drop(self.0.stdin.take());
        let status = self.0.wait();
        assert!(status.is_ok_and(|status| status.success()), "a command failed: what it says is above");
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
