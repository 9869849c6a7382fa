//! A state that is changed under a lock, and a view of it that is read without one.

use std::sync::Arc;

use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, Swap, SwapGuard, lock};

/// A state `S` and the view `V` that readers take of it. The view is made anew when it is read for the first time after
/// a change, so a burst of changes costs one making.
///
/// A thread that has changed the state and then reads the view finds the change in it, whatever other readers do meanwhile.
#[derive(Debug)]
pub(super) struct Published<S, V> {
    state: Mutex<S>,
    view: Swap<V>,
    /// The view is older than the state. Set under the lock by the thread that changes the state, cleared under the lock by
    /// the thread that makes the view; a reader that sees it (Acquire, pairing with the Release stores) makes the view first.
    stale: AtomicBool,
    /// Names the state as it is now. Written under the lock after `stale` (Release), read by those that remember what they found in
    /// a view (Acquire), before they take the view: one that reads the number of a change sees that the view is stale, or the new view.
    number: AtomicU64,
}

impl<S: Default, V: Default> Published<S, V> {
    /// The default state, with this number.
    pub(super) fn new(number: u64) -> Self {
        Self {
            state: Mutex::new(S::default()),
            view: Swap::from_pointee(V::default()),
            stale: AtomicBool::new(false),
            number: AtomicU64::new(number),
        }
    }
}

impl<S, V> Published<S, V> {
    /// The state. A thread that changes it calls [`Published::changed`] before letting go.
    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }

    /// Takes note of a change of the state, which is still locked and has this number from now on.
    pub(super) fn changed(&self, _locked: &MutexGuard<'_, S>, number: u64) {
        // In this order: a reader that finds the new number must not take the old view for what belongs to it.
        self.stale.store(true, Ordering::Release);
        self.number.store(number, Ordering::Release);
    }

    /// The number of the state. What was found in a view that was taken after this holds for as long as the number stays.
    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The view, of the state as it is now or a little later. Without a lock unless the state has changed since the
    /// last look; then `make` makes it.
    #[inline]
    pub(super) fn view(&self, make: impl FnOnce(&S) -> V) -> SwapGuard<V> {
        if self.stale.load(Ordering::Acquire) {
            self.renew(make);
        }
        self.view.load()
    }

    #[cold]
    fn renew(&self, make: impl FnOnce(&S) -> V) {
        let state = self.lock();
        self.view.store(Arc::new(make(&state)));
        // Only now, or another reader would take the old view for the new one. Changes need the lock that is held.
        self.stale.store(false, Ordering::Release);
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;

    /// Both change the state and look; the other may be anywhere in its own look meanwhile.
    #[test]
    fn a_change_is_seen_by_the_thread_that_made_it() {
        loom::model(|| {
            let published = Arc::new(Published::<u64, u64>::new(0));
            let change_and_look = |published: &Published<u64, u64>, bit: u64| {
                let mut state = published.lock();
                *state |= bit;
                published.changed(&state, bit);
                drop(state);
                let seen = **published.view(|state| *state);
                assert_eq!(seen & bit, bit, "the view lacks what was put into the state before");
            };
            let other = {
                let published = Arc::clone(&published);
                loom::thread::spawn(move || change_and_look(&published, 1))
            };
            change_and_look(&published, 2);
            other.join().unwrap();
            assert_eq!(**published.view(|state| *state), 3);
        });
    }

    /// A reader remembers what it found under the number that it read before; the state changes meanwhile.
    #[test]
    fn what_was_remembered_under_the_present_number_is_the_present_state() {
        loom::model(|| {
            let published = Arc::new(Published::<u64, u64>::new(1));
            let reader = {
                let published = Arc::clone(&published);
                loom::thread::spawn(move || {
                    let number = published.number();
                    (number, **published.view(|state| *state))
                })
            };
            let mut state = published.lock();
            *state = 7;
            published.changed(&state, 2);
            drop(state);
            let (number, found) = reader.join().unwrap();
            assert!(
                number != published.number() || found == 7,
                "the old state under the number of the new one"
            );
        });
    }
}
