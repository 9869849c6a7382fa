//! Connecting to a peer by name, over all its addresses, within one deadline.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::socket::{AddressFailure, ConnectError, RefusalPolicy, Stream, connect_any, listed};
use super::{Abort, HandshakeError, Limits, ResolveError, Step, parse_address, resolve};

/// One call that connects to `host:port`. Its deadlines are absolute and set when it begins:
///
/// * the look-up of the name and the TCP connections, over all addresses, end within the connect timeout;
/// * everything, handshakes included, ends within the connect timeout plus the handshake timeout.
///
/// The service that accepts at an address may not be a peer. Then the other addresses are tried within the remaining
/// time.
#[derive(Debug)]
pub struct Dial {
    /// The addresses that are still to be tried.
    targets: Vec<SocketAddr>,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    /// When the next connection must be established. The time of failed handshakes is added.
    connect_by: Instant,
    /// When everything must have ended.
    end: Instant,
    /// When the last connection was established.
    connected: Instant,
    refusals: RefusalPolicy,
    abort: Option<Abort>,
    /// The addresses that accepted, and why each handshake failed.
    failed: Vec<String>,
    /// The origin of the addresses, for errors.
    origin: String,
}

/// A bootstrap socket, and the rest of what the handshake needs.
#[derive(Debug)]
pub struct Dialed {
    /// The socket.
    pub stream: Stream,
    /// The address that it is connected to.
    pub target: SocketAddr,
    /// When the handshake must have ended.
    pub deadline: Instant,
}

/// Why no peer was reached.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// There are no addresses.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address could be connected to, or every handshake failed. Names each address with its error.
    #[error("{0}")]
    Unreached(String),
    /// This process ended it.
    #[error("ended by this process")]
    Aborted,
}

impl Dial {
    /// Resolves the host; the time runs from here.
    pub fn new(host: &str, port: u16, limits: &Limits) -> Result<Self, DialError> {
        let begun = Instant::now();
        let connect_by = begun + limits.connect_timeout;
        match resolve(host, port, connect_by, limits.abort.as_ref()) {
            Ok(targets) => Ok(Self { origin: origin(host), ..Self::to(targets, begun, limits) }),
            Err(ResolveError::Aborted) => Err(DialError::Aborted),
            Err(error) => Err(error.into()),
        }
    }

    fn to(targets: Vec<SocketAddr>, begun: Instant, limits: &Limits) -> Self {
        let connect_by = begun + limits.connect_timeout;
        Self {
            targets,
            connect_timeout: limits.connect_timeout,
            handshake_timeout: limits.handshake_timeout,
            connect_by,
            end: connect_by + limits.handshake_timeout,
            connected: begun,
            refusals: RefusalPolicy::UntilDeadline,
            abort: limits.abort.clone(),
            failed: Vec::new(),
            origin: GIVEN.to_owned(),
        }
    }

    /// Connects to one of the remaining addresses. Refused ports are tried again until the deadline.
    pub fn connect(&mut self) -> Result<Dialed, DialError> {
        match connect_any(&self.targets, self.connect_by, self.refusals, self.abort.as_ref()) {
            Ok((target, stream)) => {
                self.connected = Instant::now();
                Ok(Dialed { stream, target, deadline: self.handshake_by() })
            }
            Err(ConnectError::Wait(error)) if error.kind() == ErrorKind::ConnectionAborted => {
                Err(DialError::Aborted)
            }
            Err(ConnectError::Wait(error)) => Err(DialError::Unreached(error.to_string())),
            Err(ConnectError::Addresses(failures)) => Err(self.unreached(&failures)),
        }
    }

    /// The handshake with `target` has failed: it is not tried again.
    pub fn failed(&mut self, target: SocketAddr, error: &HandshakeError) {
        self.connect_by = (self.connect_by + self.connected.elapsed()).min(self.end);
        self.targets.retain(|other| *other != target);
        self.failed.push(error.to_string());
        // A peer is running, so there is no need to wait for one to start.
        if !matches!(error.step, Step::Preamble | Step::Hello | Step::Handles) {
            self.refusals = RefusalPolicy::Once;
        }
    }

    /// The deadline of one handshake: a silent service must not take the time of later addresses.
    fn handshake_by(&self) -> Instant {
        let left = self.end.saturating_duration_since(self.connected);
        let count = u32::try_from(self.targets.len().max(1)).unwrap_or(u32::MAX);
        let share = (left / count).max(LEAST_HANDSHAKE).min(self.handshake_timeout);
        self.end.min(self.connected + share)
    }

    fn unreached(&self, failures: &[AddressFailure]) -> DialError {
        let mut text =
            listed(self.failed.iter().cloned().chain(failures.iter().map(AddressFailure::to_string)));
        text += &format!(" ({})", self.origin);
        if !failures.is_empty() && self.refusals == RefusalPolicy::UntilDeadline {
            let timeout = self.connect_timeout.as_millis();
            text += &format!(
                "; check that the peer is running there. The wait is set by FLAGCX_P2P_CONNECT_TIMEOUT_MS ({timeout} ms)"
            );
        }
        DialError::Unreached(text)
    }
}

/// The origin of the addresses of `host`.
fn origin(host: &str) -> String {
    match parse_address(host) {
        Some(_) => GIVEN.to_owned(),
        None => format!("looked up for {host:?}"),
    }
}

const GIVEN: &str = "the address that was given";

