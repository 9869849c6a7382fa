//! What the Python objects of an engine share: the engine, what is kept alive for it, and its one end.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::Engine as CoreEngine;
use pyo3::prelude::*;

use crate::errors::refused;
use crate::kept::Kept;
use crate::names::Names;
use crate::notification::Arrivals;
use crate::notifier::Notifier;
use crate::waiting;

/// An engine, and what its Python objects share.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Arc<CoreEngine>,
    pub(crate) kept: Kept,
    /// Sends the notifications of transfers that are done.
    pub(crate) notifier: Notifier,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) names: Names,
    opened: Instant,
    /// Set once by the thread that closes it, and read by every call: the engine itself refuses what comes too late, so Relaxed.
    closed: AtomicBool,
    /// Nothing of it touches memory any more. Set by the thread that has ended it, which reads `left` then; SeqCst, as are the accesses
    /// of `left`: that thread gives the memory up, or the one that was interrupted does, or both.
    ended: AtomicBool,
    /// A thread that closes it was interrupted. Set by that thread, which reads `ended` then.
    left: AtomicBool,
    /// Held by the thread that closes it, for the others that do to wait. Taken without the interpreter's lock, and never while
    /// Python code can run.
    closing: Mutex<()>,
}

impl Shared {
    /// Of an engine that was opened, to be closed with this.
    pub(crate) fn new(core: Arc<CoreEngine>, names: Names) -> Self {
        let arrivals = Arrivals::of(&core);
        Self {
            core,
            kept: Kept::default(),
            notifier: Notifier::default(),
            arrivals,
            names,
            opened: Instant::now(),
            closed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            left: AtomicBool::new(false),
            closing: Mutex::new(()),
        }
    }

    /// Since it was opened.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// The engine, if it is open and of this process.
    #[inline]
    pub(crate) fn core(&self) -> PyResult<&Arc<CoreEngine>> {
        self.core.here().map_err(refused)?;
        if self.is_closed() {
            return Err(refused("the engine is closed"));
        }
        Ok(&self.core)
    }

    /// The error of a call that failed. That of an engine which was closed meanwhile says so, however far the call had come.
    #[cold]
    pub(crate) fn refused(&self, error: impl Display) -> PyErr {
        match self.core() {
            Err(closed) => closed,
            Ok(_) => refused(error),
        }
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Ends the engine, and gives up the memory that it keeps. Does nothing in a forked process.
    pub(crate) fn close(&self, py: Python<'_>) {
        if self.core.here().is_err() {
            return;
        }
        self.closed.store(true, Ordering::Relaxed);
        py.detach(|| self.end_core());
        self.give_up();
    }

    /// As [`Shared::close`], for a caller that signals may interrupt: the engine goes on to end then, and gives the memory up.
    pub(crate) fn close_or_leave(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        if self.core.here().is_err() {
            return Ok(());
        }
        self.closed.store(true, Ordering::Relaxed);
        let shared = Arc::clone(self);
        let ended = waiting::finish(py, "p2p-close", move || {
            shared.end_core();
            if shared.left.load(Ordering::SeqCst) {
                // An interpreter that has ended keeps nothing alive.
                let _ = Python::try_attach(|_| shared.give_up());
            }
        });
        if ended.is_err() {
            self.left.store(true, Ordering::SeqCst);
        }
        // By the caller where it can be: it may run any Python code.
        if self.ended.load(Ordering::SeqCst) {
            self.give_up();
        }
        ended
    }

    /// Without the interpreter's lock.
    fn end_core(&self) {
        let _closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        // Peers are not to find it any more.
        self.names.close();
        self.notifier.finish();
        self.core.close();
        self.notifier.stop();
        self.ended.store(true, Ordering::SeqCst);
    }

    /// What it keeps; with the interpreter's lock, for Python objects are dropped.
    fn give_up(&self) {
        self.arrivals.waiters.end();
        self.kept.release_all();
    }

    /// Frees memory that it has allocated, to which no Python object refers any more. A forked process frees none.
    pub(crate) fn free(&self, py: Python<'_>, address: u64) {
        if self.core.here().is_ok() {
            py.detach(|| self.kept.free(&self.core, address));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // An interpreter that has ended has no lock to release.
        if Python::try_attach(|py| self.close(py)).is_none() {
            if self.core.here().is_ok() {
                // Peers are not to find it any more.
                self.names.close();
            }
            self.core.close();
            // In a forked child a thread of the parent's may hold its lock for ever.
            if self.core.here().is_ok() {
                self.notifier.stop();
            }
        }
    }
}
