//! Transfers under way.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use flagcx_p2p::{Connection as CoreConnection, Iov, Opcode, Outcome, Status, TransferId};
use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use crate::errors::{of_outcome, refused};
use crate::note::Note;
use crate::notifier::{self, Fate};
use crate::operation::{self, Failed};
use crate::reactor::{LoopQueue, Waiters};
use crate::shared::Shared;
use crate::{number, single, waiting};

/// How long a thread that drives an event loop may take to cancel: most transfers end in less.
const CANCEL_PATIENCE: Duration = Duration::from_micros(200);

/// A transfer under way: ``start_write`` and ``start_read`` of a connection, and ``Prepared.start``, answer one.
///
/// It ends by itself, once: done, or as ``TransferFailed``, ``TransferTimedOut`` or ``TransferCancelled``; nothing touches its memory
/// any more then. Dropping this object ends nothing. Any thread may call anything, several may wait or await at the same time, and
/// each is told how it ended.
///
/// ``await transfer`` waits in asyncio, or in another loop with ``add_reader`` such as uvloop: no thread waits meanwhile, and the loop
/// is woken once, by one descriptor for all transfers that are awaited in it. Of a transfer that has ended it costs no turn of the
/// loop. Cancelling a task that awaits, by ``asyncio.timeout`` or ``wait_for`` too, cancels the transfer for all that wait for it:
/// nothing touches its memory any more when ``CancelledError`` goes on; a wait for that, of up to seconds with a peer that
/// does not answer, is spent on a thread of the loop's executor. ``asyncio.shield(transfer)`` keeps it.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Transfer {
    connection: Arc<CoreConnection>,
    id: TransferId,
    /// Once it is known.
    outcome: Mutex<Option<Outcome>>,
    /// What became of the notification that it was started with.
    notified: Option<Arc<Fate>>,
    /// Of pieces that were found by their addresses: what it takes to start it once more. Until it is known that it is not needed.
    found: Mutex<Option<Found>>,
    /// Event loops that await it, from the first await on that found it under way.
    waiters: OnceLock<Arc<Waiters>>,
}

#[derive(Debug)]
struct Found {
    opcode: Opcode,
    iovs: Vec<Iov>,
}

/// Starts a transfer, with the notification that is to follow it.
pub(crate) fn begin(
    py: Python<'_>,
    shared: &Arc<Shared>,
    connection: &Arc<CoreConnection>,
    start: impl FnOnce() -> Result<TransferId, Failed>,
    notify: Option<Note>,
) -> Result<Transfer, Failed> {
    if let Some(note) = &notify {
        notifier::check(connection, note)?;
        shared.notifier.start()?;
    }
    let id = start()?;
    let notified = notify.map(|note| {
        // Without the interpreter's lock: a worker that moves bytes may hold its own for some time.
        py.detach(|| shared.notifier.attach(connection, id, note))
    });
    let mut transfer = Transfer::new(Arc::clone(connection), id);
    transfer.notified = notified;
    Ok(transfer)
}

impl Transfer {
    pub(crate) fn new(connection: Arc<CoreConnection>, id: TransferId) -> Self {
        let outcome = Mutex::new((id == TransferId::COMPLETE).then_some(Outcome::Done));
        Self { connection, id, outcome, notified: None, found: Mutex::default(), waiters: OnceLock::new() }
    }

    /// Of pieces that were found by their addresses.
    pub(crate) fn with_found(mut self, opcode: Opcode, iovs: Vec<Iov>) -> Self {
        if self.id != TransferId::COMPLETE {
            self.found = Mutex::new(Some(Found { opcode, iovs }));
        }
        self
    }

    /// Waits, and raises what it ended as.
    pub(crate) fn wait_for(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let deadline = waiting::deadline(timeout)?;
        let outcome = match self.known() {
            Some(outcome) => outcome,
            None => match waiting::wait(py, &self.connection, self.id, deadline)? {
                Some(outcome) => self.settle(outcome),
                None => {
                    let seconds = timeout.unwrap_or_default();
                    return Err(PyTimeoutError::new_err(format!(
                        "the transfer is not over after {seconds} s"
                    )));
                }
            },
        };
        of_outcome(py, self.id, &self.peer(), &outcome).map_or(Ok(()), Err)
    }

    pub(crate) fn number(&self) -> TransferId {
        self.id
    }

    fn known(&self) -> Option<Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn settle(&self, outcome: Outcome) -> Outcome {
        if !operation::may_be_of_key(&outcome) {
            self.take_found();
        }
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(outcome).clone()
    }

    fn take_found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How it ended, if it has.
    fn look(&self) -> Option<Outcome> {
        self.known().or_else(|| match self.connection.status(self.id) {
            Status::Ended(outcome) => Some(self.settle(outcome)),
            Status::Pending | Status::Unknown => None,
        })
    }

    /// How it ended, as an exception if not done; `None` while it is under way.
    fn ended(&self, py: Python<'_>) -> Option<PyResult<()>> {
        let outcome = self.look()?;
        Some(match outcome {
            Outcome::Done => Ok(()),
            other => of_outcome(py, self.id, &self.peer(), &other).map_or(Ok(()), Err),
        })
    }

    fn peer(&self) -> String {
        self.connection.peer().control.to_string()
    }
}

#[pymethods]
impl Transfer {
    /// Its number in the engine, as in the log and in ``SlowTransfer``; 0 or more, and the same for all that ended while they were
    /// started.
    #[getter]
    fn id(&self) -> u64 {
        self.id.0
    }

