//! Parts that leave a lane for one of another worker, as of another NIC.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

#[path = "failed_lane_tests.rs"]
mod failed_lanes;
#[path = "undrained_tests.rs"]
mod undrained;

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::fake_nic::FakeNic;
use super::tests::CAPS;
use super::*;
use crate::fabric::{CompletionStatus, Opcode, SoftwareOptions, software};
use crate::memory::Registry;
use crate::observe::{Amount, TransferSource, TransferTotals};
use crate::pool::{BreakCause, LaneHealth, LaneSetup, LaneStatus, TakenPart};
use crate::transfer::{CheckedIov, Cutter, SlicePolicy, TimeLimit, TransferRecord};

/// A worker with one lane, and its NIC.
struct Side {
    state: WorkerState,
    nic: FakeNic,
    pair: usize,
    lane: LaneKey,
    status: Arc<LaneStatus>,
    bit: usize,
    now: u64,
}

impl Side {
    fn new(bit: usize) -> Self {
        let nic = FakeNic::new(64);
        let limits = WorkerLimits { posted: 64, list: 16, poll: 16 };
        let counters = Arc::new(WorkerCounters::default());
        let mut state = WorkerState::new(nic.queue(), limits, counters, Arc::default());
        let status = Arc::new(LaneStatus::new(None));
        let (queue_pair, pair) = nic.pair(CAPS);
        let setup = LaneSetup { status: Arc::clone(&status), heals: true };
        let lane = state.add_lane(queue_pair, setup).unwrap();
        Self { state, nic, pair, lane, status, bit, now: 1 }
    }

    /// Begins a transfer of a request for each note.
    fn begin(&mut self, opcode: Opcode, notes: Range<u32>) -> &'static TransferRecord {
        self.begin_within(opcode, notes, TimeLimit::NEVER)
    }

    fn begin_within(
        &mut self,
        opcode: Opcode,
        notes: Range<u32>,
        limit: TimeLimit,
    ) -> &'static TransferRecord {
        let record = TransferRecord::lasting();
        record.start(1, limit);
        let mut list = RequestList::default();
        fill(&mut list, opcode, notes);
        self.state.adopt(Submission { lane: self.lane, owner: record, list, first: true, begun: 0 });
        record
    }

    /// Some time passes.
    fn step(&mut self) {
        self.now += 3;
        self.state.step_at(self.now);
    }

    /// The NIC carries out the next requests.
    fn run(&mut self, count: usize) {
        self.nic.state().run(self.pair, count);
        self.step();
    }

    fn break_lane(&mut self) {
        self.state.break_lane(self.lane, "test");
        self.step();
    }

    fn heal(&mut self) {
        let (queue_pair, pair) = self.nic.pair(CAPS);
        if self.state.heal_lane(self.lane, queue_pair).is_ok() {
            self.pair = pair;
        }
        self.step();
    }

    fn take(&mut self) -> Vec<TakenPart> {
        self.state.take_parts(self.lane, None)
    }

    fn put(&mut self, parts: Vec<TakenPart>) -> Vec<TakenPart> {
        let mut parts = parts;
        parts.iter_mut().for_each(TakenPart::count_move);
        self.put_back(parts)
    }

    fn put_back(&mut self, parts: Vec<TakenPart>) -> Vec<TakenPart> {
        parts.into_iter().filter_map(|part| self.state.put_part(self.lane, part, self.bit).err()).collect()
    }

    fn bytes(&self) -> (u64, u64) {
        self.status.counts.bytes()
    }
}

fn fill(list: &mut RequestList, opcode: Opcode, notes: Range<u32>) {
    let mut cutter = Cutter::new(list, SlicePolicy::new(1 << 20, 0, 1 << 30, 4, 0), opcode, notes.len());
    for note in notes {
        let (local, remote) = (0x1000 * u64::from(note + 1), 0x2000 * u64::from(note + 1));
        let chunk = CheckedIov { local, remote, length: 64, lkey: 1, rkey: 1, readable: true, iov: note };
        cutter.push(&chunk).unwrap();
    }
}

/// Many parts wait on a lane, none of which another rail can take.
#[test]
fn many_parts_are_put_back_in_their_order_without_a_search() {
    let mut side = Side::new(0);
    side.break_lane();
    let notes: Vec<_> = (0..40_000).map(|note| side.begin(Opcode::Write, note..note + 1)).collect();
    let taken = side.state.take_unposted(side.lane);
    assert_eq!(taken.len(), notes.len());
    let begin = std::time::Instant::now();
    assert!(side.put(taken).is_empty());
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}: 800 million steps of a search take longer");
    let again = side.state.take_unposted(side.lane);
    let addresses: Vec<_> = again.iter().map(|part| part.list.requests()[0].remote_address).collect();
    assert!(addresses.is_sorted() && addresses.len() == notes.len());
    assert!(side.put(again).is_empty());
    side.state.fail_waiting(side.lane.index(), EndState::Cancelled, "");
    assert!(notes.iter().all(|record| record.is_ended()));
}

