//! What belongs to the process: the engines that are open, and the end of the interpreter.

use std::sync::{Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};

use pyo3::prelude::*;

use crate::shared::Shared;

/// The engines that may still be open. Locked with the interpreter's lock held, and for moments: a forked child finds it
/// unlocked.
static OPEN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// The thread that ends the interpreter, once it does.
static ENDING: OnceLock<ThreadId> = OnceLock::new();

/// Has [`close_all`] close it.
pub(crate) fn remember(engine: Weak<Shared>) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.retain(|engine| engine.strong_count() > 0);
    open.push(engine);
}

/// Whether the interpreter ends, and the calling thread is not the one that ends it.
///
/// It is a daemon thread then, which the interpreter stops in a moment: an error would be printed that no code of the program made. It gets
/// `SystemExit` instead, which ends a thread without a word.
pub(crate) fn ends_this_thread() -> bool {
    ENDING.get().is_some_and(|ending| *ending != thread::current().id())
}

/// Closes the engines that are open: the package calls it when the interpreter ends, while other threads still run.
///
/// Threads that wait in a call are told that the engine is closed; without this they would wait for the interpreter's lock for ever,
/// and peers would see a connection that breaks instead of one that ends.
#[pyfunction]
pub(crate) fn close_all(py: Python<'_>) {
    ENDING.get_or_init(|| thread::current().id());
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for engine in open.iter().filter_map(Weak::upgrade) {
        engine.close(py);
    }
}
