//! Rounds of looks: what many tasks of the loop look at again and again, in the same turns of the loop, and within a bound on what that
//! costs.

/// The looks of all tasks of one event loop. A look costs little beside the turn of the loop in which it is carried out: the wait before it, and
/// the system calls of that. So tasks look in rounds, of which the next one begins the later the more processor time the one before took: all of
/// them, with their turns, take about a twentieth of a processor, where each takes [`LONGEST`] at most. Without a clock: times are arguments, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LookRounds {
    round: LookRound,
    /// Processor time of the turns in which looks of this round were carried out.
    spent: u64,
    /// Looks since the last turn of the loop.
    looks: u64,
}

/// A round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookRound {
    /// When its first look was.
    began: u64,
    /// The next one is not begun for so long.
    least: u64,
}

/// Looks take this part of a processor's time: a twentieth.
const PART_OF_TIME: u64 = 20;

/// A turn of the loop took at most so much for each look in it, else it had other work: 100 us. A turn with one look takes 10 to 30 us.
const LONGEST: u64 = 100_000;

impl LookRounds {
    /// The round that is under way.
    pub(crate) fn current(&self) -> LookRound {
        self.round
    }

    /// A task looks now. Returns the round that its look is of.
    pub(crate) fn look(&mut self, now: u64) -> LookRound {
        self.looks += 1;
        if now >= self.round.earliest_next() {
            let least = self.spent.saturating_mul(PART_OF_TIME);
            self.round = LookRound { began: now, least };
            self.spent = 0;
        }
        self.round
    }

    /// A turn of the loop has ended, and took so much processor time with the wait before it.
    pub(crate) fn turn_ended(&mut self, nanos: u64) {
        let looks = std::mem::take(&mut self.looks);
        self.spent = self.spent.saturating_add(nanos.min(LONGEST.saturating_mul(looks)));
    }
}

impl LookRound {
    /// When a task is to look that wants to so long after this round has begun.
    pub(crate) fn after(&self, interval: u64) -> u64 {
        self.not_before(self.began.saturating_add(interval))
    }

    /// When a task is to look that wants to at this time.
    pub(crate) fn not_before(&self, time: u64) -> u64 {
        time.max(self.earliest_next())
    }

    fn earliest_next(&self) -> u64 {
        self.began.saturating_add(self.least)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Tasks that want to look every half millisecond, each turn of the loop with up to 200 of them. Returns the part of the time that
    /// turns take, and the longest time between two looks of a task at the end.
    fn run(count: u64, turn: u64, look: u64) -> (f64, u64) {
        let mut rounds = LookRounds::default();
        let mut looked: Vec<(u64, u64)> = (0..count).map(|task| (task * 10_000, 0)).collect();
        let (mut now, mut taken, mut longest) = (0, 0, 0);
        const END: u64 = 2_000 * MS;
        while now < END {
            now = looked.iter().map(|(at, _)| *at).min().unwrap_or(END).max(now);
            let mut cost = turn;
            let due = looked.iter_mut().filter(|(at, _)| *at <= now).take(200);
            for (at, last) in due {
                *at = rounds.look(now + cost).after(MS / 2);
                if now > END / 2 {
                    longest = longest.max(now - *last);
                }
                *last = now;
                cost += look;
            }
            rounds.turn_ended(cost);
            now += cost;
            taken += if now > END / 2 { cost } else { 0 };
        }
        (taken as f64 / (END / 2) as f64, longest)
    }

    #[test]
    fn all_looks_with_their_turns_take_a_twentieth_at_most() {
        for (count, longest) in [(1, MS / 2), (10, MS), (100, 5 * MS), (1_000, 50 * MS)] {
            let (part, between) = run(count, 20_000, 1_000);
            assert!(part < 0.0501, "{count}: {part}");
            assert!(part > 0.0475 || between < MS * 6 / 10, "{count}: {part}, no more rarely than needed");
            assert!(between < longest + 200_000, "{count}: {between} ns");
        }
    }

    #[test]
    fn a_task_alone_looks_when_it_wants_to() {
        let (part, between) = run(1, 15_000, 1_000);
        assert!(part < 0.04 && between <= MS / 2 + 20_000, "{part} {between}");
    }

    #[test]
    fn tasks_look_together_though_they_began_apart() {
        let mut rounds = LookRounds::default();
        let first = rounds.look(1_000 * MS);
        rounds.turn_ended(20_000);
        let second = rounds.look(1_000 * MS + 300_000);
        rounds.turn_ended(20_000);
        assert_ne!(first, second);
        let joined = rounds.look(first.after(MS / 2));
        assert_eq!(joined, second);
        assert_eq!(joined.after(MS / 2), second.after(MS / 2));
    }

    #[test]
    fn other_work_in_a_turn_counts_up_to_a_bound() {
        let mut rounds = LookRounds::default();
        rounds.turn_ended(50 * MS);
        assert_eq!(rounds.look(MS).not_before(0), MS, "there was no look in it");
        rounds.turn_ended(50 * MS);
        assert_eq!(rounds.look(2 * MS).not_before(0), 2 * MS + 20 * LONGEST);
    }

    #[test]
    fn what_is_to_happen_later_than_the_next_round_waits_for_its_time() {
        let mut rounds = LookRounds::default();
        rounds.look(MS);
        rounds.turn_ended(50_000);
        let round = rounds.look(2 * MS);
        assert_eq!((round.not_before(0), round.not_before(4 * MS)), (3 * MS, 4 * MS));
        assert_eq!((round.after(MS / 2), round.after(2 * MS)), (3 * MS, 4 * MS));
    }
}