    /// Whether the notification that it was started with has been sent to the peer: None while that is not known, or without one.
    ///
    /// False: the transfer did not end as done, or the notification could not be sent within 5 s; the event
    /// ``notification_dropped`` and the log have the reason then.
    #[getter]
    fn notified(&self) -> Option<bool> {
        self.notified.as_ref().and_then(|fate| fate.known())
    }

    /// Whether it has ended, in whatever way. Never waits, and moves bytes meanwhile if it has not.
    fn done(&self) -> PyResult<bool> {
        self.connection.here().map_err(refused)?;
        Ok(self.look().is_some())
    }

    /// Returns when the bytes are there. Other threads run meanwhile, and signals are seen five times a second.
    ///
    /// ``timeout``: seconds; None: for as long as it takes, which FLAGCX_P2P_XFER_TIMEOUT_MS limits. When it passes ``TimeoutError`` is
    /// raised and the transfer goes on. Raises ``TransferFailed`` or one of its subclasses, with what is known of the failure, each
    /// time it is called.
    #[pyo3(signature = (timeout = None))]
    fn wait(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<()> {
        self.wait_for(py, timeout)
    }

    /// Ends it: nothing touches its memory any more when this returns. Does nothing if it has ended.
    ///
    /// Takes some microseconds most often; 20 ms, and 2 s at most, with a peer that does not answer; and as long as a copy of a GPU
    /// takes. Ctrl-C ends the wait within a fraction of a second: the transfer goes on to end, and another call, or ``wait``, waits for it.
    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        self.connection.here().map_err(refused)?;
        if !self.try_cancel(py) {
            let (connection, id) = (Arc::clone(&self.connection), self.id);
            waiting::finish(py, "p2p-cancel", move || {
                connection.cancel(id);
            })?;
        }
        self.look();
        Ok(())
    }

    /// Starts it once more, as another transfer, if it failed because the peer had registered the memory again before it was started.
    /// `None` otherwise, and when that has been done. Asks the peer, for at most a second. `block`: waits for room.
    #[pyo3(name = "_again")]
    fn again(&self, py: Python<'_>, block: bool) -> PyResult<Option<Self>> {
        if !self.look().is_some_and(|outcome| operation::may_be_of_key(&outcome)) {
            return Ok(None);
        }
        let Some(Found { opcode, mut iovs }) = self.take_found() else { return Ok(None) };
        if !operation::find_again(py, &self.connection, &mut iovs, None) {
            return Ok(None);
        }
        let id = operation::start(py, &self.connection, opcode, &iovs, block)?;
        Ok(Some(Self::new(Arc::clone(&self.connection), id)))
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let advice = "wait for it here, and tell the other process how it ended";
        Err(single::not_copied(slf.get_type().name()?, advice))
    }

    /// What `await` iterates: nothing more if it has ended.
    fn __await__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        static WAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (py, transfer) = (slf.py(), slf.get());
        if let Some(ended) = transfer.ended(py) {
            ended?;
            return Ok(PyTuple::empty(py).try_iter()?.into_any());
        }
        transfer.connection.here().map_err(refused)?;
        WAIT.import(py, "flagcx_p2p._asyncio", "wait")?.call1((slf,))
    }

    /// Has `token` pushed when it has ended; false if that has been told already.
    #[pyo3(name = "_watch")]
    fn watch(&self, py: Python<'_>, queue: &LoopQueue, token: u64) -> PyResult<bool> {
        self.connection.here().map_err(refused)?;
        let first = || {
            let waiters = Arc::<Waiters>::default();
            let told = Arc::clone(&waiters);
            self.connection.call_at_end(self.id, move |_| told.end());
            waiters
        };
        let waiters = match self.waiters.get() {
            Some(waiters) => waiters,
            // Without the interpreter's lock: a worker that moves bytes may hold its own for some time.
            None => py.detach(|| self.waiters.get_or_init(first)),
        };
        Ok(waiters.add(&queue.0, token))
    }

    #[pyo3(name = "_unwatch")]
    fn unwatch(&self, queue: &LoopQueue, token: u64) {
        if let Some(waiters) = self.waiters.get().filter(|_| self.connection.here().is_ok()) {
            waiters.remove(&queue.0, token);
        }
    }

    /// Begins to cancel it; true if nothing touches its memory any more.
    #[pyo3(name = "_try_cancel")]
    fn try_cancel(&self, py: Python<'_>) -> bool {
        self.known().is_some() || py.detach(|| self.connection.try_cancel(self.id, CANCEL_PATIENCE))
    }

    /// Raises what it ended as; it has been told that it did.
    #[pyo3(name = "_result")]
    fn result(&self, py: Python<'_>) -> PyResult<()> {
        self.ended(py).unwrap_or_else(|| {
            Err(refused("the engine does not know the transfer any more: how it ended was told long ago"))
        })
    }

    fn __repr__(&self) -> String {
        let state =
            self.known().map_or_else(|| "not known to have ended".to_owned(), |outcome| outcome.to_string());
        format!("<flagcx_p2p.Transfer {:#x} with {}: {state}>", self.id.0, self.peer())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.known().is_some() {
            return;
        }
        // It goes on, and gives its id back at its end. Without the interpreter's lock: a worker that moves bytes may hold its own
        // for some time. An interpreter that has ended has none to release.
        let release = || self.connection.release_at_end(self.id);
        if Python::try_attach(|py| py.detach(release)).is_none() {
            release();
        }
    }
}
