//! Request lists that are not in use, kept with their memory for the next transfers.

use super::request_list::RequestList;

/// Lists kept at most.
const KEPT: usize = 64;

/// The spare lists of a pool: given out the last one first, which still is in the cache. Never waited for: a thread that
/// finds the lock taken does without.
#[derive(Debug)]
pub struct SpareLists(spin::Mutex<Vec<RequestList>>);

impl Default for SpareLists {
    fn default() -> Self {
        Self(spin::Mutex::new(Vec::with_capacity(KEPT)))
    }
}

impl SpareLists {
    /// An empty list.
    pub fn acquire(&self) -> RequestList {
        self.0.try_lock().and_then(|mut lists| lists.pop()).unwrap_or_default()
    }

    /// Empties a list and keeps it.
    pub fn release(&self, mut list: RequestList) {
        list.clear();
        if let Some(mut lists) = self.0.try_lock().filter(|lists| lists.len() < KEPT) {
            lists.push(list);
        }
    }
}
