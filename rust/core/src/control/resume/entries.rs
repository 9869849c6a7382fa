//! The connections that a listener for resumption knows: those that live, and for some time those that have ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::ResumeEntry;
use super::exchange::Secret;

/// Connections that have ended, of which a leader is told so; the oldest is forgotten for another one.
const MOST_ENDED: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Entries {
    live: HashMap<u64, Weak<ResumeEntry>>,
    ended: HashMap<u64, Secret>,
    /// Their names, and until when they are kept. In that order, because they are all kept for as long.
    until: VecDeque<(Instant, u64)>,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Known {
    Live(Arc<ResumeEntry>),
    /// With the secret by which the leader is recognised.
    Ended(Secret),
}

impl Entries {
    /// The caller drops what this returns when it does not hold the lock any more: the last reference of a connection takes that.
    pub(super) fn get(&self, name: u64) -> Option<Known> {
        let live = || self.live.get(&name).and_then(Weak::upgrade).map(Known::Live);
        live().or_else(|| self.ended.get(&name).cloned().map(Known::Ended))
    }

    pub(super) fn contains(&self, name: u64) -> bool {
        self.live.contains_key(&name) || self.ended.contains_key(&name)
    }

    pub(super) fn add(&mut self, name: u64, entry: Weak<ResumeEntry>) {
        self.live.insert(name, entry);
    }

    /// The connection has ended `now`; a leader may dial until `limit` later.
    pub(super) fn end(&mut self, name: u64, secret: Secret, (now, limit): (Instant, Duration)) {
        self.live.remove(&name);
        self.ended.insert(name, secret);
        self.until.push_back((now + limit, name));
        let is_old = |entries: &Self| {
            entries.until.len() > MOST_ENDED || entries.until.front().is_some_and(|(until, _)| *until <= now)
        };
        while is_old(self) {
            let Some((_, name)) = self.until.pop_front() else { return };
            self.ended.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(None, &[7; 32])
    }

    #[test]
    fn those_that_have_ended_are_known_for_their_time() {
        let (mut entries, begin, limit) = (Entries::default(), Instant::now(), Duration::from_secs(5));
        entries.end(1, secret(), (begin, limit));
        entries.end(2, secret(), (begin + limit / 2, limit));
        assert!(matches!((entries.get(1), entries.get(2)), (Some(Known::Ended(_)), Some(Known::Ended(_)))));
        entries.end(3, secret(), (begin + limit, limit));
        assert!(entries.get(1).is_none() && entries.get(2).is_some() && entries.get(3).is_some());
    }

    #[test]
    fn they_are_bounded() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        for name in 0..MOST_ENDED as u64 + 100 {
            entries.end(name, secret(), (now, Duration::from_secs(3600)));
        }
        assert_eq!((entries.ended.len(), entries.until.len()), (MOST_ENDED, MOST_ENDED));
        assert!(entries.get(99).is_none() && entries.get(100).is_some());
    }
}
