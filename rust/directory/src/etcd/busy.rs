//! What one thread at a time works on, waited for with a deadline.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::deadline::left;

/// The keys that a thread works on.
#[derive(Debug)]
pub(super) struct Busy<K> {
    taken: Mutex<HashSet<K>>,
    freed: Condvar,
}

/// A key that the thread works on, until this is dropped.
#[must_use = "the key is free again when this is dropped"]
pub(super) struct Taken<'a, K: Eq + Hash> {
    of: &'a Busy<K>,
    key: K,
}

impl<K> Default for Busy<K> {
    fn default() -> Self {
        Self { taken: Mutex::default(), freed: Condvar::new() }
    }
}

impl<K: Clone + Eq + Hash> Busy<K> {
    /// Takes `key`; `None` when another thread has it until `deadline`. A free one is had at once, even after `deadline`.
    pub(super) fn take(&self, key: &K, deadline: Instant) -> Option<Taken<'_, K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while !taken.insert(key.clone()) {
            taken = self.freed.wait_timeout(taken, left(deadline)?).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(Taken { of: self, key: key.clone() })
    }

    /// Takes `key` if it is free.
    pub(super) fn try_take(&self, key: &K) -> Option<Taken<'_, K>> {
        self.take(key, Instant::now())
    }
}

impl<K: Eq + Hash> Drop for Taken<'_, K> {
    fn drop(&mut self) {
        self.of.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.of.freed.notify_all();
    }
}
