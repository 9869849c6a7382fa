//! Limits for the descriptors of unauthenticated clients, over all listeners of the process.
//!
//! ```text
//!   listener ── enter ──▶ Permit ── describe ──▶ (socket accepted) ── release ──▶ a peer
//! ```
//! A listener acquires a [`Permit`] before it accepts a socket, and releases it when the client has proven the key,
//! or, without a key, has completed its handshake. Unauthenticated clients together hold at most a quarter of
//! `RLIMIT_NOFILE`, those of one source half of that, and never more than [`MOST`]. Further connections wait in the
//! listener's backlog. A client that has sent nothing for [`GRACE`], or has not completed its handshake within
//! [`GRACE_OF_HANDSHAKES`], is displaced when others wait: its socket is shut down, and its owner closes it like one
//! that the client has closed. So a peer, which needs milliseconds, waits one [`GRACE`] for each full set of clients
//! before it in the backlog, even behind an address with a thousand silent clients.
//!
//! Accepting can still fail for lack of descriptors or memory when the program itself has used them up: then the
//! listeners pause, see [`pause_after`].
#![allow(unsafe_code, reason = "shuts down sockets by number, which are open while their permits are held")]

mod by_source;
mod ledger;
mod report;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use rustix::process::{Resource, getrlimit};

use crate::events::{Interest, Wakeup, is_ready};
use crate::fork::PerProcess;
use crate::observe::{self, Snapshot, metrics, report};
use by_source::DescriptorsBySource;
use ledger::Ledger;

/// Clients at most, whatever the limit of descriptors is.
const MOST: usize = 1024;
/// The least number of descriptors: with fewer no client could connect.
const FEWEST: usize = 16;
/// How long a client that has sent nothing keeps its permit while others wait. Peers send at once.
pub(crate) const GRACE: Duration = Duration::from_millis(250);
/// The same for a client that has begun a handshake. A handshake takes some 5 ms on one host and a second between
/// continents; without a key it includes a connect to the data listener, where it may have to wait too.
pub(crate) const GRACE_OF_HANDSHAKES: Duration = Duration::from_secs(2);
/// How long a client of any listener may take for a step that a peer does at once: its first message and, with a key,
/// each step until it has proven it. Applies also when no other client waits. Milliseconds are usual; on a host with
/// all processors busy a peer's thread may wait for seconds, and over a link that loses packets each repeat doubles the
/// wait. A silent client costs no more than a descriptor, which it loses at once when others wait.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// How long a listener waits before it asks for a permit again.
const PAUSE: Duration = Duration::from_millis(10);
/// Upper limit of the pause after errors, which doubles with each.
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// The origin of a client, for the limits by source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A host, or the network that stands for its address: see [`network_of`].
    Address(IpAddr),
    /// A process of this host, connected by a Unix socket.
    Unix,
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }
}

/// The network that counts as one source: an IPv4 address, or the /64 network of an IPv6 address, all of which one
/// host may use.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address @ IpAddr::V4(_)) => write!(f, "{address}"),
            Self::Address(network) => write!(f, "{network}/64"),
            Self::Unix => f.write_str("processes of this host (Unix socket)"),
        }
    }
}

/// The permit of one unauthenticated client. The owner of the client's socket drops it, or calls [`Permit::release`],
/// before it closes the socket (fields are dropped in the order of their declaration).
#[derive(Debug)]
pub(crate) struct Permit(u64);

impl Permit {
    /// Sets the client's source and the socket that is shut down to displace it.
    pub(crate) fn describe(&self, source: Source, socket: BorrowedFd<'_>) {
        let mut state = lock();
        let victim = state.ledger.describe(self.0, source, socket.as_raw_fd(), limit() / 2, Instant::now());
        let displaced = state.shut_down(victim);
        state.failures = 0;
        drop(state);
        // Without the lock: the woken task may end and drop permits, which takes the lock.
        displaced.inspect(|displaced| displaced.wake());
    }

    /// Notes that the client has sent a valid first message and that `descriptors` are held for it now.
    pub(crate) fn begin(&self, descriptors: usize) {
        lock().ledger.begin(self.0, descriptors);
    }

    /// Woken when the client is displaced and its socket is shut down. For owners that do not always wait for the
    /// socket.
    pub(crate) fn displaced(&self) -> Option<Arc<Wakeup>> {
        lock().ledger.displaced(self.0)
    }

    /// Releases the permit: the client is a peer now. Idempotent.
    pub(crate) fn release(&self) {
        lock().ledger.release(self.0);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release();
    }
}

