//! A descriptor that the loop watches for a task.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;
use calloop::io::Async;

/// A descriptor that the loop watches. It stays registered with the kernel until it is ready, whatever else its task is woken for meanwhile:
/// by itself `Async` registers it anew, by a system call, with each turn of the task that waits for it.
#[derive(Debug)]
pub(crate) struct Watched<F: AsFd> {
    descriptor: Async<'static, F>,
    /// What it is registered for.
    registered: Option<For>,
    event: Arc<Event>,
    waker: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Reading,
    Writing,
}

/// That the descriptor has become ready.
#[derive(Debug, Default)]
struct Event {
    /// Set by the loop before it wakes the task, which takes it: both are of the loop's thread, so Relaxed.
    is_new: AtomicBool,
    task: AtomicWaker,
}

impl<F: AsFd> Watched<F> {
    pub(super) fn new(descriptor: Async<'static, F>) -> Self {
        let event = Arc::<Event>::default();
        Self { descriptor, registered: None, waker: Waker::from(Arc::clone(&event)), event }
    }

    /// Waits until it is readable, at its end, or in error.
    pub(crate) async fn readable(&mut self) {
        self.ready(For::Reading).await;
    }

    /// Waits until it is writable, at its end, or in error.
    pub(crate) async fn writable(&mut self) {
        self.ready(For::Writing).await;
    }

    async fn ready(&mut self, wanted: For) {
        poll_fn(|context| {
            self.event.task.register(context.waker());
            if !self.event.is_new.swap(false, Ordering::Relaxed) && self.registered == Some(wanted) {
                return Poll::Pending;
            }
            let mut own = Context::from_waker(&self.waker);
            let polled = match wanted {
                For::Reading => pin!(self.descriptor.readable()).poll(&mut own),
                For::Writing => pin!(self.descriptor.writable()).poll(&mut own),
            };
            self.registered = polled.is_pending().then_some(wanted);
            polled
        })
        .await;
    }
}

impl Wake for Event {
    fn wake(self: Arc<Self>) {
        self.is_new.store(true, Ordering::Relaxed);
        self.task.wake();
    }
}
