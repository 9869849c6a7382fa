//! Transfers as Python asks for them: checked, started, waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flagcx_p2p::{
    CompletionStatus, Connection, Iov, Opcode, Outcome, Request, Status, SubmitError, TransferId, WhenFull,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::{of_outcome, queue_full, refused, timed_out};
use crate::shared::Shared;
use crate::waiting;

/// What a call that starts a transfer does when there is no room for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Room {
    /// Raises `QueueFull`.
    Refuse,
    /// Waits for it, for [`START_LIMIT`] at most.
    Wait,
    /// Waits for it until then at most.
    Until(Instant),
}

/// Of the argument `block`.
impl From<bool> for Room {
    fn from(block: bool) -> Self {
        if block { Self::Wait } else { Self::Refuse }
    }
}

/// How long a call waits for room: the default of `FLAGCX_P2P_XFER_TIMEOUT_MS`.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long it sleeps between two attempts.
const PAUSE: Duration = Duration::from_micros(100);

/// From so many pieces on the interpreter's lock is released while a transfer is started.
const MANY: usize = 64;

/// What a call raises that has moved nothing, or not everything.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: PyErr,
    /// It may come from a key that was found by an address, and that the peer's memory no longer has.
    pub(crate) may_be_of_key: bool,
}

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Self {
        Self { error, may_be_of_key: false }
    }
}

impl From<Failed> for PyErr {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<SubmitError> for Failed {
    fn from(error: SubmitError) -> Self {
        Self { may_be_of_key: matches!(error, SubmitError::Remote { .. }), error: refused(error) }
    }
}

/// Whether it may come from such a key.
pub(crate) fn may_be_of_key(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed(failure) if failure.status == CompletionStatus::RemoteAccess)
}

/// Starts a transfer of at least one piece.
pub(crate) fn start(
    py: Python<'_>,
    connection: &Connection,
    opcode: Opcode,
    iovs: &[Iov],
    room: impl Into<Room>,
) -> Result<TransferId, Failed> {
    let request = Request { when_full: WhenFull::Refuse, ..Request::new(opcode, iovs) };
    let begin = || connection.start(&request);
    match if iovs.len() < MANY { begin() } else { py.detach(begin) } {
        Ok(id) => Ok(id),
        Err(SubmitError::WouldBlock) => start_when_free(py, connection, &request, room.into()),
        Err(SubmitError::Empty) => Err(PyValueError::new_err(SubmitError::Empty.to_string()).into()),
        Err(error) => Err(error.into()),
    }
}

