//! The history of an engine's announced regions, and the subscriptions by which connections send changes to peers.
//!
//! A call that changes the regions never waits for a peer: it records the change and wakes the tasks of the
//! connections, each once until that task has read the history.

use std::ops::Range;
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
    /// Adds a region with these segments, see [`History::add`]. Returns their ids; none if there are too many to announce them.
    pub(crate) fn add(&self, segments: &[RemoteRegion]) -> Range<u64> {
        let mut state = lock(&self.state);
        let ids = state.history.add(segments);
        if !ids.is_empty() {
            state.wake_subscribers();
        }
        ids
    }

    /// Adds a region of a further NIC, see [`History::add_of_rail`].
    pub(super) fn add_of_rail(&self, segments: &[(RemoteRegion, u32)]) -> Range<u64> {
        let mut state = lock(&self.state);
        let ids = state.history.add_of_rail(segments);
        if !ids.is_empty() {
            state.wake_subscribers();
        }
        ids
    }

    /// Removes the region that consists of the segments with these ids.
    pub(crate) fn remove(&self, ids: Range<u64>) {
        let mut state = lock(&self.state);
        ids.for_each(|id| state.history.remove(id));
        state.wake_subscribers();
    }

    /// Records that memory which is not announced has this key.
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

    /// Wakes a task by `wakeup` on changes, until the returned subscription is dropped. `cursor` is the state that
    /// its peer has.
    pub(crate) fn subscribe(self: &Arc<Self>, cursor: Cursor, wakeup: Arc<Wakeup>) -> Subscription {
        // The first read happens in any case.
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

/// The changes for one peer.
#[derive(Debug)]
pub(crate) struct Subscription {
    announced: Arc<Announced>,
    listener: Arc<Listener>,
    cursor: Cursor,
    /// The last read did not return all changes.
    has_more: bool,
}

impl Subscription {
    /// The next changes for the peer; `None` if it has all.
    pub(crate) fn next(&mut self) -> Option<RegionChanges> {
        if !self.listener.dirty.clear() && !self.has_more {
            return None;
        }
        let state = lock(&self.announced.state);
        let next = state.history.next(&mut self.cursor);
        self.has_more = self.cursor.version() != state.history.version();
        next
    }

    /// Whether the last read did not return all changes.
    pub(crate) fn has_more(&self) -> bool {
        self.has_more
    }

    /// The version of the history now.
    pub(crate) fn version(&self) -> u64 {
        lock(&self.announced.state).history.version()
    }

    /// The version up to which all changes were returned for the peer.
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

/// Whether the history has changed since the last read.
#[derive(Debug)]
struct Dirty {
    /// Set by the thread that has changed the history, under its lock; cleared by the task before it reads, without
    /// the lock. AcqRel on both sides: a thread that finds it set need not wake, because the thread that set it does,
    /// and the task has not read since.
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

    /// Clears it before a read; true if it was set.
    fn clear(&self) -> bool {
        self.set.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use super::*;

    /// A change is either seen by the task's read or comes with a pending wake-up.
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
            // The task reads at any time.
            shared.2.swap(false, Ordering::Acquire);
            let looked = shared.1.clear();
            let told = if looked { *lock(&shared.0) } else { 0 };
            for other in others {
                other.join().unwrap();
            }
            let all = *lock(&shared.0);
            assert!(
                told == all || shared.2.load(Ordering::Acquire),
                "{told} of {all}, and no wake-up is pending"
            );
        });
    }

    /// Until the task has read, it is woken once, however many changes there are.
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
