//! Connecting to the first of several addresses that answers (RFC 8305, "Happy Eyeballs").

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::Stream;
use super::connect::connected;
use super::schedule::{Next, RefusalPolicy, Schedule};
use crate::events::{Abort, Interest, Waiter, run_blocking, tcp};
use crate::fork::OwnSocket;

/// Connects to the first of `targets` that answers. They are tried in their order: the next one is started when the
/// one before it has failed, or has been silent for 250 ms (less if the time until `deadline` is short). A silent
/// address stays under way beside the others. Refused addresses are tried again according to `refusals`. The stream's
/// later waits end with `abort` too.
pub fn connect_any(
    targets: &[SocketAddr],
    deadline: Instant,
    refusals: RefusalPolicy,
    abort: Option<&Abort>,
) -> Result<(SocketAddr, Stream), ConnectError> {
    let begun = Instant::now();
    let mut schedule = Schedule::new(targets.len(), deadline.saturating_duration_since(begun), refusals);
    let mut attempts = Attempts(targets.iter().copied().map(Attempt::new).collect());
    loop {
        let now = Instant::now();
        let is_late = now >= deadline;
        let until = match schedule.next(now) {
            Next::Start(index) if is_late && attempts.has_tried(index) => break,
            Next::Start(index) => {
                attempts.start(index, now, &mut schedule);
                continue;
            }
            Next::WaitUntil(until) => until.min(deadline),
            Next::Wait => deadline,
            Next::Over => break,
        };
        match attempts.wait(until, abort) {
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            other => other.map_err(ConnectError::Wait)?,
        }
        if let Some(connected) = attempts.first_connected(abort, &mut schedule) {
            return Ok(connected);
        }
        if is_late {
            break;
        }
    }
    Err(ConnectError::Addresses(attempts.failures()))
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The wait failed: `ConnectionAborted` by this process, or the system's error.
    #[error("{0}")]
    Wait(io::Error),
    /// The result of each address.
    #[error("{}", listed(.0.iter().map(AddressFailure::to_string)))]
    Addresses(Vec<AddressFailure>),
}

/// Joins the texts of addresses to one of bounded length.
pub(in crate::control) fn listed(mut texts: impl Iterator<Item = String>) -> String {
    let mut list = texts.by_ref().take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    let more = texts.count();
    if more > 0 {
        list += &format!(" and {more} more");
    }
    list
}

/// The result of one address.
#[derive(Debug)]
pub struct AddressFailure {
    /// The address.
    pub target: SocketAddr,
    /// How often it was tried.
    pub tries: u32,
    /// How long the last try has been waiting for an answer, if it still is.
    pub silent: Option<Duration>,
    /// The error of the last try that had one.
    pub error: Option<io::Error>,
}

impl fmt::Display for AddressFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, tries, silent, error } = self;
        match (silent, error) {
            (Some(silent), _) => write!(f, "{target} timed out after {} ms", silent.as_millis()),
            (None, Some(error)) if error.kind() == ErrorKind::ConnectionRefused && *tries > 1 => {
                write!(f, "{target} refused {tries} times")
            }
            (None, Some(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                write!(f, "{target} refused")
            }
            (None, Some(error)) => write!(f, "{target}: {error}"),
            (None, None) => write!(f, "{target} not tried"),
        }
    }
}

impl From<AddressFailure> for io::Error {
    fn from(miss: AddressFailure) -> Self {
        miss.error.filter(|_| miss.silent.is_none()).unwrap_or_else(|| ErrorKind::TimedOut.into())
    }
}

/// By the number of their address.
#[derive(Debug)]
struct Attempts(Vec<Attempt>);

/// The tries of one address.
#[derive(Debug)]
struct Attempt {
    target: SocketAddr,
    tries: u32,
    under_way: Option<(OwnSocket<Socket>, Instant)>,
    last: Option<io::Error>,
}

impl Attempts {
    fn has_tried(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|attempt| attempt.tries > 0)
    }

    fn start(&mut self, index: usize, now: Instant, schedule: &mut Schedule) {
        let Some(attempt) = self.0.get_mut(index) else { return };
        attempt.tries = attempt.tries.saturating_add(1);
        match tcp::begin_connect(None, attempt.target) {
            Ok(socket) => attempt.under_way = Some((socket, now)),
            Err(error) => attempt.fail(error, index, schedule),
        }
    }

    /// Until one of those under way has ended.
    fn wait(&self, until: Instant, abort: Option<&Abort>) -> io::Result<()> {
        let sockets = self.0.iter().filter_map(|attempt| attempt.under_way.as_ref());
        let fds: Vec<_> = sockets.map(|(socket, _)| (socket.as_fd(), Interest::Write)).collect();
        run_blocking(Waiter::blocking(abort).any(&fds, Some(until)))
    }

    /// The first that is connected. Failures are reported to the schedule.
    fn first_connected(
        &mut self,
        abort: Option<&Abort>,
        schedule: &mut Schedule,
    ) -> Option<(SocketAddr, Stream)> {
        for (index, attempt) in self.0.iter_mut().enumerate() {
            let Some((socket, begun)) = attempt.under_way.take() else { continue };
            match tcp::is_connected(&socket) {
                Ok(false) => attempt.under_way = Some((socket, begun)),
                Ok(true) => match connected(socket.map(TcpStream::from), abort) {
                    Ok(stream) => return Some((attempt.target, stream)),
                    Err(error) => attempt.fail(error, index, schedule),
                },
                Err(error) => attempt.fail(error, index, schedule),
            }
        }
        None
    }

    fn failures(self) -> Vec<AddressFailure> {
        let now = Instant::now();
        let miss = |attempt: Attempt| AddressFailure {
            target: attempt.target,
            tries: attempt.tries,
            silent: attempt.under_way.map(|(_, begun)| now - begun),
            error: attempt.last,
        };
        self.0.into_iter().map(miss).collect()
    }
}

impl Attempt {
    fn new(target: SocketAddr) -> Self {
        Self { target, tries: 0, under_way: None, last: None }
    }

    /// A process may still start to listen where a connect was refused or not answered; other errors are permanent.
    fn fail(&mut self, error: io::Error, index: usize, schedule: &mut Schedule) {
        let hopeful = matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::TimedOut);
        schedule.failed(index, hopeful);
        self.last = Some(error);
    }
}

/// Number of addresses that an error names.
const MAX_LISTED: usize = 8;
