//! The threads for calls that block.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Helper threads at most: the calls are short, and a device carries out its commands one after the other anyway.
const MAX_THREADS: usize = 4;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// Up to [`MAX_THREADS`] threads, started when there is work. Jobs begin in the order in which they came.
#[derive(Clone, Default)]
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
    /// Runs `job` on a helper thread, soon. After [`Helpers::stop`] it is dropped.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        if state.stopped {
            return;
        }
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() > state.idle && state.running < MAX_THREADS {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("p2p-helper".to_owned());
            match thread.spawn(move || shared.work()) {
                Ok(thread) => {
                    state.running += 1;
                    state.threads.retain(|thread| !thread.is_finished());
                    state.threads.push(thread);
                }
                // The others, if there are any, take the job; else this thread does, late rather than never.
                Err(error) if state.running == 0 => {
                    tracing::warn!("cannot start a helper thread: {error}; its work is done by the caller");
                    let jobs = std::mem::take(&mut state.jobs);
                    drop(state);
                    jobs.into_iter().for_each(|job| job());
                    return;
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Drops what has not begun. The threads end after what they are at.
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

/// Threads that have been told to end.
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
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                continue;
            }
            if state.stopped {
                break;
            }
            state.idle += 1;
            let (after, waited) =
                self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.running -= 1;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
