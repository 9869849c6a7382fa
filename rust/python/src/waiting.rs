//! Waits that let other threads run and see signals.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::{Connection, Outcome, Status, TransferId};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::refused;
use crate::number;

/// How long a wait goes on before it looks for signals.
pub(crate) const TURN: Duration = Duration::from_millis(200);

/// The end of a wait of so many seconds; `None`, for no end.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    Ok(length_of(timeout)?.and_then(|length| Instant::now().checked_add(length)))
}

/// Checks a time-out of a call in Python, and answers its seconds: 0 for a negative one; None where the wait has no end, as for one that
/// is longer than clocks go.
#[pyfunction]
pub(crate) fn seconds(#[pyo3(from_py_with = number::timeout)] timeout: Option<f64>) -> PyResult<Option<f64>> {
    Ok(length_of(timeout)?.filter(|length| *length < LONGEST).map(|length| length.as_secs_f64()))
}

/// Waits that are longer have no end.
const LONGEST: Duration = Duration::from_secs(1 << 40);

fn length_of(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    let Some(seconds) = timeout else { return Ok(None) };
    if seconds.is_nan() {
        return Err(PyValueError::new_err("a timeout is a number of seconds, or None for no end: got nan"));
    }
    // What is too long for the clock has no end.
    Ok(Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

/// Waits for the end of a transfer; `None` if the deadline comes first. An error, such as that of Ctrl-C, leaves it under way.
pub(crate) fn wait(
    py: Python<'_>,
    connection: &Connection,
    id: TransferId,
    deadline: Option<Instant>,
) -> PyResult<Option<Outcome>> {
    // It may have ended; then the interpreter's lock need not be released.
    let mut status = connection.status(id);
    loop {
        match status {
            Status::Ended(outcome) => return Ok(Some(outcome)),
            Status::Unknown => {
                connection.here().map_err(refused)?;
                return Err(refused(
                    "the engine does not know the transfer any more: how it ended was told long ago",
                ));
            }
            Status::Pending => py.check_signals()?,
        }
        let left = deadline.map_or(TURN, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(None);
        }
        status = py.detach(|| connection.wait(id, left.min(TURN)));
    }
}

/// Has `work` done, which ends something, on a thread of its own; here, without looking for signals, if no thread can be started. One
/// that an exception leaves goes on. It may be called twice.
pub(crate) fn finish(py: Python<'_>, name: &str, work: impl Fn() + Clone + Send + 'static) -> PyResult<()> {
    let again = work.clone();
    match py.detach(|| begin(name, work)) {
        Ok(answer) => wait_for(py, name, answer),
        Err(_) => {
            py.detach(again);
            Ok(())
        }
    }
}

/// What `work` answers, which cannot be interrupted and runs on a thread of its own. One that an exception leaves goes on.
pub(crate) fn on_thread<A: Send + 'static>(
    py: Python<'_>,
    name: &str,
    work: impl FnOnce() -> A + Send + 'static,
) -> PyResult<A> {
    // Without the lock: work for which no thread can be started is dropped there, and what it holds may wait for a server.
    let answer = py
        .detach(|| begin(name, work))
        .map_err(|error| refused(format!("cannot start the thread {name}: {error}; see `ulimit -u`")))?;
    wait_for(py, name, answer)
}

/// Starts a thread for `work`; its answer comes from the receiver.
fn begin<A: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> A + Send + 'static,
) -> io::Result<Receiver<A>> {
    let (sender, answer) = sync_channel(1);
    let work = move || {
        // No caller waits for it any more after an exception.
        let _ = sender.send(work());
    };
    thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(answer)
}

/// Waits for it, and looks for signals.
fn wait_for<A: Send>(py: Python<'_>, name: &str, mut answer: Receiver<A>) -> PyResult<A> {
    loop {
        // The one reference to it, which may go to where the lock is not held.
        let waited = &mut answer;
        match py.detach(move || waited.recv_timeout(TURN)) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(interrupted) = py.check_signals() {
                    // The answer may have come meanwhile: a name, for one, is withdrawn with it, which waits for a server.
                    py.detach(move || drop(answer));
                    return Err(interrupted);
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(refused(format!("internal error: the thread {name} has ended")));
            }
        }
    }
}