/// The READ that flushes says nothing of what another NIC has written.
#[test]
fn what_flushes_gpu_memory_begins_anew_on_another_nic() {
    let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
    for (flushes, elsewhere) in [(false, 2), (true, 0)] {
        let mut from = Side::new(0);
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        let mut list = RequestList::default();
        fill(&mut list, Opcode::Write, 0..4);
        if flushes {
            let (landing, hold) = registry.gpu_flush_landing().unwrap();
            assert!(list.append_gpu_flush((0x2000, 1), 0, landing, hold));
        }
        from.state.adopt(Submission { lane: from.lane, owner: record, list, first: true, begun: 0 });
        from.run(2);
        from.break_lane();
        let parts = from.take();
        assert_eq!((parts[0].from, parts[0].first_elsewhere()), (2, elsewhere));
        for part in parts {
            from.state.end_taken(from.lane, part, EndState::Failed, "test");
        }
        assert!(record.is_ended());
    }
}

fn totals(sides: &[&Side]) -> TransferTotals {
    let mut totals = TransferTotals::default();
    sides.iter().for_each(|side| side.status.counts.add_ended(&mut totals));
    sides.iter().for_each(|side| side.status.counts.add_started(&mut totals));
    totals
}

fn outcome(record: &TransferRecord) -> Option<EndState> {
    record.is_ended().then(|| record.end_state())
}

#[test]
fn a_part_goes_on_elsewhere_behind_what_was_done() {
    let (mut from, mut to) = (Side::new(0), Side::new(9));
    let record = from.begin(Opcode::Write, 0..6);
    from.run(3);
    assert!(from.take().is_empty(), "of a healthy lane");
    from.break_lane();
    assert_eq!((from.status.health(), from.bytes()), (LaneHealth::Drained, (384, 0)));
    let parts = from.take();
    assert_eq!((parts.len(), parts[0].from, from.state.part_count(), from.state.unposted), (1, 3, 0, 0));
    assert_eq!((from.bytes(), from.status.counts.is_idle()), ((0, 0), true));
    assert!(to.put(parts).is_empty());
    assert_eq!((to.bytes(), to.status.counts.is_idle()), ((384, 0), false));
    to.run(6);
    assert_eq!(outcome(record), Some(EndState::Done));
    assert_eq!((from.nic.state().done.len(), to.nic.state().done.clone()), (3, [3, 4, 5].into()));
    assert_eq!((to.bytes(), from.status.requests(), to.status.requests()), ((384, 384), (6, 0), (3, 0)));
    let mut totals = totals(&[&from, &to]);
    let once = Amount { transfers: 1, bytes: 384 };
    let counted = totals.of(Direction::Write, "none");
    assert_eq!((counted.started, counted.ended[0]), (once, once));
    assert_eq!((from.status.counts.retries(), totals.in_flight()), (1, Amount::default()));
}

#[test]
fn parts_are_chosen_by_what_they_do_and_by_what_was_posted() {
    let mut side = Side::new(0);
    side.nic.state().silent = true;
    let posted = side.begin(Opcode::Write, 0..16);
    let (read, write) = (side.begin(Opcode::Read, 20..22), side.begin(Opcode::Write, 30..32));
    side.break_lane();
    assert!(side.take().is_empty(), "not drained");
    let owners = |parts: &[TakenPart]| -> Vec<_> {
        parts.iter().map(|part| std::ptr::from_ref(part.owner).addr()).collect()
    };
    let of = |record: &TransferRecord| std::ptr::from_ref(record).addr();
    let unposted = side.state.take_unposted(side.lane);
    assert_eq!(owners(&unposted), [of(read), of(write)]);
    assert!(side.put(unposted).is_empty(), "it waits for its rebuild");
    side.nic.state().fail(side.pair, CompletionStatus::RetryExceeded);
    side.step();
    assert_eq!(side.status.health(), LaneHealth::Drained);
    let reads = side.state.take_parts(side.lane, Some(Opcode::Read));
    assert_eq!(owners(&reads), [of(read)]);
    assert_eq!(owners(&side.state.take_unposted(side.lane)), [of(write)], "the other one was interrupted");
    assert_eq!(owners(&side.take()), [of(posted)]);
    // What is not put anywhere never ends.
    assert_eq!((outcome(read), side.bytes(), side.state.part_count()), (None, (0, 0), 0));
}

