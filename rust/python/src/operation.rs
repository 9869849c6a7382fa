//! Transfers as Python asks for them: checked, started, waited for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use flagcx_p2p::{Connection, Iov, Opcode, Outcome, Request, Status, SubmitError, TransferId, WhenFull};
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

/// Starts a transfer of at least one piece.
pub(crate) fn start(
    py: Python<'_>,
    connection: &Connection,
    opcode: Opcode,
    iovs: &[Iov],
    room: impl Into<Room>,
) -> PyResult<TransferId> {
    let request = Request { when_full: WhenFull::Refuse, ..Request::new(opcode, iovs) };
    let begin = || connection.start(&request);
    match if iovs.len() < MANY { begin() } else { py.detach(begin) } {
        Ok(id) => Ok(id),
        Err(SubmitError::WouldBlock) => start_when_free(py, connection, &request, room.into()),
        Err(SubmitError::Empty) => Err(PyValueError::new_err(SubmitError::Empty.to_string())),
        Err(error) => Err(refused(error)),
    }
}

#[cold]
fn start_when_free(
    py: Python<'_>,
    connection: &Connection,
    request: &Request<'_, [Iov]>,
    room: Room,
) -> PyResult<TransferId> {
    let until = match room {
        Room::Refuse => return Err(queue_full(SubmitError::WouldBlock)),
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
            Err(SubmitError::WouldBlock) => return Err(still_full(py, connection, room)),
            Err(error) => return Err(refused(error)),
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
    let deadline = waiting::deadline(timeout)?;
    if iovs.is_empty() {
        return Ok(());
    }
    let room = deadline.map_or(Room::Wait, Room::Until);
    // An engine that was closed meanwhile says so.
    let id =
        start(py, connection, opcode, iovs, room).map_err(|error| shared.core().err().unwrap_or(error))?;
    if id == TransferId::COMPLETE {
        return Ok(());
    }
    match waiting::wait(py, connection, id, deadline) {
        Ok(Some(outcome)) => ended(py, connection, id, &outcome),
        Ok(None) => match stop(py, connection, id) {
            Status::Ended(outcome) if outcome != Outcome::Cancelled => ended(py, connection, id, &outcome),
            _ => Err(not_over(py, connection, id, timeout.unwrap_or_default())),
        },
        Err(error) => {
            stop(py, connection, id);
            Err(error)
        }
    }
}

/// Ends a transfer; nothing touches its memory afterwards. Answers how it ended: it may have been over before.
fn stop(py: Python<'_>, connection: &Connection, id: TransferId) -> Status {
    py.detach(|| connection.cancel(id));
    connection.status(id)
}

fn ended(py: Python<'_>, connection: &Connection, id: TransferId, outcome: &Outcome) -> PyResult<()> {
    if *outcome == Outcome::Done {
        return Ok(());
    }
    of_outcome(py, id, &connection.peer().control.to_string(), outcome).map_or(Ok(()), Err)
}
