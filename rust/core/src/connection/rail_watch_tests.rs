use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::events::LookRounds;

#[path = "rail_looks_tests.rs"]
mod looks;

const MS: u64 = MILLISECOND;
/// Of a port of 400 Gb/s.
const SPEED: u64 = 50_000_000_000;

/// A connection in virtual time: rails that end so much a second while they are not silent, and a driver that does what it is told.
struct World {
    watch: RailWatch,
    loads: Arc<RailLoads>,
    now: u64,
    counts: [RailCounts; MAX_RAILS],
    rates: [u64; MAX_RAILS],
    latencies: [u64; MAX_RAILS],
    silent: RailSet,
    busy: bool,
    /// Answers to probes and ends of rebuilds that are on their way.
    coming: Vec<(u64, usize, RailAction)>,
    done: Vec<(u64, usize, RailAction)>,
    /// Those of the loop of its task.
    rounds: Rc<Cell<LookRounds>>,
    look_at: Option<u64>,
    looks: u64,
}

impl World {
    fn new(rails: usize) -> Self {
        let loads = Arc::new(RailLoads::new());
        let mut world = Self {
            watch: RailWatch::new(RailLimits::default(), Arc::clone(&loads)),
            loads,
            now: 0,
            counts: Default::default(),
            rates: [SPEED; MAX_RAILS],
            latencies: [5_000; MAX_RAILS],
            silent: RailSet::default(),
            busy: false,
            coming: Vec::new(),
            done: Vec::new(),
            rounds: Rc::default(),
            look_at: None,
            looks: 0,
        };
        (0..rails).for_each(|rail| world.add(rail));
        world
    }

    fn busy(rails: usize) -> Self {
        let mut world = Self::new(rails);
        world.set_busy(true);
        world
    }

    fn add(&mut self, rail: usize) {
        assert!(self.watch.rail_added(rail, SPEED, Arc::new(NicFlow::new(SPEED)), self.now));
        self.act();
    }

    /// Work for 10 ms is posted on each rail, or everything ends.
    fn set_busy(&mut self, busy: bool) {
        self.busy = busy;
        let made = self.watch.made();
        for (rail, counts) in self.counts.iter_mut().enumerate().filter(|(rail, _)| made.has(*rail)) {
            counts.in_flight = if busy { 64 } else { 0 };
            counts.bytes_in_flight = if busy { self.rates[rail] / 100 } else { 0 };
        }
        if busy && self.loads.wake_needed() {
            self.turn();
        }
    }

    /// When its task has something to do.
    fn next(&self) -> Option<u64> {
        let coming = self.coming.iter().map(|(at, ..)| *at);
        Some(coming.chain(self.look_at).min()?.max(self.now))
    }

    fn run_until(&mut self, end: u64) {
        self.look_at = self.deadline();
        loop {
            let next = self.next().unwrap_or(u64::MAX);
            self.pass_until(next.min(end));
            if next > end {
                return;
            }
            self.turn();
            if self.now == end && self.look_at.is_some_and(|at| at <= end) {
                return;
            }
        }
    }

    fn pass_until(&mut self, end: u64) {
        let step = end - self.now;
        self.now = end;
        self.work(step);
    }

    /// Requests of 64 KiB end.
    fn work(&mut self, step: u64) {
        for (rail, counts) in self.counts.iter_mut().enumerate() {
            if counts.in_flight > 0 && !self.silent.has(rail) && self.watch.state(rail) == Some(RailState::Up)
            {
                counts.bytes_done += (self.rates[rail] as f64 * step as f64 / 1e9) as u64;
                counts.completions = counts.bytes_done >> 16;
            }
        }
    }

