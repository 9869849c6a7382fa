//! The descriptors that clients may hold which have proven nothing yet, over all listeners of the process.
//!
//! ```text
//!   listener ── enter ──▶ Permit ── describe ──▶ (socket accepted) ── release ──▶ a peer
//! ```
//! A listener takes a [`Permit`] before it accepts a socket, and gives it back when the client has proven the key, or, without
//! a key, has ended its handshake. Together such clients hold at most a quarter of `RLIMIT_NOFILE`, those of one source half
//! of that, and never more than [`MOST`]. What comes beyond waits in the listener's backlog. A client that has held its permit
//! for [`GRACE`] and said nothing, or for [`GRACE_OF_HANDSHAKES`], makes room when others wait: its socket is shut down, and its owner closes it as one that has hung up. So a
//! peer, which needs milliseconds, waits for as long as the clients before it in the backlog take, in turns of [`GRACE`],
//! also behind an address from which a thousand silent clients come.
//!
//! Accepting fails for want of descriptors or memory in spite of it when the program itself has used them up: then the
//! listeners pause, see [`pause_after`].
#![allow(unsafe_code, reason = "shuts down sockets that others own, which their permits outlive")]

mod kept;
mod ledger;
mod report;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit};

use crate::events::Wakeup;
use crate::fork::PerProcess;
use crate::observe::{self, Snapshot, metrics};
use kept::Kept;
use ledger::Ledger;

/// Clients at most, whatever the limit of descriptors is.
const MOST: usize = 1024;
/// At least, or no client could connect.
const FEWEST: usize = 16;
/// How long a client that has said nothing keeps its permit although others wait. Peers speak at once.
pub(crate) const GRACE: Duration = Duration::from_millis(250);
/// The same for one that has begun a handshake. That takes some 5 ms on one host and a second between continents; and one without
/// a key connects to the data listener on the way, where it may have to wait too.
pub(crate) const GRACE_OF_HANDSHAKES: Duration = Duration::from_secs(2);
/// How long a client of any listener may be silent where a peer goes on at once: before its first words and, with a key, at each
/// step until it has proven that. Also when no other client waits.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(2);
/// Until a listener looks again for a permit.
const PAUSE: Duration = Duration::from_millis(10);
/// Pauses after errors double up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(640);

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A host, or what hides hosts behind one address: see [`network_of`].
    Address(IpAddr),
    /// This host, by a Unix socket.
    Unix,
}

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self::Address(network_of(address))
    }
}

/// What stands for a client's address: an IPv4 address, or the /64 network of an IPv6 one, of which a host has all addresses.
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

/// One client that has proven nothing yet. The owner of the client's socket drops this, or calls [`Permit::release`], before
/// the socket is closed: fields are dropped in the order of their declaration.
#[derive(Debug)]
pub(crate) struct Permit(u64);

impl Permit {
    /// Tells its source, and which socket ends it.
    pub(crate) fn describe(&self, source: Source, socket: BorrowedFd<'_>) {
        let mut state = lock();
        let victim = state.ledger.describe(self.0, source, socket.as_raw_fd(), limit() / 2, Instant::now());
        let displaced = state.shut_down(victim);
        state.failures = 0;
        drop(state);
        // Without the lock: waking a task that ends meanwhile may drop it, and with it permits.
        displaced.inspect(|displaced| displaced.wake());
    }

    /// It has begun like a peer; so many descriptors are held for it now.
    pub(crate) fn begin(&self, descriptors: usize) {
        lock().ledger.begin(self.0, descriptors);
    }

    /// Woken when the client has to make room. For an owner that does not always wait for its socket, which is shut down then.
    pub(crate) fn displaced(&self) -> Option<Arc<Wakeup>> {
        lock().ledger.displaced(self.0)
    }

    /// The client is a peer. Idempotent.
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
pub(crate) struct Held {
    source: Source,
    descriptors: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock().kept.remove(self.source, self.descriptors);
    }
}

/// Counts `descriptors` of a connection that was accepted without a key, for as long as the answer lives. An error, in words,
/// when such connections would hold more than half of `RLIMIT_NOFILE`, or those of one source seven eighths of that: anyone may open them.
pub(crate) fn hold(address: IpAddr, descriptors: usize) -> Result<Held, String> {
    let source = Source::of(address);
    lock().kept.add(source, descriptors, nofile() / 2)?;
    Ok(Held { source, descriptors })
}

/// A permit for the next client of `listener`. `WouldBlock` when none waits, `EMFILE` when one waits and has to wait on: then
/// the listener is not looked at for [`pause_after`].
pub(crate) fn enter(listener: BorrowedFd<'_>) -> io::Result<Permit> {
    let mut waiting = [PollFd::new(&listener, PollFlags::IN)];
    if !matches!(poll(&mut waiting, Some(&Timespec::default())), Ok(1..)) {
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
                tracing::warn!("{line}");
            }
            drop(state);
            displaced.inspect(|displaced| displaced.wake());
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        }
    }
}

/// How long a listener is not to be looked at after [`enter`] or accepting failed with `error`: what waits stays in the
/// backlog, and the listener readable, so that without a pause the next try would come at once. Errors of the system are
/// logged, one line for many, and the pauses grow while they go on.
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

/// After so many errors in a row.
fn pause(failures: u32) -> Duration {
    PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE)
}

/// Whether accepting failed for a reason of that one connection, which has gone: the next one may be better.
pub(crate) fn concerns_one_client(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO))
}

/// Descriptors for clients that have proven nothing.
fn limit() -> usize {
    (nofile() / 4).clamp(FEWEST, MOST)
}

/// Asked for each time: a program may raise it.
fn nofile() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

struct State {
    ledger: Ledger,
    told: report::Told,
    /// Errors in a row.
    failures: u32,
    kept: Kept,
    /// Clients that have made room since the process began.
    displaced: u64,
}

impl State {
    /// Answers what is to be woken then.
    fn shut_down(&mut self, socket: Option<RawFd>) -> Option<Arc<Wakeup>> {
        let socket = socket?;
        self.displaced += 1;
        let displaced = self.ledger.displaced_from(socket);
        // SAFETY: the permit is still in the ledger, under whose lock we are, and its owner takes it out before the socket
        // is closed.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        // One that the client has closed already needs none.
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
            told: report::Told::default(),
            failures: 0,
            kept: Kept::default(),
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