#[cold]
fn start_when_free(
    py: Python<'_>,
    connection: &Connection,
    request: &Request<'_, [Iov]>,
    room: Room,
) -> Result<TransferId, Failed> {
    let until = match room {
        Room::Refuse => return Err(queue_full(SubmitError::WouldBlock).into()),
        Room::Wait => Instant::now() + START_LIMIT,
        Room::Until(deadline) => deadline.min(Instant::now() + START_LIMIT),
    };
    loop {
        py.check_signals()?;
        let started = py.detach(|| {
            sleep(PAUSE);
            connection.start(request)
        });
        match started {
            Ok(id) => return Ok(id),
            Err(SubmitError::WouldBlock) if Instant::now() < until => {}
            Err(SubmitError::WouldBlock) => return Err(still_full(py, connection, room).into()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn still_full(py: Python<'_>, connection: &Connection, room: Room) -> PyErr {
    match room {
        Room::Until(_) => not_started(py, connection),
        Room::Refuse | Room::Wait => {
            let seconds = START_LIMIT.as_secs();
            queue_full(format!("for {seconds} s {}", no_room(&connection.peer().control.to_string())))
        }
    }
}

/// The error of a transfer for which there was no room before its time-out.
pub(crate) fn not_started(py: Python<'_>, connection: &Connection) -> PyErr {
    let peer = connection.peer().control.to_string();
    timed_out(py, TransferId::COMPLETE, &peer, no_room(&peer))
}

fn no_room(peer: &str) -> String {
    format!(
        "no room for another transfer with {peer}: the queues are full, or as many transfers as an engine has places for were not \
         asked how they ended (Transfer.wait, Transfer.done)"
    )
}

/// The error of a transfer that was stopped at the time-out of its call.
pub(crate) fn not_over(py: Python<'_>, connection: &Connection, id: TransferId, seconds: f64) -> PyErr {
    let peer = connection.peer().control.to_string();
    let text = format!("the transfer with {peer} was not over after {seconds} s, and was stopped");
    timed_out(py, id, &peer, text)
}

/// Looks up pieces again that were found by their addresses; true if that gives them other keys. Waits for the peer for at most a second.
pub(crate) fn find_again(
    py: Python<'_>,
    connection: &Connection,
    iovs: &mut [Iov],
    deadline: Option<Instant>,
) -> bool {
    let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
    !left.is_zero() && py.detach(|| connection.find_again(iovs, left))
}

/// As [`start`], of pieces that were found by their addresses.
pub(crate) fn start_found(
    py: Python<'_>,
    connection: &Connection,
    opcode: Opcode,
    iovs: &mut [Iov],
    room: impl Into<Room> + Copy,
) -> Result<TransferId, Failed> {
    match start(py, connection, opcode, iovs, room) {
        Err(failed) if failed.may_be_of_key && find_again(py, connection, iovs, None) => {
            start(py, connection, opcode, iovs, room)
        }
        answer => answer,
    }
}

/// As [`run`], of pieces that were found by their addresses. It is made once more with other keys if the peer had registered their memory
/// again before the call, and the announcement of that was under way.
pub(crate) fn run_found(
    py: Python<'_>,
    shared: &Shared,
    connection: &Connection,
    opcode: Opcode,
    iovs: &mut [Iov],
    timeout: Option<f64>,
) -> PyResult<()> {
    let deadline = waiting::deadline(timeout)?;
    match make(py, shared, connection, (opcode, iovs), deadline, timeout) {
        Err(failed) if failed.may_be_of_key && find_again(py, connection, iovs, deadline) => {
            Ok(make(py, shared, connection, (opcode, iovs), deadline, timeout)?)
        }
        answer => Ok(answer?),
    }
}

/// Makes a transfer, and waits for its end; nothing is done without pieces. Whatever exception ends that, nothing uses its memory
/// afterwards.
pub(crate) fn run(
    py: Python<'_>,
    shared: &Shared,
    connection: &Connection,
    opcode: Opcode,
    iovs: &[Iov],
    timeout: Option<f64>,
) -> PyResult<()> {
    Ok(make(py, shared, connection, (opcode, iovs), waiting::deadline(timeout)?, timeout)?)
}

fn make(
    py: Python<'_>,
    shared: &Shared,
    connection: &Connection,
    (opcode, iovs): (Opcode, &[Iov]),
    deadline: Option<Instant>,
    timeout: Option<f64>,
) -> Result<(), Failed> {
    if iovs.is_empty() {
        return Ok(());
    }
    let room = deadline.map_or(Room::Wait, Room::Until);
    // An engine that was closed meanwhile says so.
    let id = start(py, connection, opcode, iovs, room)
        .map_err(|failed| shared.core().err().map_or(failed, Failed::from))?;
    if id == TransferId::COMPLETE {
        return Ok(());
    }
    match waiting::wait(py, connection, id, deadline) {
        Ok(Some(outcome)) => ended(py, connection, id, &outcome),
        Ok(None) => match stop(py, connection, id) {
            Status::Ended(outcome) if outcome != Outcome::Cancelled => ended(py, connection, id, &outcome),
            _ => Err(not_over(py, connection, id, timeout.unwrap_or_default()).into()),
        },
        Err(error) => {
            stop(py, connection, id);
            Err(error.into())
        }
    }
}

/// Ends a transfer; nothing touches its memory afterwards. Answers how it ended: it may have been over before.
fn stop(py: Python<'_>, connection: &Connection, id: TransferId) -> Status {
    py.detach(|| connection.cancel(id));
    connection.status(id)
}

fn ended(py: Python<'_>, connection: &Connection, id: TransferId, outcome: &Outcome) -> Result<(), Failed> {
    if *outcome == Outcome::Done {
        return Ok(());
    }
    let failed = |error| Err(Failed { error, may_be_of_key: may_be_of_key(outcome) });
    of_outcome(py, id, &connection.peer().control.to_string(), outcome).map_or(Ok(()), failed)
}
