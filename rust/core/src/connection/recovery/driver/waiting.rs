//! When parts that wait on lanes which have failed are tried on other rails.

use crate::connection::rail::LANES_PER_RAIL;
use crate::rails::{MAX_RAILS, MILLISECOND};

/// The pauses of lanes of which no part could leave: what no other rail reaches, or was posted, would be taken off and put back with each
/// turn of the task.
#[derive(Debug)]
pub(super) struct WaitingLanes([Pause; MAX_RAILS * LANES_PER_RAIL]);

#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    until: u64,
    /// 0 if there is none.
    length: u64,
}

const FIRST_PAUSE: u64 = 2 * MILLISECOND;
const LONGEST_PAUSE: u64 = 64 * MILLISECOND;

impl Default for WaitingLanes {
    fn default() -> Self {
        Self([Pause::default(); MAX_RAILS * LANES_PER_RAIL])
    }
}

impl WaitingLanes {
    /// Those of the lanes with waiting parts that are to be tried now. The pauses of all others are over.
    pub(super) fn due(&mut self, lanes: &[usize], now: u64) -> Vec<usize> {
        for (lane, pause) in self.0.iter_mut().enumerate().filter(|(_, pause)| pause.length > 0) {
            if !lanes.contains(&lane) {
                *pause = Pause::default();
            }
        }
        let is_due = |lane: &usize| self.0.get(*lane).is_some_and(|pause| now >= pause.until);
        lanes.iter().copied().filter(is_due).collect()
    }

    /// A lane was tried: whether parts have left it.
    pub(super) fn tried(&mut self, lane: usize, have_moved: bool, now: u64) {
        let Some(pause) = self.0.get_mut(lane) else { return };
        let length = if have_moved { 0 } else { (2 * pause.length).clamp(FIRST_PAUSE, LONGEST_PAUSE) };
        *pause = Pause { until: now.saturating_add(length), length };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_of_which_nothing_can_leave_is_tried_seldom() {
        let (mut waiting, mut tries) = (WaitingLanes::default(), 0);
        for now in (0..1000 * MILLISECOND).step_by(MILLISECOND as usize / 2) {
            let due = waiting.due(&[9, 63], now);
            assert!(due.contains(&63), "its parts leave");
            tries += due.iter().filter(|lane| **lane == 9).count();
            due.iter().for_each(|lane| waiting.tried(*lane, *lane == 63, now));
        }
        assert_eq!(tries, 20);
        assert!(waiting.due(&[], 1000 * MILLISECOND).is_empty());
        assert_eq!(waiting.due(&[9], 1000 * MILLISECOND), [9], "it has worked in between");
    }
}
