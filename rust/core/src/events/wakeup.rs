//! Waking one task from any thread.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use atomic_waker::AtomicWaker;

/// A flag that any thread sets and one task waits for. Set several times before the task looks, it wakes the task once.
#[derive(Debug, Default)]
pub(crate) struct Wakeup {
    /// Set by any thread (Release) before it wakes; taken by the task (Acquire) after it has registered, so that what was
    /// written before [`Wakeup::wake`] is seen after [`Wakeup::wait`].
    set: AtomicBool,
    task: AtomicWaker,
}

impl Wakeup {
    pub(crate) fn wake(&self) {
        self.set.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Waits until it is set, and clears it. Cancelled before, it clears nothing.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            self.task.register(context.waker());
            match self.set.swap(false, Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}
