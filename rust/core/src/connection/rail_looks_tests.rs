//! How often connections look: many of them, and between short transfers.

use super::*;

/// Each connection has a world, and their tasks one loop: what its turns with looks take is a twentieth of the time, and each connection still
/// finds out what is silent.
#[test]
fn many_busy_connections_look_together_and_more_rarely() {
    for (count, interval) in [(1, MS / 2), (10, MS / 2), (100, 23 * MS / 10), (1_000, 23 * MS)] {
        let mut all = Together::new(count);
        all.run_until(200 * MS);
        let (looks, taken) = (all.looks(), all.taken);
        all.run_until(700 * MS);
        let share = (all.taken - taken) as f64 / (500 * MS) as f64;
        assert!(share < 0.051, "{count}: {share}");
        let looks = (all.looks() - looks) / count;
        let expected = 500 * MS / interval;
        assert!((expected * 9 / 10..=expected * 11 / 10).contains(&looks), "{count}: {looks} looks of each");
        all.worlds[0].silent = RailSet(0b10);
        all.run_until(700 * MS + 6 * MS + 2 * interval);
        assert_eq!(
            all.worlds[0].moves().first().map(|of| (of.1, of.2)),
            Some((1, PauseReason::Silent)),
            "{count}"
        );
    }
}

struct Together {
    worlds: Vec<World>,
    rounds: Rc<Cell<LookRounds>>,
    /// Processor time.
    taken: u64,
}

impl Together {
    const TURN: u64 = 15_000;
    const LOOK: u64 = 1_000;

    fn new(count: u64) -> Self {
        let rounds = Rc::<Cell<LookRounds>>::default();
        let busy = |number| {
            let mut world = World::new(2);
            world.rounds = Rc::clone(&rounds);
            // They begin one after the other.
            world.run_until(number * MS / 100);
            world.set_busy(true);
            world
        };
        let worlds = (0..count).map(busy).collect();
        Self { worlds, rounds, taken: 0 }
    }

    fn looks(&self) -> u64 {
        self.worlds.iter().map(|world| world.looks).sum()
    }

    /// In turns of the loop, each with the looks that are due.
    fn run_until(&mut self, end: u64) {
        loop {
            let Some(next) = self.worlds.iter().filter_map(World::next).min().filter(|at| *at <= end) else {
                return;
            };
            let before = self.looks();
            let due = self.worlds.iter_mut().filter(|world| world.next().is_some_and(|at| at <= next));
            due.for_each(|world| {
                world.pass_until(next);
                world.turn();
            });
            let looks = self.looks() - before;
            let time = if looks > 0 { Self::TURN + looks * Self::LOOK } else { 0 };
            let mut rounds = self.rounds.get();
            rounds.turn_ended(time);
            self.rounds.set(rounds);
            self.taken += time;
        }
    }
}

/// Transfers that end before the next look: the task sees that there were some, so that no submitter has to wake it.
#[test]
fn the_task_does_not_go_to_rest_between_short_transfers() {
    let mut world = World::new(2);
    world.run_until(10 * MS);
    let mut wakes = 0;
    for transfer in 0..1_000 {
        if world.loads.wake_needed() {
            wakes += 1;
            world.turn();
        }
        world.counts[0].completions += 1;
        world.counts[0].bytes_done += 4096;
        let end = 10 * MS + (transfer + 1) * MS / 20;
        world.run_until(end);
    }
    assert!(wakes <= 2, "{wakes}: for the first one, which may end behind the look");
    world.run_until(100 * MS);
    assert!(world.loads.is_at_rest() && world.deadline().is_none());
}
