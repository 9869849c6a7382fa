//! The event loop's thread.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::task::{Context, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_executor::LocalExecutor;
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_lite::{StreamExt, future};

use super::handle::into_io;
use super::helpers::Helpers;
use super::loop_waker::LoopWaker;
use super::{EventLoopHandle, Task, Wakeup, thread_time};
use crate::fork::PerProcess;

/// The event loop of the process. Ends, with every task that is still on it, when the last reference is dropped.
#[derive(Debug)]
pub(crate) struct EventLoop {
    commands: UnboundedSender<Command>,
    stop: Arc<Wakeup>,
    helpers: Helpers,
    openings: Helpers,
    thread: Option<JoinHandle<()>>,
}

/// A call to run on the loop's thread.
type Command = Box<dyn FnOnce(&EventLoopHandle) + Send>;

static CURRENT: PerProcess<Mutex<Weak<EventLoop>>> = PerProcess::new(Mutex::default);

/// Pause after an error of the wait, so that repeated errors fill neither the log nor a CPU.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

impl EventLoop {
    /// The loop of this process, started if there is none.
    pub(crate) fn acquire() -> io::Result<Arc<Self>> {
        let mut current = CURRENT.get().lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = current.upgrade() {
            return Ok(running);
        }
        let started = Arc::new(Self::start()?);
        *current = Arc::downgrade(&started);
        Ok(started)
    }

    fn start() -> io::Result<Self> {
        let (commands, received) = unbounded();
        let (helpers, stop) = (Helpers::start()?, Arc::new(Wakeup::default()));
        let openings = Helpers::on_demand();
        let (report, started) = mpsc::channel();
        let of_thread = (helpers.clone(), openings.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("p2p-events".to_owned()).spawn(move || {
            let (helpers, openings, stop) = of_thread;
            match calloop::EventLoop::try_new() {
                Ok(waiting) => {
                    let _ = report.send(Ok(()));
                    run(waiting, received, (helpers, openings), &stop);
                }
                Err(error) => drop(report.send(Err(into_io(error)))),
            }
        })?;
        started.recv().map_err(|_| io::Error::other("the event loop's thread ended at once"))??;
        Ok(Self { commands, stop, helpers, openings, thread: Some(thread) })
    }

    /// Runs the future that `make` returns on the loop, until it ends or the returned task is dropped. `make` runs on
    /// the loop's thread.
    pub(crate) fn spawn<F>(&self, make: impl FnOnce(&EventLoopHandle) -> F + Send + 'static) -> Task
    where
        F: Future<Output = ()> + 'static,
    {
        let thread = self.thread.as_ref().map(|thread| thread.thread().id());
        let (task, running) = Task::new(thread.unwrap_or_else(|| std::thread::current().id()));
        let start: Command = Box::new(move |handle| handle.schedule(running.run(make(handle))));
        // Fails only when the loop has ended, which is when it has no references left.
        let _ = self.commands.unbounded_send(start);
        task
    }

    /// Runs `call`, which may block, on a helper thread.
    pub(crate) fn detach(&self, call: impl FnOnce() + Send + 'static) {
        self.helpers.run(call);
    }

    /// Whether the caller runs on the loop's thread, where it must not wait for a task.
    pub(crate) fn is_current_thread(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id())
    }
}

#[cfg(test)]
impl EventLoop {
    /// A loop of its own, beside the process's.
    pub(super) fn start_alone() -> Self {
        Self::start().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.stop.wake();
        let (helpers, openings) = (self.helpers.stop(), self.openings.stop());
        // A task may drop the last reference: the loop's thread then ends by itself, and so do the helpers, one of
        // which may wait for it.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = thread {
            if thread.join().is_err() {
                tracing::error!("the event loop's thread has panicked");
            }
            helpers.join();
            openings.join();
        }
    }
}

/// Whether the calling thread is that of an event loop.
pub(crate) fn is_loop_thread() -> bool {
    ON_LOOP.get()
}

thread_local!(static ON_LOOP: Cell<bool> = const { Cell::new(false) });

fn run(
    mut waiting: calloop::EventLoop<'static, ()>,
    mut commands: UnboundedReceiver<Command>,
    threads: (Helpers, Helpers),
    stop: &Wakeup,
) {
    ON_LOOP.set(true);
    let tasks = Rc::new(LocalExecutor::new());
    let handle = EventLoopHandle::new(waiting.handle(), Rc::downgrade(&tasks), threads);
    let begin = async {
        while let Some(command) = commands.next().await {
            command(&handle);
        }
    };
    let mut all = pin!(tasks.run(future::or(stop.wait(), begin)));
    let waker = Arc::new(LoopWaker::new(waiting.get_signal()));
    let task_waker = Waker::from(Arc::clone(&waker));
    let mut context = Context::from_waker(&task_waker);
    while !(waker.take() && all.as_mut().poll(&mut context).is_ready()) {
        handle.turn_ended(thread_time::time_since_last());
        // A task that has woken itself, or another one, lets descriptors and timers be looked at.
        let limit = match waker.is_ready() {
            true => Some(Duration::ZERO),
            false => handle.timers().next().map(|at| at.saturating_duration_since(Instant::now())),
        };
        // A system error, which may be temporary; the tasks are unaffected.
        if let Err(error) = waiting.dispatch(limit, &mut ()) {
            tracing::error!("the event loop cannot wait: {error}");
            std::thread::sleep(REFUSED_PAUSE);
        }
        handle.timers().fire(Instant::now());
    }
    // Remaining tasks are dropped with `tasks`, before the descriptors and timers that they use.
}
