//! How many refusals of rails an engine tells of: peers can ask for rails without end, and over many connections.

use crate::rails::MILLISECOND;
use crate::sync::Mutex;

/// Those of all connections of an engine.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Of rails that this end wants to make.
    pub(super) own: Mutex<RefusalLines>,
    /// Of those that peers do: these do not silence the others.
    pub(super) asked_by_peers: Mutex<RefusalLines>,
}

/// The refusals that may still be told. Times are nanoseconds of any one clock.
#[derive(Debug)]
pub(super) struct RefusalLines {
    left: u32,
    /// When there was one more last.
    since: u64,
}

/// At once: eight NICs at each end find their pairs by 28 trials at most.
const AT_ONCE: u32 = 32;

/// Then one more each time.
const EVERY: u64 = 10_000 * MILLISECOND;

impl Default for RefusalLines {
    fn default() -> Self {
        Self { left: AT_ONCE, since: 0 }
    }
}

impl RefusalLines {
    /// Whether one more is told.
    pub(super) fn take(&mut self, now: u64) -> bool {
        let more = now.saturating_sub(self.since) / EVERY;
        self.since = self.since.saturating_add(more * EVERY);
        let left = u64::from(self.left).saturating_add(more).min(AT_ONCE.into());
        self.left = left.saturating_sub(1) as u32;
        left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000 * MILLISECOND;

    #[test]
    fn a_peer_that_asks_without_end_fills_no_log() {
        let mut lines = RefusalLines::default();
        let mut told =
            |from: u64, until: u64| (from..until).filter(|ms| lines.take(ms * MILLISECOND)).count();
        assert_eq!(told(1_000_000, 1_001_000), 32, "as many as there are pairs");
        assert_eq!(told(1_001_000, 1_101_000), 10, "one in ten seconds");
        assert_eq!(told(9_000_000, 9_001_000), 32, "behind a pause");
    }

    #[test]
    fn now_and_then_all_are_told() {
        let mut lines = RefusalLines::default();
        assert!((0..1_000).all(|number| lines.take(number * 10 * SECOND)));
    }
}
