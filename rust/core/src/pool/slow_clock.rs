//! Which parts took longer than a millisecond, without a look at the clock for each.
//!
//! A part keeps the number of the last look that is kept from before it began: the time since that one is the most that it can have taken. So none
//! is missed. Looks come with every 16th step at least. What must not be taken for the time of a part is a pause of the program, which no look
//! divides: after one, each part has a look of its own when it begins and when it ends, until a long row of parts has come without a pause.

use std::time::Duration;

use super::quick_clock;
use crate::observe::{COUNTED, SAMPLE_EVERY};

/// Looks that are kept are so many nanoseconds apart.
const TICK: u64 = 250_000;

/// A longer time without a look is a pause. With [`TICK`] it is the most by which a part seems to have begun too early, but for one that began in a
/// pause.
const PAUSE: u64 = 240_000;

/// What takes longer is slow. A little less than a millisecond, so that no error of the quick clock hides one that took that.
pub(super) const SLOW: Duration = Duration::from_micros(990);

/// So many parts that begin have a look of their own after a pause.
const CLOSELY: u32 = 16_384;

/// Looks of which the times are kept: the last 32 ms, or more.
const KEPT: u32 = 128;

/// The time since `begun`, of the quick clock, if a transfer of that length is slow. `None` if it is 0.
pub(super) fn slow_since(begun: u64) -> Option<Duration> {
    if begun == 0 {
        return None;
    }
    let took = Duration::from_nanos(quick_clock::now_ns().saturating_sub(begun));
    Some(took).filter(|took| COUNTED && *took >= SLOW)
}

/// Keeps the times of a worker's looks at the clock, a tick or more apart.
#[derive(Debug)]
pub(super) struct SlowClock {
    /// The number of the last look that is kept.
    looks: u32,
    /// Parts that still have looks of their own.
    closely: u32,
    /// A part has its turn if the count of those that began before it has none of these bits: 0 after a pause, else one less than
    /// [`SAMPLE_EVERY`]. One number, so that parts cost one decision.
    turns: u64,
    /// Parts that have ended since the last look, without one of their own.
    unseen: u32,
    /// When the last look was, in nanoseconds of the quick clock.
    last: u64,
    /// When the last one that is kept was.
    last_kept: u64,
    /// When the last [`KEPT`] were, each at the remainder of its number.
    times: Box<[u64]>,
}

impl Default for SlowClock {
    fn default() -> Self {
        Self {
            looks: 0,
            closely: CLOSELY,
            turns: 0,
            unseen: 0,
            last: 0,
            last_kept: 0,
            times: vec![0; KEPT as usize].into(),
        }
    }
}

impl SlowClock {
    /// The number for a part that begins, and may not be looked at when it ends.
    #[inline(always)]
    pub(super) fn number(&self) -> u32 {
        self.looks
    }

    /// Whether a part that begins needs [`SlowClock::look_at_begin`], or is one of the sample: so many began before it.
    #[inline(always)]
    pub(super) fn has_turn(&self, before: u64) -> bool {
        COUNTED && before & self.turns == 0
    }

    /// A look for a part that begins after a pause. Answers when that is, in nanoseconds of the quick clock, and what [`SlowClock::look`] answers;
    /// `None` for any other part.
    pub(super) fn look_at_begin(&mut self) -> Option<(u64, Option<(u32, Duration)>)> {
        if self.closely == 0 {
            return None;
        }
        self.closely -= 1;
        if self.closely == 0 {
            self.turns = SAMPLE_EVERY - 1;
        }
        let now = quick_clock::now_ns().max(1);
        Some((now, self.look(now)))
    }

    /// A number for a part that is to be looked at when it ends, however soon.
    pub(super) fn long_ago(&self) -> u32 {
        self.looks.wrapping_sub(u32::MAX / 2)
    }

