//! Calls that a worker's thread makes when it does not hold the worker's lock.

use crate::sync::{AtomicBool, Mutex, Ordering, lock};

type Job = Box<dyn FnOnce() + Send>;

/// Calls that wait for the thread.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: Mutex<Vec<Job>>,
    /// Something is in `waiting`. Set (a swap, AcqRel) after the push, by whichever thread pushes; swapped (AcqRel) by the
    /// worker's thread before it takes the list: a push is then either taken or finds the flag clear.
    any: AtomicBool,
}

impl Jobs {
    /// Adds a call. True if the thread must be woken: if false, it has been woken already.
    pub(super) fn push(&self, job: impl FnOnce() + Send + 'static) -> bool {
        lock(&self.waiting).push(Box::new(job));
        !self.any.swap(true, Ordering::AcqRel)
    }

    /// Makes the calls that wait, and those that they add: a push by the thread itself wakes nothing.
    pub(super) fn run(&self) {
        while self.any.load(Ordering::Relaxed) && self.any.swap(false, Ordering::AcqRel) {
            let waiting = std::mem::take(&mut *lock(&self.waiting));
            waiting.into_iter().for_each(|job| job());
        }
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("any", &self.any).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::sync::AtomicU32;

    #[test]
    fn a_call_that_a_call_adds_is_made_in_the_same_run() {
        let (jobs, made) = (Arc::new(Jobs::default()), Arc::new(AtomicU32::new(0)));
        let (inner, count) = (jobs.clone(), made.clone());
        jobs.push(move || {
            inner.push(move || {
                count.fetch_add(1, Ordering::Relaxed);
            });
        });
        jobs.run();
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;
    use crate::sync::{Arc, AtomicU32};

    /// Two threads push while the worker's thread runs what is there: each call is made, or the thread is woken after.
    #[test]
    fn no_call_is_left_without_a_wake_up() {
        loom::model(|| {
            let jobs = Arc::new(Jobs::default());
            let (made, woken) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
            let pushers: Vec<_> = (0..2)
                .map(|_| {
                    let (jobs, made, woken) = (jobs.clone(), made.clone(), woken.clone());
                    loom::thread::spawn(move || {
                        let call = move || {
                            made.fetch_add(1, Ordering::Relaxed);
                        };
                        if jobs.push(call) {
                            woken.store(true, Ordering::Release);
                        }
                    })
                })
                .collect();
            jobs.run();
            for pusher in pushers {
                pusher.join().unwrap();
            }
            // What the thread does once it is woken.
            if made.load(Ordering::Relaxed) < 2 {
                assert!(woken.load(Ordering::Acquire));
                jobs.run();
            }
            assert_eq!(made.load(Ordering::Relaxed), 2);
        });
    }
}
