//! Whether a rail is silent: it has something to do and ends nothing.

/// What the lanes of a rail count, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailCounts {
    /// Requests that have completed since the rail was made.
    pub completions: u64,
    /// Bytes of parts that have ended since the rail was made.
    pub bytes_done: u64,
    /// Requests posted and not completed.
    pub in_flight: u64,
    /// Bytes of parts started and not ended.
    pub bytes_in_flight: u64,
}

/// Follows the completions of one rail by looks at its counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Silence {
    /// Completions at the last look.
    completions: u64,
    /// When completions were seen last, by the time of the look.
    pub(super) progressed_at: u64,
    /// Since when it has something to do and has ended nothing; `None` if it has nothing to do.
    pub(super) since: Option<u64>,
    /// Nanoseconds between two completions while it has something to do, smoothed; 0 before the first.
    gap: u64,
}

/// A gap enters the smoothed one by an eighth, as the round trip of TCP does (RFC 6298).
const SMOOTHING: u64 = 8;

impl Silence {
    pub(super) fn look(&mut self, now: u64, counts: RailCounts) {
        let ended = counts.completions.saturating_sub(self.completions);
        self.completions = counts.completions;
        let gap = self.since.and_then(|since| now.saturating_sub(since).checked_div(ended));
        gap.into_iter().for_each(|gap| self.add_gap(gap));
        if ended > 0 {
            self.progressed_at = now;
            self.since = None;
        }
        if counts.in_flight == 0 {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// Whether a look at these counters finds new completions.
    pub(super) fn would_progress(&self, counts: RailCounts) -> bool {
        counts.completions > self.completions
    }

    fn add_gap(&mut self, gap: u64) {
        self.gap = if self.gap == 0 { gap } else { self.gap - self.gap / SMOOTHING + gap / SMOOTHING };
    }

    /// Nanoseconds of silence that are normal for it, at least `least`.
    pub(super) fn limit(&self, least: u64, gaps: u64) -> u64 {
        self.gap.saturating_mul(gaps).max(least)
    }

    /// For how long it has been silent.
    pub(super) fn lasts(&self, now: u64) -> u64 {
        self.since.map_or(0, |since| now.saturating_sub(since))
    }

    /// Whatever is under way on it has been taken away.
    pub(super) fn reset(&mut self) {
        self.since = None;
    }
}