    /// A part that began with this number ends: whether it may have been slow, or was to be looked at. Else the next look shows it.
    #[inline(always)]
    pub(super) fn ends_late(&mut self, begun: u32) -> bool {
        let is_late = self.looks != begun;
        self.unseen = self.unseen.wrapping_add(u32::from(!is_late));
        COUNTED && is_late
    }

    /// The most that a part has taken at `now` that began with this number, for as long as the looks are kept. `late` is the time since
    /// deadlines were first looked at for it, in milliseconds, or 0: it is the better measure of one that began before.
    pub(super) fn took(&self, begun: u32, late: u64, now: u64) -> Duration {
        let time = |look: u32| self.times.get((look % KEPT) as usize).copied().unwrap_or(now);
        if self.looks.wrapping_sub(begun) < KEPT {
            return Duration::from_nanos(now.saturating_sub(time(begun)));
        }
        let kept = now.saturating_sub(time(self.looks.wrapping_add(1)));
        Duration::from_nanos(kept).max(Duration::from_millis(late))
    }

    /// A look at the quick clock. Answers how many parts have ended since the last one that may have been slow, and the most that each of them
    /// took: after a pause nothing shows which of them it belongs to.
    #[inline]
    pub(super) fn look(&mut self, now: u64) -> Option<(u32, Duration)> {
        let most = Duration::from_nanos(now.saturating_sub(self.last_kept));
        let unseen = std::mem::take(&mut self.unseen);
        let is_pause = now.saturating_sub(self.last) > PAUSE;
        if is_pause {
            (self.closely, self.turns) = (CLOSELY, 0);
        }
        self.last = now;
        // After a pause also sooner: what began before has another number, and so is looked at when it ends.
        if is_pause || now.saturating_sub(self.last_kept) >= TICK {
            self.looks = self.looks.wrapping_add(1);
            self.last_kept = now;
            if let Some(time) = self.times.get_mut((self.looks % KEPT) as usize) {
                *time = now;
            }
        }
        (unseen > 0 && most >= SLOW).then_some((unseen, most))
    }
}

#[cfg(test)]
impl SlowClock {
    /// As after a long row of parts without a pause.
    pub(super) fn look_seldom(&mut self) {
        (self.closely, self.turns) = (0, SAMPLE_EVERY - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::quick_clock::played;

    const MS: u64 = 1_000_000;

    /// After a pause, parts that begin and end at once: how many of the first ones are looked at closely.
    fn closely(clock: &mut SlowClock, now: &mut u64, pause: u64) -> usize {
        *now += pause;
        let row = (0..2 * CLOSELY).take_while(|_| {
            *now += 1000;
            played::set(*now);
            let looked = clock.look_at_begin();
            let number = if looked.is_some() { clock.long_ago() } else { clock.number() };
            clock.ends_late(number)
        });
        row.count()
    }

    #[test]
    fn after_a_pause_parts_are_looked_at_closely_and_then_seldom() {
        let (mut clock, mut now) = (SlowClock::default(), MS);
        assert!(closely(&mut clock, &mut now, 0) >= CLOSELY as usize - 1);
        assert_eq!(closely(&mut clock, &mut now, 0), 0);
        assert_eq!(clock.look(now), None);
        assert_eq!(closely(&mut clock, &mut now, 10 * MS), 0, "the pause is not known yet");
        let (count, most) = clock.look(now).unwrap();
        assert!(count == 1 && most >= Duration::from_millis(10), "{count} {most:?}");
        assert!(closely(&mut clock, &mut now, 10 * MS) >= CLOSELY as usize - 1);
    }

    #[test]
    fn how_long_is_known_beyond_the_looks_that_are_kept() {
        let mut clock = SlowClock::default();
        clock.look(MS);
        clock.look_seldom();
        let begun = clock.number();
        (MS..9000 * MS).step_by(TICK as usize).for_each(|now| assert_eq!(clock.look(now), None));
        let took = |late| clock.took(begun, late, 9000 * MS).as_millis();
        assert!((30..=32).contains(&took(0)), "{}", took(0));
        assert_eq!(took(8994), 8994);
    }
}
