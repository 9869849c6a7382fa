//! What wakes an event loop of Python: a queue of tokens with one descriptor.
//!
//! ```text
//!  a worker's thread ── push(token) ──▶ LoopQueue ── readable ──▶ the loop ── take() ──▶ futures of these tokens
//! ```
//!
//! The threads that push hold neither the interpreter's lock nor a Python object, and never wait for the loop.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, PoisonError};

use flagcx_p2p::internals::events::Notifier;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// The tokens that wait for one loop, and its descriptor. Python's reactor of the loop owns one; what is under way has others
/// refer to it, so that its descriptor is closed when neither needs it any more.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Locked for moments, by threads that wait for nothing meanwhile. In a forked child it may be locked for ever: nothing there
    /// comes so far.
    waiting: Mutex<Vec<u64>>,
    /// Readable while some wait; changed under their lock.
    readable: Notifier,
}

impl Tokens {
    /// Has the loop take `token` soon. Any thread; waits for nothing.
    pub(crate) fn push(&self, token: u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            self.readable.notify();
        }
        waiting.push(token);
    }
}

/// The tokens of one event loop.
#[pyclass(frozen, module = "flagcx_p2p._native")]
#[derive(Debug)]
pub(crate) struct LoopQueue(pub(crate) Arc<Tokens>);

#[pymethods]
impl LoopQueue {
    #[new]
    fn new() -> PyResult<Self> {
        let readable = Notifier::new().map_err(|error| {
            PyOSError::new_err(format!("cannot open an eventfd for the event loop: {error}; see `ulimit -n`"))
        })?;
        Ok(Self(Arc::new(Tokens { waiting: Mutex::default(), readable })))
    }

    /// Readable while there is something to take.
    fn fileno(&self) -> i32 {
        self.0.readable.as_fd().as_raw_fd()
    }

    /// The tokens that have been pushed since.
    fn take(&self) -> Vec<u64> {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.readable.acknowledge();
        std::mem::take(&mut *waiting)
    }
}

/// Awaits of one thing, each of its own loop.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    waiting: Vec<(Arc<Tokens>, u64)>,
    /// It is over: nothing waits any more.
    over: bool,
}

impl Waiters {
    /// Adds one; false if it is over.
    pub(crate) fn add(&self, tokens: &Arc<Tokens>, token: u64) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.over {
            state.waiting.push((Arc::clone(tokens), token));
        }
        !state.over
    }

    /// Removes one that was not told.
    pub(crate) fn remove(&self, tokens: &Arc<Tokens>, token: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.retain(|(of, which)| *which != token || !Arc::ptr_eq(of, tokens));
    }

    /// Wakes those that wait now, in the order in which they came.
    pub(crate) fn tell(&self) {
        let waiting = std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).waiting);
        waiting.iter().for_each(|(tokens, token)| tokens.push(*token));
    }

    /// Wakes those that wait, and has none wait again.
    pub(crate) fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.tell();
    }
}