    fn turn(&mut self) {
        let (due, coming) =
            std::mem::take(&mut self.coming).into_iter().partition(|(at, ..)| *at <= self.now);
        self.coming = coming;
        for (_, rail, action) in due {
            match action {
                RailAction::Probe(number) => self.watch.probe_answered(rail, number, self.now),
                RailAction::Rebuild(number) => {
                    let works = !self.silent.has(rail);
                    self.watch.rebuilt(rail, number, works, self.now);
                }
                RailAction::Move(_) => {}
            }
        }
        if self.is_due() {
            self.looks += 1;
            let mut rounds = self.rounds.get();
            rounds.look(self.now);
            self.rounds.set(rounds);
            self.watch.look(self.now, &self.counts);
        }
        self.act();
        self.look_at = self.deadline();
    }

    /// When its task is to look.
    fn deadline(&self) -> Option<u64> {
        self.watch.deadline(self.rounds.get().current())
    }

    fn is_due(&self) -> bool {
        self.watch.is_woken() || self.look_at.is_some_and(|at| self.now >= at)
    }

    fn act(&mut self) {
        while let Some((rail, action)) = self.watch.next_action() {
            self.done.push((self.now, rail, action));
            match action {
                RailAction::Probe(_) if self.silent.has(rail) => {}
                RailAction::Probe(_) => self.coming.push((self.now + self.latencies[rail], rail, action)),
                RailAction::Rebuild(_) => self.coming.push((self.now + MS, rail, action)),
                RailAction::Move(_) => {}
            }
        }
    }

    fn moves(&self) -> Vec<(u64, usize, PauseReason)> {
        let moves = self.done.iter().filter_map(|(at, rail, action)| match action {
            RailAction::Move(reason) => Some((*at, *rail, *reason)),
            _ => None,
        });
        moves.collect()
    }

    fn loads_up(&self) -> RailSet {
        let loads = self.loads.snapshot(&[0; MAX_RAILS], &[1; MAX_RAILS]);
        let up = (0..MAX_RAILS).filter(|rail| loads[*rail].up).fold(RailSet::default(), RailSet::with);
        assert_eq!(up, self.loads.up());
        up
    }
}

#[test]
fn a_silent_rail_is_found_left_and_used_again() {
    let mut world = World::busy(3);
    world.run_until(10 * MS);
    assert_eq!(world.moves(), []);
    world.silent = RailSet(0b010);
    world.run_until(200 * MS);
    let [(at, 1, PauseReason::Silent)] = world.moves()[..] else { panic!("{:?}", world.moves()) };
    assert!(at <= 16 * MS, "{at}");
    assert_eq!(world.loads_up(), RailSet(0b101));
    assert_eq!(world.watch.reason(1), Some(PauseReason::Silent));
    world.silent = RailSet::default();
    world.run_until(220 * MS);
    assert_eq!((world.loads_up(), world.moves().len()), (RailSet(0b111), 1));
}

#[test]
fn a_peer_that_is_silent_as_a_whole_pauses_no_rail() {
    // Rails go silent and come back at other times between two looks, so that the last completion of one is seen a look earlier.
    for first in 0..3 {
        let mut world = World::busy(3);
        for part in 0..8 {
            let from = 10 * MS + part * MS / 16;
            world.run_until(from);
            world.silent = RailSet::default().with(first);
            world.run_until(from + MS / 2);
            world.silent = RailSet(0b111);
            world.run_until(from + 80 * MS);
            world.silent = RailSet(0b111 & !RailSet::default().with(first).0);
            world.run_until(from + 80 * MS + MS / 2);
            world.silent = RailSet::default();
            world.run_until(from + 100 * MS);
            world.now = 0;
            world = World { now: 0, ..World::busy(3) };
        }
        assert_eq!((world.moves(), world.loads_up()), (vec![], RailSet(0b111)));
    }
}