#[test]
fn transfers_that_are_to_end_end_where_they_are() {
    let mut side = Side::new(0);
    let cancelled = side.begin(Opcode::Write, 0..2);
    let late = side.begin_within(Opcode::Write, 2..4, TimeLimit::new(Duration::from_millis(1)));
    let fine = side.begin(Opcode::Write, 4..6);
    side.break_lane();
    cancelled.condemn(EndState::Cancelled);
    // Its time began long ago.
    late.is_late(clock::ms(clock::now_ns()).saturating_sub(5));
    while !late.is_late(clock::ms(clock::now_ns())) {}
    assert_eq!(side.take().len(), 1);
    let outcomes = [cancelled, late, fine].map(outcome);
    assert_eq!(outcomes, [Some(EndState::Cancelled), Some(EndState::TimedOut), None]);
    assert_eq!((side.bytes(), totals(&[&side]).in_flight().transfers), ((256, 256), 1));
}

#[test]
fn one_that_is_cancelled_on_the_way_ends_where_it_comes() {
    let (mut from, mut to) = (Side::new(0), Side::new(8));
    let record = from.begin(Opcode::Read, 0..2);
    from.break_lane();
    let parts = from.take();
    record.condemn(EndState::Cancelled);
    assert!(outcome(record).is_none() && to.put(parts).is_empty());
    assert_eq!((outcome(record), to.bytes()), (Some(EndState::Cancelled), (128, 128)));
    assert_eq!((to.nic.state().done.len(), to.state.part_count(), to.state.unposted), (0, 0, 0));
}

#[test]
fn a_lane_that_takes_none_gives_a_part_back_and_its_own_takes_it() {
    let (mut from, mut to) = (Side::new(0), Side::new(8));
    let record = from.begin(Opcode::Write, 0..2);
    from.break_lane();
    assert!(to.state.close_lane(to.lane, EndState::Failed, "test").is_closed());
    let back = to.put(from.take());
    assert_eq!((back.len(), to.bytes(), outcome(record)), (1, (0, 0), None));
    assert!(from.put(back).is_empty());
    from.heal();
    from.run(2);
    assert_eq!(
        (outcome(record), from.bytes(), from.nic.state().done.len()),
        (Some(EndState::Done), (128, 128), 2)
    );
}

#[test]
fn a_part_that_no_lane_takes_ends_as_it_is_told_and_is_counted_once() {
    let states = [EndState::Failed, EndState::Cancelled];
    for (is_gone, state) in [false, true].into_iter().flat_map(|is_gone| states.map(|state| (is_gone, state)))
    {
        let mut side = Side::new(0);
        let record = side.begin(Opcode::Write, 0..2);
        side.break_lane();
        let parts = side.take();
        if is_gone {
            assert!(side.state.close_lane(side.lane, EndState::Failed, "test").is_closed());
        }
        parts.into_iter().for_each(|part| side.state.end_taken(side.lane, part, state, "no rail"));
        assert_eq!(outcome(record), Some(state));
        if state == EndState::Failed {
            assert_eq!(record.failure().unwrap().reason, "no rail");
        }
        let mut totals = totals(&[&side]);
        let ended = totals.of(Direction::Write, "none").ended[state as usize];
        assert_eq!((ended, side.bytes()), (Amount { transfers: 1, bytes: 128 }, (128, 128)));
    }
}

#[test]
fn parts_stand_in_the_order_of_their_age() {
    let (mut from, mut to) = (Side::new(0), Side::new(8));
    let moved = from.begin(Opcode::Write, 0..1);
    from.state.step_at(200);
    from.break_lane();
    let oldest = to.begin(Opcode::Write, 1..2);
    to.state.step_at(100);
    let young = to.begin(Opcode::Write, 2..3);
    to.state.step_at(300);
    let youngest = to.begin(Opcode::Write, 3..4);
    let parts = from.take();
    assert_eq!(parts[0].since, 200);
    assert!(to.put(parts).is_empty());
    let mut found = Vec::new();
    to.state.unfinished(to.lane, Duration::ZERO, &mut found);
    let owners: Vec<_> = found.iter().map(|part| part.owner).collect();
    assert_eq!(owners, [oldest, moved, young, youngest].map(|record| std::ptr::from_ref(record).addr()));
}

