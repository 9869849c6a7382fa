//! The history of an engine's announced regions, and the subscriptions through which peers are told of it.
//!
//! A call that changes the regions never waits for a peer: it notes the change and wakes the tasks of the connections, each
//! once until that task has looked.

use std::sync::Arc;

use super::history::{Cursor, History};
use super::remote_table::RemoteRegion;
use crate::control::wire::{RegionChanges, RegionEntry};
use crate::events::Wakeup;
use crate::sync::{AtomicBool, Mutex, Ordering, lock};

/// The announced regions of one engine.
#[derive(Debug, Default)]
pub struct Announced {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    listeners: Vec<Arc<Listener>>,
}

impl Announced {
    /// A region is new. Answers its id; `None` if there are too many to announce it.
    pub(super) fn add(&self, region: RemoteRegion) -> Option<u64> {
        let mut state = lock(&self.state);
        let id = state.history.add(region);
        if id.is_some() {
            state.wake_subscribers();
        }
        id
    }

    /// The region with this id is gone.
    pub(super) fn remove(&self, id: u64) {
        let mut state = lock(&self.state);
        state.history.remove(id);
        state.wake_subscribers();
    }

    /// Memory that is not announced has been given this key.
    pub(super) fn key_in_use(&self, rkey: u32) {
        let mut state = lock(&self.state);
        if state.history.key_in_use(rkey) {
            state.wake_subscribers();
        }
    }

    /// See [`History::table`].
    pub fn table(&self) -> (Vec<RegionEntry>, Cursor) {
        lock(&self.state).history.table()
    }

    /// Wakes the task behind `wakeup` when something has changed, for as long as the answer lives. `cursor` is what its
    /// peer has been told.
    pub(crate) fn subscribe(self: &Arc<Self>, cursor: Cursor, wakeup: Arc<Wakeup>) -> Subscription {
        // It looks once in any case.
        let listener = Arc::new(Listener { dirty: Dirty::new(true), wakeup });
        lock(&self.state).listeners.push(Arc::clone(&listener));
        Subscription { announced: Arc::clone(self), listener, cursor, has_more: true }
    }
}

impl State {
    fn wake_subscribers(&self) {
        for listener in &self.listeners {
            if listener.dirty.mark() {
                listener.wakeup.wake();
            }
        }
    }
}

/// What one peer is told.
#[derive(Debug)]
pub(crate) struct Subscription {
    announced: Arc<Announced>,
    listener: Arc<Listener>,
    cursor: Cursor,
    /// The last look did not take all.
    has_more: bool,
}

impl Subscription {
    /// The next changes for the peer; `None` if it knows everything.
    pub(crate) fn next(&mut self) -> Option<RegionChanges> {
        if !self.listener.dirty.clear() && !self.has_more {
            return None;
        }
        let state = lock(&self.announced.state);
        let next = state.history.next(&mut self.cursor);
        self.has_more = self.cursor.version() != state.history.version();
        next
    }

    /// Whether the last look did not take all.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// The version of the history now.
    pub(crate) fn version(&self) -> u64 {
        lock(&self.announced.state).history.version()
    }

    /// The version up to which the peer has been told everything.
    pub(crate) fn sent_version(&self) -> u64 {
        self.cursor.version()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.announced.state).listeners.retain(|listener| !Arc::ptr_eq(listener, &self.listener));
    }
}

#[derive(Debug)]
struct Listener {
    dirty: Dirty,
    wakeup: Arc<Wakeup>,
}

/// Whether something has changed since the last look.
#[derive(Debug)]
struct Dirty {
    /// Set by the thread that has changed the history, under its lock; taken by the task before it looks, under that lock. AcqRel
    /// on both sides: who finds it set leaves the wake-up to the one that set it, whose task has not looked since.
    set: AtomicBool,
}

impl Dirty {
    fn new(set: bool) -> Self {
        Self { set: AtomicBool::new(set) }
    }

    /// After a change: true if the caller must wake the task.
    fn mark(&self) -> bool {
        !self.set.swap(true, Ordering::AcqRel)
    }

    /// Before a look.
    fn clear(&self) -> bool {
        self.set.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;

    /// A change is either seen by the task's look or comes with a wake-up that is still to be heard.
    #[test]
    fn no_change_is_left_unannounced() {
        loom::model(|| {
            let shared = Arc::new((Mutex::new(0_u32), Dirty::new(false), AtomicBool::new(false)));
            let change = |shared: &(Mutex<u32>, Dirty, AtomicBool)| {
                let mut history = lock(&shared.0);
                *history += 1;
                if shared.1.mark() {
                    shared.2.store(true, Ordering::Release);
                }
            };
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    loom::thread::spawn(move || change(&shared))
                })
                .collect();
            // The task, as it does at any time.
            shared.2.swap(false, Ordering::Acquire);
            let looked = shared.1.clear();
            let told = if looked { *lock(&shared.0) } else { 0 };
            for other in others {
                other.join().unwrap();
            }
            let all = *lock(&shared.0);
            assert!(
                told == all || shared.2.load(Ordering::Acquire),
                "{told} of {all}, and nobody wakes the task"
            );
        });
    }

    /// While the task has not looked, it is woken once, however much changes.
    #[test]
    fn many_changes_wake_once() {
        loom::model(|| {
            let dirty = Arc::new(Dirty::new(false));
            let other = {
                let dirty = Arc::clone(&dirty);
                loom::thread::spawn(move || dirty.mark())
            };
            let mine = dirty.mark();
            assert!(mine != other.join().unwrap());
            assert!(dirty.clear() && !dirty.clear());
        });
    }
}
