//! The handle of a task to the loop that it runs on.

use std::cell::Cell;
use std::fmt;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use async_executor::LocalExecutor;
use calloop::LoopHandle;
use futures_lite::future;

use super::helpers::Helpers;
use super::look_rounds::{LookRound, LookRounds};
use super::timers::Timers;
use super::{Task, Watched};

/// The loop, seen from its own thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventLoopHandle {
    inner: LoopHandle<'static, ()>,
    timers: Rc<Timers>,
    rounds: Rc<Cell<LookRounds>>,
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
        Self { inner, timers: Rc::default(), rounds: Rc::default(), tasks, helpers, openings }
    }

    /// What the tasks of the loop wait for.
    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The round of looks that is under way.
    pub(crate) fn look_round(&self) -> LookRound {
        self.rounds.get().current()
    }

    /// The calling task looks now, by the pool's clock.
    pub(crate) fn begin_look(&self, now: u64) {
        self.change_rounds(|rounds| {
            rounds.look(now);
        });
    }

    /// A turn of the loop has ended, and took so much processor time with the wait before it.
    pub(super) fn turn_ended(&self, nanos: u64) {
        self.change_rounds(|rounds| rounds.turn_ended(nanos));
    }

    fn change_rounds(&self, change: impl FnOnce(&mut LookRounds)) {
        let mut rounds = self.rounds.get();
        change(&mut rounds);
        self.rounds.set(rounds);
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
        Ok(Watched::new(self.inner.adapt_io(fd).map_err(into_io)?))
    }

    /// Waits until `deadline`; for ever without one.
    pub(crate) async fn sleep_until(&self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return pending().await };
        self.timers.wait(deadline).await;
    }

    /// Waits for this long.
    pub(crate) async fn sleep(&self, time: Duration) {
        self.sleep_until(Some(Instant::now() + time)).await;
    }

    /// Yields to everything else on the loop: every runnable task, and every descriptor that has become ready
    /// meanwhile. For a task that has more to do and did not wait. Yielding to the executor is not enough: it polls
    /// descriptors again only when no task is runnable, or after 200 task polls.
    pub(crate) async fn give_way(&self) {
        // Timers fire behind the poll of descriptors.
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

/// The first of two futures to end, as its output says.
pub(crate) async fn first<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    future::or(pin!(one), pin!(other)).await
}

pub(super) fn into_io(error: calloop::Error) -> io::Error {
    match error {
        calloop::Error::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
