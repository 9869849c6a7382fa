//! A future on the event loop, as its owner sees it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::ThreadId;

use super::Wakeup;

/// A future that runs on the event loop for as long as this lives: dropping the task stops it.
#[derive(Debug)]
pub(crate) struct Task(Arc<Shared>);

/// Seen by the owner and by the future.
#[derive(Debug)]
pub(super) struct Shared {
    stop: Wakeup,
    /// The thread of the loop, which cannot wait for its own tasks.
    thread: ThreadId,
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Task {
    pub(super) fn new(thread: ThreadId) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared {
            stop: Wakeup::default(),
            thread,
            ended: Mutex::default(),
            changed: Condvar::new(),
        });
        (Self(Arc::clone(&shared)), shared)
    }

    /// Whether the future has been dropped.
    pub(crate) fn is_ended(&self) -> bool {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the future. When this returns the future has been dropped; on the loop's own thread it is dropped soon after.
    pub(crate) fn stop(&self) {
        self.0.stop.wake();
        if std::thread::current().id() != self.0.thread {
            let ended = self.0.ended.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.0.changed.wait_while(ended, |ended| !*ended));
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Runs `future` until it ends or is stopped, and reports that it has been dropped.
    pub(super) async fn run(self: Arc<Self>, future: impl Future<Output = ()>) {
        // Declared first, so dropped after the future, also when the loop ends with the future in it.
        let _ended = Ended(&self);
        futures_lite::future::or(self.stop.wait(), future).await;
    }
}

struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