/// Descriptors of one connection that was accepted without a key.
#[derive(Debug)]
pub(crate) struct DescriptorHold {
    source: Source,
    descriptors: usize,
}

impl Drop for DescriptorHold {
    fn drop(&mut self) {
        lock().accepted.remove(self.source, self.descriptors);
    }
}

/// Counts `descriptors` of a connection that was accepted without a key until the returned value is dropped. Fails,
/// with the reason as text, when such connections would hold more than half of `RLIMIT_NOFILE`, or those of one
/// source seven eighths of that: any client can open them.
pub(crate) fn acquire_descriptors(address: IpAddr, descriptors: usize) -> Result<DescriptorHold, String> {
    let source = Source::of(address);
    lock().accepted.add(source, descriptors, nofile() / 2)?;
    Ok(DescriptorHold { source, descriptors })
}

/// Acquires a permit for the next client of `listener`. `WouldBlock` when no client waits; `EMFILE` when the limit is
/// reached: then the listener is not polled for [`pause_after`].
pub(crate) fn enter(listener: BorrowedFd<'_>) -> io::Result<Permit> {
    if is_ready(listener, Interest::Read) != Ok(true) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut state = lock();
    let limit = limit();
    match state.ledger.reserve(limit, Instant::now()) {
        Ok(number) => Ok(Permit(number)),
        Err(victim) => {
            let displaced = state.shut_down(victim);
            let State { told, ledger, .. } = &mut *state;
            if let Some(line) = told.full(ledger, limit, Instant::now()) {
                report!(warn, ClientsLimited, "{line}");
            }
            drop(state);
            displaced.inspect(|displaced| displaced.wake());
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        }
    }
}

/// How long a listener is not to be polled after [`enter`] or accepting failed with `error`. Waiting connections stay
/// in the backlog and keep the listener readable, so that without a pause the next try would follow at once. System
/// errors are logged at a limited rate, and the pause grows while they repeat.
pub(crate) fn pause_after(listener: impl fmt::Display, error: &io::Error) -> Duration {
    let mut state = lock();
    if state.ledger.is_full(limit(), Instant::now()) {
        return PAUSE;
    }
    let pause = pause(state.failures);
    state.failures = state.failures.saturating_add(1);
    let State { told, ledger, .. } = &mut *state;
    if let Some(line) = told.failed(&listener, error, ledger, nofile(), Instant::now()) {
        tracing::warn!("{line}");
    }
    pause
}

/// The pause after this many errors in a row.
fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

/// Whether accepting failed because of that one connection, which is closed: the next one may succeed.
pub(crate) fn concerns_one_client(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO))
}

/// The limit of descriptors for unauthenticated clients.
fn limit() -> usize {
    (nofile() / 4).clamp(FEWEST, MOST)
}

/// Read each time: the program may raise it.
fn nofile() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

struct State {
    ledger: Ledger,
    told: report::LogLimiter,
    /// Errors in a row.
    failures: u32,
    accepted: DescriptorsBySource,
    /// Clients displaced since the process began.
    displaced: u64,
}

impl State {
    /// Shuts the socket of a displaced client down; returns the wakeup of its owner.
    fn shut_down(&mut self, socket: Option<RawFd>) -> Option<Arc<Wakeup>> {
        let socket = socket?;
        self.displaced += 1;
        let displaced = self.ledger.displaced_from(socket);
        // SAFETY: the permit is still in the ledger (its lock is held), and its owner removes it before it closes the
        // socket.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        // Fails harmlessly when the client has closed already.
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        displaced
    }
}

struct Shared(Mutex<State>);

impl observe::Source for Shared {
    fn collect(&self, out: &mut Snapshot) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        out.number(&metrics::UNAUTHENTICATED_CLIENTS, &[], state.ledger.clients() as u64);
        out.number(&metrics::DISPLACED_CLIENTS, &[], state.displaced);
    }
}

fn lock() -> MutexGuard<'static, State> {
    static SHARED: PerProcess<OnceCell<Arc<Shared>>> = PerProcess::new(OnceCell::new);
    let shared = SHARED.get().get_or_init(|| {
        let state = State {
            ledger: Ledger::default(),
            told: report::LogLimiter::default(),
            failures: 0,
            accepted: DescriptorsBySource::default(),
            displaced: 0,
        };
        let shared = Arc::new(Shared(Mutex::new(state)));
        observe::registry().add(&shared);
        shared
    });
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_or_a_network() {
        let source = |address: &str| Source::of(address.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8::1").to_string(), "2001:db8::/64");
    }

    #[test]
    fn starved_listeners_pause_longer_and_longer() {
        let pauses: Vec<_> = (0..9).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 640, 640]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
