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
}

impl<S: Default, V: Default> Default for Published<S, V> {
    fn default() -> Self {
        Self {
            state: Mutex::new(S::default()),
            view: Swap::from_pointee(V::default()),
            stale: AtomicBool::new(false),
        }
    }
}

impl<S, V> Published<S, V> {
    /// The state. A thread that changes it calls [`Published::changed`] before letting go.
    pub(super) fn lock(&self) -> MutexGuard<'_, S> {
        lock(&self.state)
    }

    /// Takes note of a change of the state, which is still locked.
    pub(super) fn changed(&self, _locked: &MutexGuard<'_, S>) {
        self.stale.store(true, Ordering::Release);
    }

    /// [`Published::changed`], and names the state, as it is now, by `number` in `name`: a reader that finds the number there
    /// (Acquire) and then takes the view finds the change in it.
    pub(super) fn changed_to(&self, locked: &MutexGuard<'_, S>, name: &AtomicU64, number: u64) {
        self.changed(locked);
        // Only now: a reader between the two would take the old view for the state of this number, and remember what it
        // found there for as long as the number holds.
        name.store(number, Ordering::Release);
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
            let published = Arc::new(Published::<u64, u64>::default());
            let change_and_look = |published: &Published<u64, u64>, bit: u64| {
                let mut state = published.lock();
                *state |= bit;
                published.changed(&state);
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

    /// As a look-up that remembers its answer reads: the number first, then the view.
    #[test]
    fn a_view_that_is_taken_after_the_number_of_a_change_has_the_change() {
        loom::model(|| {
            let shared = Arc::new((Published::<u64, u64>::default(), AtomicU64::new(0)));
            let look_up = |(published, number): &(Published<u64, u64>, AtomicU64)| {
                let number = number.load(Ordering::Acquire);
                let seen = **published.view(|state| *state);
                assert!(seen >= number, "the view {seen} would be remembered as the one of number {number}");
            };
            let other = {
                let shared = Arc::clone(&shared);
                loom::thread::spawn(move || {
                    let (published, number) = &*shared;
                    let mut state = published.lock();
                    *state = 1;
                    published.changed_to(&state, number, 1);
                })
            };
            look_up(&shared);
            look_up(&shared);
            other.join().unwrap();
            look_up(&shared);
        });
    }
}
