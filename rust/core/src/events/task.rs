//! A task of the event loop, as its owner holds it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::ThreadId;

use super::Wakeup;

/// A future that runs on the event loop for as long as this lives: dropping the task stops it.
#[derive(Debug)]
pub(crate) struct Task(
    /// `None` only while it is being dropped.
    Option<Arc<Shared>>,
);

/// Shared by the owner and the future.
#[derive(Debug)]
struct Shared {
    stop: Wakeup,
    /// The thread of the loop, which cannot wait for its own tasks.
    thread: ThreadId,
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Task {
    /// A task of the loop on `thread`, and the guard that its future runs under.
    pub(super) fn new(thread: ThreadId) -> (Self, Running) {
        let shared = Arc::new(Shared {
            stop: Wakeup::default(),
            thread,
            ended: Mutex::default(),
            changed: Condvar::new(),
        });
        (Self(Some(Arc::clone(&shared))), Running(shared))
    }

    /// Whether the future has been dropped.
    pub(crate) fn is_ended(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| *shared.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the future run to its end, or to that of the loop.
    pub(crate) fn detach(mut self) {
        self.0 = None;
    }

    /// Stops the future without waiting for it: it is dropped soon after. For owners that are dropped under locks.
    pub(crate) fn stop_soon(mut self) {
        if let Some(shared) = self.0.take() {
            shared.stop.wake();
        }
    }

    /// Stops the future. When this returns the future has been dropped; on the loop's own thread it is dropped soon after.
    pub(crate) fn stop(&self) {
        let Some(shared) = &self.0 else { return };
        shared.stop.wake();
        if std::thread::current().id() != shared.thread {
            let ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
            drop(shared.changed.wait_while(ended, |ended| !*ended));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The future's side of a task. Dropped with the future, also with one that never began: then the task has ended.
#[derive(Debug)]
pub(super) struct Running(Arc<Shared>);

impl Running {
    /// Runs `future` until it ends or is stopped.
    pub(super) async fn run(self, future: impl Future<Output = ()>) {
        futures_lite::future::or(self.0.stop.wait(), future).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