#[test]
fn a_port_that_flaps_is_left_at_once_and_each_time_for_longer() {
    let mut world = World::busy(2);
    let mut paused = Vec::new();
    for flap in 0..5 {
        let at = (10 + 20 * flap) * MS;
        world.run_until(at);
        world.watch.port_down(1, at);
        world.act();
        assert_eq!(world.loads_up(), RailSet(0b01));
        world.run_until(at + MS);
        world.watch.port_up(1, at + MS);
        let Some(RailState::Paused(until)) = world.watch.state(1) else {
            panic!("{:?}", world.watch.state(1))
        };
        paused.push((until - at) / MS - 1);
        world.run_until(at + 20 * MS - 1);
    }
    assert_eq!(paused, [4, 8, 16, 32, 64]);
    assert!(world.moves().iter().all(|of| (of.1, of.2) == (1, PauseReason::PortDown)));
    // During the fourth pause the port went down again: then there was nothing to move.
    assert_eq!(world.moves().len(), 4);
    world.run_until(180 * MS);
    assert_eq!(world.loads_up(), RailSet(0b11));
}

#[test]
fn rates_are_measured_and_published() {
    let mut world = World::busy(3);
    world.rates[1] = SPEED / 2;
    world.run_until(30 * MS);
    let loads = world.loads.snapshot(&[0; MAX_RAILS], &[1; MAX_RAILS]);
    for (rail, expected) in [(0, SPEED), (1, SPEED / 2), (2, SPEED)] {
        let of = loads[rail].rate as f64 / expected as f64;
        assert!((0.9..1.1).contains(&of), "rail {rail}: {of}");
        assert_eq!(loads[rail].ready, world.latencies[rail], "of the probe at the beginning");
    }
}

#[test]
fn failing_lanes_pause_a_rail_each_time_for_twice_as_long() {
    let mut world = World::busy(2);
    let mut paused = Vec::new();
    for _ in 0..4 {
        world.run_until(world.now + 50 * MS);
        assert_eq!(world.loads_up(), RailSet(0b11));
        world.watch.lane_failed(1, world.now);
        world.watch.lane_failed(1, world.now);
        world.act();
        let Some(RailState::Paused(until)) = world.watch.state(1) else {
            panic!("{:?}", world.watch.state(1))
        };
        paused.push((until - world.now) / MS);
    }
    assert_eq!(paused, [4, 8, 16, 32]);
    assert_eq!(world.moves().len(), 4);
}

#[test]
fn a_failure_that_was_a_refusal_does_not_count() {
    let mut world = World::busy(2);
    for _ in 0..9 {
        world.watch.lane_failed(1, world.now);
        world.watch.lane_was_refused(1);
    }
    world.watch.lane_failed(1, world.now);
    world.act();
    assert_eq!((world.moves().len(), world.loads_up()), (0, RailSet(0b11)));
    world.watch.lane_failed(1, world.now);
    world.act();
    assert_eq!((world.moves().len(), world.loads_up()), (1, RailSet(0b01)));
}

#[test]
fn the_last_rail_that_is_up_is_not_left_for_its_errors() {
    let mut world = World::busy(2);
    world.watch.port_down(0, 0);
    world.act();
    (0..5).for_each(|_| world.watch.lane_failed(1, 1));
    world.act();
    assert_eq!((world.moves().len(), world.loads_up()), (1, RailSet(0b10)));
}

#[test]
fn a_probe_that_is_answered_late_changes_nothing() {
    let mut world = World::busy(2);
    world.run_until(10 * MS);
    world.silent = RailSet(0b10);
    world.run_until(16 * MS);
    let asked = world.done.iter().rev().find_map(|(_, rail, action)| match (rail, action) {
        (1, RailAction::Probe(number)) => Some(*number),
        _ => None,
    });
    world.watch.probe_answered(1, asked.unwrap().wrapping_sub(1), world.now);
    assert_eq!((world.watch.latency(1), world.loads_up()), (5_000, RailSet(0b01)));
    world.watch.probe_answered(1, asked.unwrap(), world.now);
    world.act();
    assert_eq!(world.loads_up(), RailSet(0b01), "it was paused before");
    world.watch.probe_answered(7, 1, world.now);
    assert_eq!(world.watch.latency(7), 0);
}

