//! The servers, and the one that answered last.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Servers of one etcd. All requests go to one of them until it fails.
#[derive(Debug)]
pub(super) struct Endpoints {
    list: Vec<String>,
    /// Of any thread that moves on, read by all; a stale value costs one failed try. Relaxed: it guards nothing.
    current: AtomicUsize,
}

impl Endpoints {
    /// Of `host:port` texts.
    pub(super) fn new(list: Vec<String>) -> Self {
        Self { list, current: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The one in use, and its place.
    pub(super) fn current(&self) -> (usize, &str) {
        self.at(self.current.load(Ordering::Relaxed))
    }

    /// The one at `place`, counted around, and its place.
    pub(super) fn at(&self, place: usize) -> (usize, &str) {
        let place = place % self.list.len().max(1);
        (place, self.list.get(place).map_or("", String::as_str))
    }

    /// The one at `place` has failed: the next is used, unless another thread has moved on already.
    pub(super) fn failed(&self, place: usize) {
        let next = (place + 1) % self.list.len().max(1);
        let _ = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_server_is_left_once() {
        let endpoints = Endpoints::new(vec!["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(endpoints.current(), (0, "a:1"));
        endpoints.failed(0);
        endpoints.failed(0);
        assert_eq!(endpoints.current(), (1, "b:1"));
        endpoints.failed(1);
        assert_eq!(endpoints.current(), (0, "a:1"));
    }
}
