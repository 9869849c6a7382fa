//! What wakes the event loop's thread for its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;
use std::thread::ThreadId;

use calloop::LoopSignal;

/// The waker of all tasks of a loop.
///
/// Not that of `calloop::EventLoop::block_on`, which interrupts the next wait whichever thread wakes: most often that is the loop's own, by
/// a timer or a descriptor, and the tasks run before the next wait anyway. Each such turn took a second one, with six system calls.
pub(super) struct LoopWaker {
    /// A task is to run. Set by threads that wake (a swap), taken by the loop's thread before it runs tasks (a swap): each sees what was
    /// written before the swaps ahead of its own, so AcqRel.
    is_ready: AtomicBool,
    thread: ThreadId,
    signal: LoopSignal,
}

impl LoopWaker {
    /// Of the calling thread's loop. Its tasks have not run yet.
    pub(super) fn new(signal: LoopSignal) -> Self {
        Self { is_ready: AtomicBool::new(true), thread: std::thread::current().id(), signal }
    }

    /// Whether a task is to run, which the caller then has run.
    pub(super) fn take(&self) -> bool {
        self.is_ready.swap(false, Ordering::AcqRel)
    }

    /// Whether a task has been woken since. Asked by the loop's thread before it waits: a thread that wakes a task behind that interrupts
    /// the wait.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The thread that set it first has interrupted the wait, or is the loop's own.
        let was_ready = self.is_ready.swap(true, Ordering::AcqRel);
        if !was_ready && std::thread::current().id() != self.thread {
            self.signal.wakeup();
        }
    }
}