#[test]
fn interruptions_and_times_go_along() {
    let mut sides = [Side::new(0), Side::new(8)];
    let record = sides[0].begin(Opcode::Write, 0..2);
    let mut begun = None;
    for move_number in 0..3 {
        let [from, to] = &mut sides;
        assert_eq!(from.nic.state().done.len(), 0);
        from.break_lane();
        let parts = from.take();
        assert_eq!(parts[0].interruptions, move_number + 1);
        assert_eq!(*begun.get_or_insert(parts[0].begun), parts[0].begun);
        assert!(to.put(parts).is_empty());
        from.heal();
        sides.swap(0, 1);
    }
    assert!(begun.unwrap() > 0 && begun.unwrap() <= quick_clock::now_ns());
    // The lanes that it had before have failed, not this one: it may be interrupted here as often as one that never moved.
    for interruption in 0..3 {
        sides[0].break_lane();
        assert_eq!(outcome(record), None, "{interruption}");
        sides[0].heal();
    }
    sides[0].break_lane();
    assert_eq!(outcome(record), Some(EndState::Failed), "interrupted more often than is allowed");
    assert!(totals(&[&sides[0], &sides[1]]).in_flight() == Amount::default());
}

#[test]
fn a_part_that_is_put_back_may_not_be_interrupted_more_often() {
    let mut side = Side::new(0);
    let record = side.begin(Opcode::Write, 0..2);
    for _ in 0..3 {
        side.break_lane();
        let parts = side.take();
        assert_eq!(parts.len(), 1);
        assert!(side.put_back(parts).is_empty());
        side.heal();
    }
    side.break_lane();
    assert_eq!(outcome(record), Some(EndState::Failed));
}

#[derive(Clone, Debug)]
enum Step {
    Begin(Opcode, u32),
    Run(usize),
    Break,
    Heal,
    Move { reads: bool },
    Unposted,
    Cancel(prop::sample::Index),
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let opcode = prop_oneof![Just(Opcode::Write), Just(Opcode::Read)];
    let step = prop_oneof![
        4 => (opcode, 1_u32..24).prop_map(|(opcode, count)| Step::Begin(opcode, count)),
        4 => (1_usize..12).prop_map(Step::Run),
        2 => Just(Step::Break),
        2 => Just(Step::Heal),
        2 => any::<bool>().prop_map(|reads| Step::Move { reads }),
        1 => Just(Step::Unposted),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
    ];
    (0_usize..2, step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever breaks and moves when: each request of a transfer that is done was carried out once, all transfers end, and what is
    /// counted of both lanes is what was begun and what ended.
    #[test]
    fn nothing_is_lost_done_twice_or_counted_twice(steps in prop::collection::vec(step(), 1..60)) {
        let mut sides = [Side::new(0), Side::new(8)];
        let (mut records, mut next) = (Vec::new(), 0);
        let settle = |sides: &mut [Side; 2]| {
            for side in sides.iter_mut() {
                side.heal();
                (0..40).for_each(|_| side.run(16));
            }
        };
        for (at, step) in steps {
            let side = &mut sides[at];
            match step {
                Step::Begin(opcode, count) => {
                    records.push((side.begin(opcode, next..next + count), next..next + count));
                    next += count;
                }
                Step::Run(count) => side.run(count),
                Step::Break => side.break_lane(),
                Step::Heal => side.heal(),
                Step::Cancel(index) => {
                    let of = (!records.is_empty()).then(|| index.get(&records).0);
                    of.filter(|record| !record.is_ended()).map(|record| record.condemn(EndState::Cancelled));
                    side.state.early_ends.note();
                }
                Step::Move { .. } | Step::Unposted => {
                    let parts = match step {
                        Step::Move { reads: true } => side.state.take_parts(side.lane, Some(Opcode::Read)),
                        Step::Move { .. } => side.take(),
                        _ => side.state.take_unposted(side.lane),
                    };
                    prop_assert!(sides[1 - at].put(parts).is_empty());
                }
            }
            let bytes = |side: &Side| side.bytes().0 - side.bytes().1;
            prop_assert_eq!(bytes(&sides[0]) + bytes(&sides[1]), totals(&[&sides[0], &sides[1]]).in_flight().bytes);
            for side in &mut sides {
                let outstanding = side.state.outstanding();
                prop_assert_eq!(side.status.requests().1, outstanding);
                prop_assert_eq!(bytes(side) > 0, side.state.part_count() > 0);
            }
        }
        settle(&mut sides);
        let [first, second] = sides.each_ref().map(|side| side.nic.state().done.clone());
        let (mut done, mut bytes) = (0, 0);
        for (record, notes) in records {
            let state = outcome(record);
            prop_assert!(state.is_some());
            if state == Some(EndState::Done) {
                prop_assert!(notes.clone().all(|note| first.contains(&note) != second.contains(&note)));
                (done, bytes) = (done + 1, bytes + 64 * u64::from(notes.end - notes.start));
            }
        }
        let all = totals(&[&sides[0], &sides[1]]);
        prop_assert_eq!(all.in_flight(), Amount::default());
        let ended = all.iter().fold(Amount::default(), |mut sum, (_, _, totals)| {
            sum += totals.ended[0];
            sum
        });
        prop_assert_eq!(ended, Amount { transfers: done, bytes });
    }
}