#[test]
fn the_end_of_an_earlier_rebuild_changes_nothing() {
    let mut world = World::busy(2);
    for _ in 0..2 {
        world.watch.port_down(1, world.now);
        world.watch.port_up(1, world.now);
        let before = world.done.len();
        while !world.done[before..].iter().any(|of| matches!(of.2, RailAction::Rebuild(_))) {
            world.run_until(world.now + MS / 4);
        }
        world.coming.clear();
    }
    world.watch.rebuilt(1, 1, true, world.now);
    assert_eq!(world.loads_up(), RailSet(0b01));
    world.watch.rebuilt(1, 2, true, world.now);
    assert_eq!(world.loads_up(), RailSet(0b11));
}

#[test]
fn idle_rails_are_not_looked_at_until_a_submitter_wakes_the_task() {
    let mut world = World::new(2);
    assert_eq!(world.deadline(), Some(0), "once, for what began before there were two");
    world.run_until(1_000 * MS);
    assert!(world.looks <= 2 && world.deadline().is_none(), "{}", world.looks);
    let before = world.looks;
    world.set_busy(true);
    assert_eq!(world.looks, before + 1);
    assert!(!world.loads.wake_needed(), "the task looks");
    world.run_until(1_010 * MS);
    assert!((20..23).contains(&(world.looks - before)), "{}", world.looks - before);
    world.set_busy(false);
    world.run_until(2_000 * MS);
    assert_eq!(world.deadline(), None);
    assert!(world.loads.wake_needed());
    assert!(world.is_due(), "a submitter has woken it");
    world.watch.look(world.now, &world.counts);
    assert_eq!(world.deadline(), Some(world.now + MS / 2), "what it began has ended: one more look");
}

#[test]
fn what_was_begun_while_the_task_went_to_rest_is_seen() {
    let mut world = World::busy(2);
    world.run_until(5 * MS);
    world.set_busy(false);
    world.run_until(6 * MS);
    let (rest, at) = (world.watch.rest, world.deadline());
    assert!(matches!(rest, Rest::LastLook { .. } | Rest::Resting), "{rest:?}");
    // A submitter that has read the flag before it was set does not wake the task.
    let mut late = World::busy(2);
    late.run_until(5 * MS);
    late.counts = Default::default();
    while !late.loads.is_at_rest() {
        late.run_until(late.now + MS / 8);
    }
    late.counts[1].bytes_in_flight = 1 << 20;
    late.counts[1].in_flight = 1;
    late.run_until(late.now + MS);
    assert_eq!((late.watch.rest, at.is_some() || rest == Rest::Resting), (Rest::Looking, true));
}

#[test]
fn paused_rails_of_an_idle_connection_are_asked_ever_more_rarely() {
    let mut world = World::busy(2);
    world.run_until(10 * MS);
    world.silent = RailSet(0b10);
    world.run_until(20 * MS);
    assert_eq!(world.loads_up(), RailSet(0b01));
    world.set_busy(false);
    let before = world.done.len();
    world.run_until(60_000 * MS);
    let asked = world.done.len() - before;
    assert!((20..80).contains(&asked), "{asked}");
    world.silent = RailSet::default();
    world.run_until(64_000 * MS);
    assert_eq!(world.loads_up(), RailSet(0b11));
    assert_eq!(world.deadline(), None);
}

#[test]
fn probes_that_are_not_answered_keep_the_task_from_no_rest() {
    let mut world = World::busy(2);
    world.run_until(10 * MS);
    world.silent = RailSet(0b10);
    world.run_until(20 * MS);
    world.set_busy(false);
    world.counts[1].in_flight = 8;
    world.run_until(10_000 * MS);
    let before = world.looks;
    world.run_until(20_000 * MS);
    assert!(world.looks - before <= 22, "{}", world.looks - before);
}

