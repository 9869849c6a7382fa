//! Helper threads for calls that block.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Limit of helper threads: the calls are short, and a device executes its commands one after the other.
const MAX_THREADS: usize = 4;

/// How long an idle thread stays, except for the last.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// Up to [`MAX_THREADS`] threads, all but the first started when there is work. Jobs begin in the order in which they came.
#[derive(Clone)]
pub(super) struct Helpers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job, each of which will take one.
    idle: usize,
    /// Threads that have not ended.
    running: usize,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

impl Helpers {
    /// Starts with one thread, which stays, so that a job never runs on the loop, where it could wait for a job that
    /// waits for the loop.
    pub(super) fn start() -> io::Result<Self> {
        let helpers = Self(Arc::default());
        helpers.0.start(&mut helpers.0.lock())?;
        Ok(helpers)
    }

    /// Without a thread until there is work.
    pub(super) fn on_demand() -> Self {
        Self(Arc::default())
    }

    /// Runs `job` on a helper thread, soon. After [`Helpers::stop`] it is dropped.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        if state.stopped {
            return;
        }
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() > state.idle
            && state.running < MAX_THREADS
            && let Err(error) = self.0.start(&mut state)
        {
            tracing::debug!("no further helper thread: {error}; those that run do its work");
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Drops jobs that have not begun. The threads end after their current jobs.
    pub(super) fn stop(&self) -> Ending {
        let mut state = self.0.lock();
        state.stopped = true;
        let jobs = std::mem::take(&mut state.jobs);
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.0.changed.notify_all();
        drop(jobs);
        Ending(threads)
    }
}

/// Threads that are ending.
pub(super) struct Ending(Vec<JoinHandle<()>>);

impl Ending {
    /// Waits for them, except for the one that calls this.
    pub(super) fn join(self) {
        let current = std::thread::current().id();
        for thread in self.0.into_iter().filter(|thread| thread.thread().id() != current) {
            if thread.join().is_err() {
                tracing::error!("a helper thread has panicked");
            }
        }
    }
}

impl Shared {
    fn start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(self);
        let thread =
            std::thread::Builder::new().name("p2p-helper".to_owned()).spawn(move || shared.work())?;
        state.running += 1;
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        Ok(())
    }

    fn work(&self) {
        let counted = Counted(self);
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            if state.stopped {
                return drop((state, counted));
            }
            state.idle += 1;
            let (after, waited) =
                self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() && state.running > 1 {
                // Under the lock: of two threads that end together one must stay.
                state.running -= 1;
                std::mem::forget(counted);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that has not ended, also when a job panics.
struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

impl std::fmt::Debug for Helpers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Helpers")
            .field("running", &state.running)
            .field("jobs", &state.jobs.len())
            .finish_non_exhaustive()
    }
}
