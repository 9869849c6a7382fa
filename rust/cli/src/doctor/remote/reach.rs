//! Names to addresses, TCP, and the sizes of packets on the way.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::{self, PathFacts};

use super::super::finding::Report;
use super::super::system::SystemRoot;

/// The least time that an address gets.
const LEAST: Duration = Duration::from_millis(50);
/// Bytes of the longest TCP and IP headers, so that two sizes differ by more than headers do.
const HEADERS: u32 = 120;
/// No link between hosts has a larger MTU than InfiniBand in connected mode, 65520.
const LARGEST_OF_A_LINK: u32 = 65_520;

/// The first address that answered.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    /// `HOST:PORT` as it was named.
    pub(super) name: String,
    pub(super) peer: SocketAddr,
    /// This side's address towards it.
    pub(super) own: IpAddr,
}

/// Looks the name up, and connects to each address.
pub(super) fn report(
    name: &str,
    deadline: Instant,
    root: &SystemRoot,
    report: &mut Report,
) -> Option<Reached> {
    let started = Instant::now();
    let addresses = match look_up(name, deadline) {
        Ok(addresses) => addresses,
        Err(error) => {
            report.fail("name", name, error, "name the peer's address itself");
            return None;
        }
    };
    if !addresses.iter().any(|address| name.contains(&address.ip().to_string())) {
        let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
        report.ok("name", name, format!("{} (looked up in {})", list.join(", "), millis(started.elapsed())));
    }
    let mut reached = None;
    let mut failures = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let share = u32::try_from(addresses.len() - at).unwrap_or(1);
        let limit = (deadline.saturating_duration_since(Instant::now()) / share).max(LEAST);
        let started = Instant::now();
        match TcpStream::connect_timeout(address, limit) {
            Ok(stream) => {
                report.ok("tcp", address.to_string(), format!("connected in {}", millis(started.elapsed())));
                if reached.is_none() {
                    sizes(&stream, root, report);
                    let own = stream.local_addr().map_or_else(|_| address.ip(), |own| own.ip());
                    reached = Some(Reached { name: name.to_owned(), peer: *address, own });
                }
            }
            Err(error) => failures.push((*address, reason(&error, limit))),
        }
    }
    for (address, (finding, action)) in failures {
        if reached.is_some() {
            report.warn("tcp", address.to_string(), format!("{finding}; another address answers"), action);
        } else {
            report.fail("tcp", address.to_string(), finding, action);
        }
    }
    reached
}

fn look_up(name: &str, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = control::split_session(name).map_err(|error| error.to_string())?;
    control::resolve(host, port, deadline, None).map_err(|error| error.to_string())
}

/// What an error of a connect means, and what to do.
fn reason(error: &io::Error, waited: Duration) -> (String, &'static str) {
    match error.kind() {
        ErrorKind::ConnectionRefused => (
            "refused: nothing listens there".to_owned(),
            "start the engine (its RPC server) or `flagcx-p2p serve --listen IP` there, or correct the port; a firewall that rejects answers so too",
        ),
        ErrorKind::TimedOut => (
            format!("no answer within {:.1} s", waited.as_secs_f64()),
            "the host is down, or a firewall drops packets: allow the ports of FLAGCX_P2P_PORT_RANGE",
        ),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            (format!("cannot be reached: {error}"), "look at the routes (ip route get IP)")
        }
        _ => (format!("cannot connect: {error}"), "ip route get IP, and the firewall"),
    }
}

/// The packets that fit, both ways, beside those of the interface here.
fn sizes(stream: &TcpStream, root: &SystemRoot, report: &mut Report) {
    let facts = match control::path_facts(stream) {
        Ok(facts) => facts,
        Err(error) => {
            return report.warn("mtu", "MTU", format!("not known: {error}"), "ping -M do -s SIZE finds it");
        }
    };
    let own = stream.local_addr().ok().and_then(|own| interface(own.ip(), root));
    judge(&facts, own.as_ref(), report);
}

/// The interface that has this address, and its MTU.
fn interface(own: IpAddr, root: &SystemRoot) -> Option<(String, u32)> {
    let name = control::interfaces().into_iter().find(|one| one.network.addr() == own)?.name;
    let mtu = root.number(&format!("/sys/class/net/{name}/mtu"))?;
    Some((name, u32::try_from(mtu).ok()?))
}

fn judge(facts: &PathFacts, own: Option<&(String, u32)>, report: &mut Report) {
    let (id, subject) = ("mtu", "MTU both ways");
    let here = own.map_or_else(String::new, |(name, mtu)| format!(", {name} here has {mtu}"));
    let found = format!(
        "path MTU {}, segments of {} bytes to the peer and up to {} from it{here}",
        facts.path_mtu, facts.send_segment, facts.advertised_segment
    );
    // Over loopback a segment is as large as the window, which grows.
    if facts.path_mtu > LARGEST_OF_A_LINK {
        return report.ok(id, subject, found);
    }
    let narrower = facts.send_segment + HEADERS < facts.advertised_segment;
    let path = own.is_some_and(|(_, mtu)| facts.path_mtu < *mtu);
    if narrower || path {
        report.warn(id, subject, found, "the peer or the path carries smaller packets than this interface: set one MTU at both ends and at the switches");
    } else {
        report.ok(id, subject, found);
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::super::finding::Level;
    use super::*;

    fn of(name: &str) -> (Option<Reached>, Report) {
        let mut found = Report::default();
        let reached =
            report(name, Instant::now() + Duration::from_secs(5), &SystemRoot::default(), &mut found);
        (reached, found)
    }

    #[test]
    fn a_listener_is_reached_and_measured() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (reached, found) = of(&address.to_string());
        assert_eq!(reached.unwrap().peer, address);
        assert!(found.seen("tcp").1.contains("connected in"), "{found:?}");
        assert!(found.seen("mtu").1.contains("path MTU"), "{found:?}");
    }

    #[test]
    fn what_cannot_be_reached_says_what_to_do() {
        let (reached, found) = of("127.0.0.1:1");
        assert!(reached.is_none());
        let (level, line) = found.seen("tcp");
        assert!(
            level == Level::Fail && line.contains("refused: nothing listens there; start the engine"),
            "{line}"
        );
        let (reached, found) = of("nohost.invalid:1");
        assert!(reached.is_none());
        let (level, line) = found.seen("name");
        assert!(level == Level::Fail && line.contains("cannot resolve host"), "{line}");
        let silent = reason(&ErrorKind::TimedOut.into(), Duration::from_secs(2));
        assert!(silent.0.contains("within 2.0 s") && silent.1.contains("firewall"), "{silent:?}");
    }

    #[test]
    fn mtus_that_differ() {
        let facts = PathFacts {
            path_mtu: 9000,
            send_segment: 8948,
            advertised_segment: 8948,
            round_trip: Duration::ZERO,
        };
        let of = |facts: PathFacts| {
            let mut found = Report::default();
            judge(&facts, Some(&("eth1".to_owned(), 9000)), &mut found);
            found.seen("mtu")
        };
        assert_eq!(of(facts).0, Level::Ok);
        let (level, line) = of(PathFacts { send_segment: 1448, ..facts });
        assert!(
            level == Level::Warn
                && line.contains(
                    "segments of 1448 bytes to the peer and up to 8948 from it, eth1 here has 9000"
                ),
            "{line}"
        );
        assert_eq!(of(PathFacts { path_mtu: 1500, ..facts }).0, Level::Warn);
    }
}