#[test]
fn a_rail_alone_is_left_alone() {
    let mut world = World::busy(1);
    world.watch.port_down(0, 0);
    (0..9).for_each(|_| world.watch.lane_failed(0, 0));
    world.watch.look(MS, &world.counts);
    assert_eq!((world.deadline(), world.watch.next_action()), (None, None));
    assert_eq!((world.watch.state(0), world.loads_up()), (Some(RailState::Down), RailSet(0)));
    world.watch.port_up(0, MS);
    assert_eq!((world.watch.state(0), world.loads_up()), (Some(RailState::Up), RailSet(1)));
    world.watch.port_down(0, MS);
    world.now = MS;
    world.add(1);
    assert_eq!(world.moves(), [(MS, 0, PauseReason::PortDown)], "there is another one now");
    assert_eq!(world.loads_up(), RailSet(0b10));
    assert!(!world.watch.rail_added(1, SPEED, Arc::new(NicFlow::new(SPEED)), MS), "it is there");
}

#[test]
fn a_lost_device_stays_lost() {
    let mut world = World::busy(2);
    world.watch.device_lost(1, 0);
    world.watch.port_up(1, MS);
    world.act();
    assert_eq!((world.moves(), world.loads_up()), (vec![(0, 1, PauseReason::DeviceLost)], RailSet(1)));
    let mut alone = World::busy(1);
    alone.watch.device_lost(0, 0);
    alone.watch.port_up(0, MS);
    assert_eq!(alone.watch.state(0), Some(RailState::Down));
}

#[test]
fn a_rail_that_gets_nothing_because_its_path_was_long_is_measured_again() {
    let mut world = World::new(2);
    world.latencies[1] = 4 * MS;
    world.run_until(10 * MS);
    (0..8).for_each(|_| world.watch.rails[1].as_mut().unwrap().latency.answered(4 * MS));
    world.set_busy(true);
    (world.counts[1].in_flight, world.counts[1].bytes_in_flight) = (0, 0);
    world.latencies[1] = 5_000;
    let before = world.done.len();
    world.run_until(250 * MS);
    assert_eq!((world.watch.latency(1), world.moves()), (5_000, vec![]));
    let asked = world.done[before..].iter().filter(|of| of.1 == 1).count();
    assert_eq!(asked, 2, "each 100 ms");
}

#[test]
fn a_rail_that_comes_back_has_the_latency_of_its_path_now() {
    let mut world = World::new(2);
    world.run_until(10 * MS);
    assert_eq!(world.watch.latency(1), 5_000);
    world.watch.port_down(1, 10 * MS);
    world.latencies[1] = 2 * MS;
    world.watch.port_up(1, 20 * MS);
    world.run_until(60 * MS);
    assert_eq!((world.watch.state(1), world.watch.latency(1)), (Some(RailState::Up), 2 * MS));
}

/// Before there is a second rail the first one is not watched: it is there all the same, and what happens to it is remembered.
#[test]
fn the_only_rail_is_up_again_after_its_lanes_have_failed() {
    let up = |world: &World| world.loads.up();
    let mut world = World::new(0);
    assert_eq!(up(&world), RailSet(1));
    world.watch.lane_failed(0, 1);
    assert_eq!(up(&world), RailSet(1), "its lanes are rebuilt");
    world.watch.port_down(0, 2);
    assert_eq!(up(&world), RailSet(0));
    world.watch.port_up(0, 3);
    assert_eq!(up(&world), RailSet(1));
    world.watch.port_down(0, 4);
    (0..2).for_each(|rail| world.add(rail));
    assert_eq!(
        (up(&world), world.watch.state(0)),
        (RailSet(2), Some(RailState::Down)),
        "its port is down still"
    );
    world.watch.port_up(0, 5);
    world.run_until(1_000 * MS);
    assert_eq!(up(&world), RailSet(3));

    let mut world = World::new(0);
    world.watch.device_lost(0, 1);
    world.watch.port_up(0, 2);
    assert_eq!(up(&world), RailSet(0), "for good");
}
