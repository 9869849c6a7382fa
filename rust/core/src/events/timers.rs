//! The times that tasks of the event loop wait for.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Instant;

/// The timers of a loop. In the order of their times, so that those of thousands of tasks cost no more than those of one: a timer of
/// calloop passes all sources of the loop when it is inserted.
#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<Key, Waker>>,
    /// Tells timers of one time apart.
    last: Cell<u64>,
}

type Key = (Instant, u64);

impl Timers {
    /// Waits until `deadline`.
    pub(super) async fn wait(&self, deadline: Instant) {
        self.last.set(self.last.get() + 1);
        let timer = Timer { timers: self, key: (deadline, self.last.get()) };
        let mut is_set = false;
        poll_fn(|context| {
            let mut waiting = self.waiting.borrow_mut();
            match waiting.get_mut(&timer.key) {
                Some(waker) => waker.clone_from(context.waker()),
                None if is_set => return Poll::Ready(()),
                None => drop(waiting.insert(timer.key, context.waker().clone())),
            }
            is_set = true;
            Poll::Pending
        })
        .await;
    }

    /// The earliest time.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes the tasks that wait for times up to `now`.
    pub(super) fn fire(&self, now: Instant) {
        while let Some(waker) = self.take_due(now) {
            waker.wake();
        }
    }

    fn take_due(&self, now: Instant) -> Option<Waker> {
        let mut waiting = self.waiting.borrow_mut();
        Some(waiting.first_entry().filter(|timer| timer.key().0 <= now)?.remove())
    }
}

/// A timer, taken off when the wait ends or is given up.
struct Timer<'a> {
    timers: &'a Timers,
    key: Key,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        self.timers.waiting.borrow_mut().remove(&self.key);
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn waits_end_in_the_order_of_their_times() {
        let (timers, start) = (Timers::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let mut waits: Vec<_> = [3, 1, 2, 1].map(|ms| (ms, Box::pin(timers.wait(at(ms))))).into();
        let mut ended = || {
            let mut ended = Vec::new();
            waits.retain_mut(|(ms, wait)| {
                let is_over = block_on(poll_once(wait)).is_some();
                ended.extend(is_over.then_some(*ms));
                !is_over
            });
            ended
        };
        assert_eq!((ended(), timers.next()), (vec![], Some(at(1))));
        timers.fire(at(2) - Duration::from_nanos(1));
        assert_eq!((ended(), timers.next()), (vec![1, 1], Some(at(2))));
        timers.fire(at(4));
        assert_eq!((ended(), timers.next()), (vec![3, 2], None));
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing() {
        let timers = Timers::default();
        {
            let mut wait = pin!(timers.wait(Instant::now()));
            assert!(block_on(poll_once(&mut wait)).is_none());
            assert!(timers.next().is_some());
        }
        assert_eq!(timers.next(), None);
    }
}
