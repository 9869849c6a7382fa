//! How often connections look: many of them, and between short transfers.

use super::*;

/// Each connection has a world; what looks of all of them take is a twentieth of the time, and each still finds out what is silent.
#[test]
fn many_busy_connections_look_more_rarely() {
    const COST: u64 = 2_000;
    for count in [1_u64, 10, 100, 1_000] {
        let pace = Arc::new(LookPace::default());
        pace.took(COST);
        let mut worlds: Vec<_> = (0..count).map(|_| World::new(2)).collect();
        for world in &mut worlds {
            world.watch.pace = Arc::clone(&pace);
            world.set_busy(true);
        }
        // In steps, so that all are at about the same time.
        let run_until = |worlds: &mut [World], end: u64| {
            while worlds[0].now < end {
                let next = worlds[0].now + 5 * MS;
                worlds.iter_mut().for_each(|world| world.run_until(next));
            }
        };
        run_until(&mut worlds, 100 * MS);
        let before: u64 = worlds.iter().map(|world| world.looks).sum();
        run_until(&mut worlds, 500 * MS);
        let looks = worlds.iter().map(|world| world.looks).sum::<u64>() - before;
        let most = 2 * 400 * count + count;
        assert!(looks <= most, "{count}: {looks} looks");
        let share = (looks * COST) as f64 / (400 * MS) as f64;
        assert!(share < 0.051, "{count}: {share}");
        // No more rarely than needed.
        assert!(share > 0.045 || looks >= 2 * 399 * count, "{count}: {share}, {looks}");
        worlds[0].silent = RailSet(0b10);
        run_until(&mut worlds[..1], 500 * MS + 8 * pace.least_interval().max(MS));
        assert_eq!(
            worlds[0].moves().first().map(|of| (of.1, of.2)),
            Some((1, PauseReason::Silent)),
            "{count}"
        );
        drop(worlds);
        assert_eq!(pace.least_interval(), 0, "none looks any more");
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
    assert!(world.loads.is_at_rest() && world.watch.deadline().is_none());
}
