//! Which transfers are counted as slow: each that took longer than a millisecond, whatever steps, looks and pauses there are.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use proptest::collection::vec;
use proptest::prelude::*;

use super::fake_nic::FakeNic;
use super::tests::{CAPS, fill};
use super::*;
use crate::fabric::CompletionStatus;
use crate::pool::quick_clock::played;
use crate::pool::{LaneKey, LaneSetup, LaneStatus, transfer_begins};
use crate::transfer::{TimeLimit, TransferRecord};

const MILLISECOND: u64 = 1_000_000;

/// Transfers that begin and end together.
#[derive(Clone, Debug)]
struct Plan {
    /// The program does something else before them.
    pause: u64,
    /// How many there are.
    transfers: usize,
    /// How many parts each has. One part is begun by the caller; several go through queues, where they wait so long.
    parts: u32,
    queued: u64,
    /// Until they end: time passes, and the worker makes so many steps.
    phases: Vec<(u64, usize)>,
}

impl Plan {
    fn took(&self) -> u64 {
        let queued = if self.parts == 1 { 0 } else { self.queued };
        queued + self.phases.iter().map(|(passes, _)| passes).sum::<u64>()
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let pause = prop_oneof![3 => 0..2000_u64, 1 => 0..MILLISECOND, 1 => 0..20 * MILLISECOND];
    // Sums near a millisecond are frequent.
    let passes = prop_oneof![0..2000_u64, 0..400_000_u64, 300_000..370_000_u64, 0..3 * MILLISECOND];
    let phases = vec((passes, 0..40_usize), 0..5);
    let parts = prop_oneof![3 => Just(1_u32), 1 => 2..4_u32];
    (pause, 1..5_usize, parts, 0..2 * MILLISECOND, phases).prop_map(
        |(pause, transfers, parts, queued, phases)| Plan { pause, transfers, parts, queued, phases },
    )
}

struct Bench {
    state: WorkerState,
    nic: FakeNic,
    lane: LaneKey,
    counters: Arc<WorkerCounters>,
    now: u64,
    completed: usize,
}

impl Bench {
    fn new() -> Self {
        let (nic, counters) = (FakeNic::new(64), Arc::new(WorkerCounters::default()));
        nic.state().silent = true;
        let limits = WorkerLimits { posted: 64, list: 16, poll: 16 };
        let mut state = WorkerState::new(nic.queue(), limits, Arc::clone(&counters), Arc::default());
        let setup = LaneSetup { status: Arc::new(LaneStatus::new(None)), heals: true };
        let lane = state.add_lane(nic.pair(CAPS).0, setup).unwrap();
        let mut bench = Self { state, nic, lane, counters, now: 0, completed: 0 };
        bench.pass(5 * MILLISECOND);
        bench
    }

    fn pass(&mut self, nanoseconds: u64) {
        self.now += nanoseconds;
        played::set(self.now);
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| {
            self.state.step();
        });
    }

    /// Begins a part that the caller posts itself, or has handed over then.
    fn begin(&mut self, record: &'static TransferRecord, first: bool, begun: u64) {
        if begun == 0 {
            let (index, list, _) = self.state.acquire_part(self.lane).unwrap();
            fill(list, 4096);
            self.state.start_part(self.lane, index, record, first, 0);
        } else {
            let mut list = RequestList::default();
            fill(&mut list, 4096);
            self.state.adopt(Submission { lane: self.lane, owner: record, list, first, begun });
        }
    }

    fn run(&mut self, plan: &Plan) {
        self.pass(plan.pause);
        let begun = if plan.parts == 1 { 0 } else { transfer_begins() };
        self.pass(if plan.parts == 1 { 0 } else { plan.queued });
        let records: Vec<_> = (0..plan.transfers).map(|_| TransferRecord::lasting()).collect();
        for record in &records {
            record.start(plan.parts, TimeLimit::NEVER);
            (0..plan.parts).for_each(|part| self.begin(record, part == 0, begun));
        }
        for (passes, steps) in &plan.phases {
            self.pass(*passes);
            self.steps(*steps);
        }
        for _ in 0..plan.transfers * plan.parts as usize {
            self.nic.state().complete_posted(self.completed, CompletionStatus::Success);
            self.completed += 1;
        }
        self.steps(1);
        assert!(records.iter().all(|record| record.is_ended()));
    }

    fn counted(&self) -> u64 {
        self.counters.slow_latency().snapshot().count()
    }
}

fn transfers(plans: &[Plan], longer_than: u64) -> u64 {
    plans.iter().filter(|plan| plan.took() > longer_than).map(|plan| plan.transfers as u64).sum()
}

proptest! {
    /// After a long row without a pause, when nothing is looked at closely.
    #[test]
    fn each_transfer_of_more_than_a_millisecond_is_counted(plans in vec(plan(), 1..12)) {
        let mut bench = Bench::new();
        bench.steps(16);
        for plan in &plans {
            bench.state.slow_clock.look_seldom();
            bench.run(plan);
        }
        bench.steps(16);
        let slow = transfers(&plans, MILLISECOND);
        prop_assert!(bench.counted() >= slow, "{} of {slow}", bench.counted());
    }

    /// After a pause no other is.
    #[test]
    fn and_of_the_others_none_that_took_less_than_seven_tenths(plans in vec(plan(), 1..12)) {
        let mut bench = Bench::new();
        plans.iter().for_each(|plan| bench.run(plan));
        bench.steps(16);
        let (slow, most) = (transfers(&plans, MILLISECOND), transfers(&plans, 700_000));
        prop_assert!((slow..=most).contains(&bench.counted()), "{} of {slow} to {most}", bench.counted());
    }
}

#[test]
fn a_transfer_that_no_lane_takes_is_counted_with_the_time_that_it_has_waited() {
    let mut bench = Bench::new();
    assert!(bench.state.close_lane(bench.lane, EndState::Failed, "test").is_closed());
    for waits in [MILLISECOND / 2, 2 * MILLISECOND] {
        let (record, begun) = (TransferRecord::lasting(), transfer_begins());
        record.start(1, TimeLimit::NEVER);
        bench.pass(waits);
        bench.begin(record, true, begun);
        assert!(record.is_ended());
    }
    assert_eq!(bench.counted(), 1);
}
