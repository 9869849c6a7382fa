//! The probes of rails that are not answered.

use crate::rails::{MAX_RAILS, MILLISECOND};

/// For so long the lanes of a rail that is not up are kept with their probes: a NIC that comes back may go on with these.
const STUCK_LIMIT: u64 = 1_000 * MILLISECOND;

/// What the task remembers of probes between two turns.
#[derive(Debug, Default)]
pub(super) struct Probes([Probe; MAX_RAILS]);

#[derive(Clone, Copy, Debug, Default)]
struct Probe {
    /// The numbers of those that wait, first and last.
    waiting: Option<(u32, u32)>,
    /// Since when a rail that is not up has no lane for a further one.
    stuck_since: Option<u64>,
}

impl Probes {
    /// One is posted. Of a rail that is not up the answers to all count that wait, otherwise that to the last one.
    pub(super) fn add(&mut self, rail: usize, number: u32, is_up: bool) {
        let Some(probe) = self.0.get_mut(rail) else { return };
        let first = probe.waiting.filter(|_| !is_up).map_or(number, |(first, _)| first);
        probe.waiting = Some((first, number));
    }

    /// None is waited for any more.
    pub(super) fn clear(&mut self, rail: usize) {
        self.0.get_mut(rail).into_iter().for_each(|probe| *probe = Probe::default());
    }

    /// Whether one was posted and not answered.
    pub(super) fn are_waiting(&self, rail: usize) -> bool {
        self.0.get(rail).is_some_and(|probe| probe.waiting.is_some())
    }

    /// The one that was answered, if it is waited for; `answers` are the last ones of the lanes, 0 if there was none. None is waited for then.
    pub(super) fn answered(&mut self, rail: usize, answers: impl Iterator<Item = u32>) -> Option<u32> {
        let probe = self.0.get_mut(rail)?;
        let (first, last) = probe.waiting?;
        let is_waiting = |number: &u32| last.wrapping_sub(*number) <= last.wrapping_sub(first);
        let number = answers.filter(|number| *number != 0).find(is_waiting)?;
        *probe = Probe::default();
        Some(number)
    }

    /// Whether the last one found a lane without an earlier one. Asks once for a long time without: then the lanes are to be made again.
    pub(super) fn is_stuck(&mut self, rail: usize, found_lane: bool, now: u64) -> bool {
        let Some(probe) = self.0.get_mut(rail) else { return false };
        let since = if found_lane { None } else { Some(probe.stuck_since.unwrap_or(now)) };
        let is_stuck = since.is_some_and(|since| now.saturating_sub(since) >= STUCK_LIMIT);
        probe.stuck_since = since.filter(|_| !is_stuck);
        is_stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_rail_that_is_up_the_last_one_counts() {
        let mut probes = Probes::default();
        probes.add(1, 4, true);
        probes.add(1, 5, true);
        assert_eq!(probes.answered(1, [0, 4].into_iter()), None);
        assert_eq!(probes.answered(0, [5].into_iter()), None);
        assert!(probes.are_waiting(1) && !probes.are_waiting(0));
        assert_eq!(probes.answered(1, [4, 5].into_iter()), Some(5));
        assert!(!probes.are_waiting(1));
        assert_eq!(probes.answered(1, [5].into_iter()), None, "once");
    }

    #[test]
    fn of_a_rail_that_was_left_each_since_then_counts() {
        let mut probes = Probes::default();
        probes.add(1, 4, true);
        probes.clear(1);
        (5..8).for_each(|number| probes.add(1, number, false));
        assert_eq!(probes.answered(1, [4, 0, 8].into_iter()), None);
        assert_eq!(probes.answered(1, [4, 6].into_iter()), Some(6));
    }

    #[test]
    fn lanes_that_answer_nothing_are_kept_for_a_second() {
        let mut probes = Probes::default();
        let mut stuck = |found_lane, at| probes.is_stuck(1, found_lane, at * MILLISECOND);
        assert!(!stuck(false, 0) && !stuck(false, 999));
        assert!(stuck(false, 1000) && !stuck(false, 1001), "once");
        assert!(!stuck(true, 1500) && !stuck(false, 2500) && stuck(false, 3500));
    }
}
