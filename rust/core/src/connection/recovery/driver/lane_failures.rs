//! Which failures of lanes count against their rails.

use crate::connection::lane_commands::bit;

/// Lanes, a bit each, as the task has seen and heard of them since each had its queue pair.
///
/// The peer says that it has left a lane both when it leaves its rail, and in answer to an end that has left the lane for a failure.
/// Only the first explains what fails here. So frames of the peer are read before failures that are new are told to the machine, from
/// which the peer hears of them: what it says later of such a lane is an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LaneFailures {
    /// Those that the peer has left before they were seen to fail.
    left_there: u64,
    /// Those that were seen not to be healthy.
    seen: u64,
    /// Those of which the failure counts.
    counted: u64,
    /// Those of them that were not told yet.
    new: u64,
}

impl LaneFailures {
    /// It has another queue pair.
    pub(super) fn replaced(&mut self, lane: usize) {
        let others = !bit(lane);
        self.left_there &= others;
        self.seen &= others;
        self.counted &= others;
    }

    /// The peer says that it has left the lane.
    pub(super) fn left_by_peer(&mut self, lane: usize) {
        self.left_there |= bit(lane) & !self.seen;
    }

    /// Whether it was not seen to have failed before.
    pub(super) fn is_new(&self, lane: usize) -> bool {
        self.seen & bit(lane) == 0
    }

    /// It is not healthy. `failed`: neither has this end moved it to ERROR, nor was it broken by a request that an end has refused. True if
    /// its failure has counted until now.
    #[must_use]
    pub(super) fn is_broken(&mut self, lane: usize, failed: bool) -> bool {
        if self.is_new(lane) && failed {
            let counts = bit(lane) & !self.left_there;
            self.counted |= counts;
            self.new |= counts;
        }
        self.seen |= bit(lane);
        let no_longer = if failed { 0 } else { self.counted & bit(lane) };
        self.counted &= !no_longer;
        no_longer != 0
    }

    /// The lanes of which the failure counts, and was not taken before.
    pub(super) fn take_new(&mut self) -> u64 {
        std::mem::take(&mut self.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_counts_once() {
        let mut lanes = LaneFailures::default();
        assert!(lanes.is_new(3) && !lanes.is_broken(3, true));
        assert!(!lanes.is_new(3) && !lanes.is_broken(3, true));
        assert_eq!((lanes.take_new(), lanes.take_new()), (0b1000, 0));
        lanes.replaced(3);
        assert!(!lanes.is_broken(3, true));
        assert_eq!(lanes.take_new(), 0b1000, "another queue pair");
    }

    #[test]
    fn what_the_peer_has_left_does_not_count() {
        let mut lanes = LaneFailures::default();
        lanes.left_by_peer(3);
        assert!(!lanes.is_broken(3, true));
        assert_eq!(lanes.take_new(), 0);
        lanes.replaced(3);
        assert!(!lanes.is_broken(3, true));
        assert_eq!(lanes.take_new(), 0b1000);
    }

    #[test]
    fn the_answer_of_the_peer_explains_no_failure() {
        let mut lanes = LaneFailures::default();
        assert!(!lanes.is_broken(3, true));
        lanes.left_by_peer(3);
        assert_eq!(lanes.take_new(), 0b1000);
    }

    #[test]
    fn a_request_that_is_refused_is_no_failure() {
        let mut lanes = LaneFailures::default();
        assert!(!lanes.is_broken(3, false));
        assert_eq!(lanes.take_new(), 0);
        assert!(!lanes.is_broken(4, true));
        assert_eq!(lanes.take_new(), 0b1_0000);
        assert!(lanes.is_broken(4, false), "which is known later");
        assert!(!lanes.is_broken(4, false));
    }
}
