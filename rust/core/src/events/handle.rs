//! The handle of a task to the loop that it runs on.

use std::cell::RefCell;
use std::fmt;
use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use async_executor::LocalExecutor;
use calloop::io::Async;
use calloop::timer::{TimeoutAction, Timer};
use calloop::{LoopHandle, RegistrationToken};
use futures_lite::future;

use super::Task;
use super::helpers::Helpers;

/// The loop, seen from its own thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventLoopHandle {
    inner: LoopHandle<'static, ()>,
    /// Weak: tasks, which it owns, hold the handle.
    tasks: Weak<LocalExecutor<'static>>,
    helpers: Helpers,
    /// For calls that take seconds: they keep no short one waiting.
    openings: Helpers,
}

impl EventLoopHandle {
    pub(super) fn new(
        inner: LoopHandle<'static, ()>,
        tasks: Weak<LocalExecutor<'static>>,
        (helpers, openings): (Helpers, Helpers),
    ) -> Self {
        Self { inner, tasks, helpers, openings }
    }

    /// Runs `future` beside the calling task, until it ends or the returned task is dropped.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Task {
        let (task, running) = Task::new(std::thread::current().id());
        self.schedule(running.run(future));
        task
    }

    pub(super) fn schedule(&self, future: impl Future<Output = ()> + 'static) {
        // If it is gone the loop has ended, and `future` is dropped.
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.spawn(future).detach();
        }
    }

    /// Watches a descriptor. Level-triggered: what is readable stays so until it has been read.
    pub(crate) fn watch<F: AsFd>(&self, fd: F) -> io::Result<Watched<F>> {
        Ok(Watched(self.inner.adapt_io(fd).map_err(into_io)?))
    }

    /// Waits until `deadline`; for ever without one.
    pub(crate) async fn sleep_until(&self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return pending().await };
        let expired = Rc::new(RefCell::new(Expired { is_over: false, waker: None }));
        let seen = Rc::clone(&expired);
        let inserted =
            self.inner.insert_source(Timer::from_deadline(deadline), move |_, &mut (), &mut ()| {
                let mut expired = seen.borrow_mut();
                expired.is_over = true;
                if let Some(waker) = expired.waker.take() {
                    waker.wake();
                }
                TimeoutAction::Drop
            });
        // Inserting a timer makes no system call and cannot fail.
        let Ok(token) = inserted else { return };
        let _timer = RemovedOnDrop { handle: self, token };
        poll_fn(|context| {
            let mut expired = expired.borrow_mut();
            if expired.is_over {
                return Poll::Ready(());
            }
            expired.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits for this long.
    pub(crate) async fn sleep(&self, time: Duration) {
        self.sleep_until(Some(Instant::now() + time)).await;
    }

    /// Yields to everything else on the loop: every runnable task, and every descriptor that has become ready
    /// meanwhile. For a task that has more to do and did not wait. Yielding to the executor is not enough: it polls
    /// descriptors again only when no task is runnable, or after 200 task polls.
    pub(crate) async fn give_way(&self) {
        // Timers are dispatched by the same poll as descriptors.
        self.sleep_until(Some(Instant::now())).await;
    }

    /// Runs `call`, which may block, on a helper thread. Stopping the task meanwhile does not end the call; the
    /// helper then drops its result.
    pub(crate) async fn blocking<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        answer_of(&self.helpers, call).await
    }

    /// As [`EventLoopHandle::blocking`], for a call that may take seconds, such as the opening of a device: on threads of its own, so that
    /// the commands of other connections do not wait for it.
    pub(crate) async fn blocking_long<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        answer_of(&self.openings, call).await
    }

    /// As [`EventLoopHandle::detach`], for a call that may take seconds.
    pub(crate) fn detach_long(&self, call: impl FnOnce() + Send + 'static) {
        self.openings.run(call);
    }

    /// Runs `call`, which may block, on a helper thread, also when this task is stopped.
    pub(crate) fn detach(&self, call: impl FnOnce() + Send + 'static) {
        self.helpers.run(call);
    }
}

async fn answer_of<T: Send + 'static>(helpers: &Helpers, call: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = futures_channel::oneshot::channel();
    helpers.run(move || drop(sender.send(call())));
    match receiver.await {
        Ok(result) => result,
        // The helpers and the loop have been stopped: this task will be dropped while it waits.
        Err(_) => pending().await,
    }
}

impl fmt::Debug for EventLoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoopHandle").finish_non_exhaustive()
    }
}

/// A descriptor that the loop watches.
#[derive(Debug)]
pub(crate) struct Watched<F: AsFd>(Async<'static, F>);

impl<F: AsFd> Watched<F> {
    /// Waits until it is readable, at its end, or in error.
    pub(crate) async fn readable(&mut self) {
        self.0.readable().await;
    }

    /// Waits until it is writable, at its end, or in error.
    pub(crate) async fn writable(&mut self) {
        self.0.writable().await;
    }
}

/// The first of two futures to end, as its output says.
pub(crate) async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    future::or(pin!(one), pin!(other)).await
}

struct Expired {
    is_over: bool,
    waker: Option<Waker>,
}

struct RemovedOnDrop<'a> {
    handle: &'a EventLoopHandle,
    token: RegistrationToken,
}

impl Drop for RemovedOnDrop<'_> {
    fn drop(&mut self) {
        self.handle.inner.remove(self.token);
    }
}

pub(super) fn into_io(error: calloop::Error) -> io::Error {
    match error {
        calloop::Error::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