/// The least time of a handshake, however many addresses remain: a peer answers within this unless its host is very
/// busy.
const LEAST_HANDSHAKE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::thread;

    use super::*;
    use crate::config::Config;
    use crate::control::Listener;

    fn limits(connect_ms: u64, handshake_ms: u64) -> Limits {
        Limits {
            connect_timeout: Duration::from_millis(connect_ms),
            handshake_timeout: Duration::from_millis(handshake_ms),
            keepalive: None,
            ..Limits::from_config(&Config::from_source(&|_| None), None).unwrap()
        }
    }

    fn host(last: u8) -> IpAddr {
        Ipv4Addr::new(127, 0, 0, last).into()
    }

    fn listener(last: u8) -> Listener {
        Listener::bind(host(last), None, &Abort::new().unwrap()).unwrap()
    }

    fn dial(targets: &[SocketAddr], limits: &Limits) -> Dial {
        Dial::to(targets.to_vec(), Instant::now(), limits)
    }

    fn failure(target: SocketAddr, step: Step) -> HandshakeError {
        HandshakeError { peer: target.to_string(), step, reason: crate::control::Reason::Closed }
    }

    #[test]
    fn an_address_without_a_peer_leads_to_the_next() {
        let (first, second) = (listener(2), listener(3));
        let begun = Instant::now();
        let mut dial = dial(&[first.local(), second.local()], &limits(10_000, 10_000));
        let dialed = dial.connect().unwrap();
        assert_eq!(dialed.target, first.local());
        dial.failed(first.local(), &failure(first.local(), Step::Handles));
        let dialed = dial.connect().unwrap();
        assert_eq!((dialed.target, dialed.stream.peer()), (second.local(), second.local()));
        assert!(dialed.deadline <= begun + Duration::from_secs(21));

        dial.failed(second.local(), &failure(second.local(), Step::Handles));
        let error = dial.connect().unwrap_err().to_string();
        for listener in [first, second] {
            assert!(error.contains(&format!("handshake with {}", listener.local())), "{error}");
        }
    }

    #[test]
    fn addresses_that_accept_and_say_nothing_share_the_time() {
        let listeners = [2, 3, 4, 5].map(listener);
        let targets = listeners.each_ref().map(Listener::local);
        let begun = Instant::now();
        let mut one = dial(&targets, &limits(10_000, 10_000));
        let mut dialed = one.connect().unwrap();
        let share = dialed.deadline - begun;
        assert!((5_000..5_500).contains(&share.as_millis()), "{share:?}");
        // The last of them gets as much as a single one.
        for target in &targets[..3] {
            one.failed(*target, &failure(*target, Step::Handles));
            dialed = one.connect().unwrap();
        }
        let share = dialed.deadline - begun;
        assert!((10_000..10_500).contains(&share.as_millis()), "{share:?}");
        // Nothing goes beyond the end.
        let mut many = dial(&targets, &limits(100, 200));
        let dialed = many.connect().unwrap();
        assert_eq!(dialed.deadline, many.end.min(many.connected + Duration::from_millis(200)));
    }

    #[test]
    fn a_failed_handshake_leaves_the_time_for_connecting_as_it_was() {
        let first = listener(2);
        let second = listener(3).local();
        let mut dial = dial(&[first.local(), second], &limits(100, 10_000));
        let begun = Instant::now();
        dial.connect().unwrap();
        thread::sleep(Duration::from_millis(200));
        dial.failed(first.local(), &failure(first.local(), Step::Handles));
        let error = dial.connect().unwrap_err().to_string();
        let took = begun.elapsed().as_millis();
        assert!((300..2000).contains(&took), "{took} ms");
        assert!(error.contains(&format!("{second} refused")), "{error}");
        assert!(error.contains("FLAGCX_P2P_CONNECT_TIMEOUT_MS"), "{error}");
    }

    #[test]
    fn a_peer_that_refused_is_not_waited_for_elsewhere() {
        let peer = listener(2);
        let unused = listener(3).local();
        let mut dial = dial(&[unused, peer.local()], &limits(10_000, 10_000));
        assert_eq!(dial.connect().unwrap().target, peer.local());
        dial.failed(peer.local(), &failure(peer.local(), Step::Authentication));
        let begun = Instant::now();
        let error = dial.connect().unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(
            error.contains("proof of the key") && error.contains(&format!("{unused} refused")),
            "{error}"
        );
    }

    #[test]
    fn an_error_names_each_address_up_to_a_limit() {
        let targets: Vec<_> = (1..=60).map(|last| SocketAddr::new(host(last), 1)).collect();
        let begun = Instant::now();
        let error = dial(&targets, &limits(50, 50)).connect().unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(
            error.starts_with("127.0.0.1:1 refused") && error.contains(", 127.0.0.8:1 refused"),
            "{error}"
        );
        assert!(error.contains("and 52 more") && error.len() < 600, "{error}");
    }

    #[test]
    fn localhost_costs_nothing_where_only_ipv4_listens() {
        let listener = listener(1);
        let quickest = (0..5).map(|_| {
            let begun = Instant::now();
            let dialed = Dial::new("localhost", listener.local().port(), &limits(10_000, 10_000));
            assert_eq!(dialed.unwrap().connect().unwrap().target, listener.local());
            begun.elapsed()
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < Duration::from_millis(50), "{quickest:?}");
    }
}
