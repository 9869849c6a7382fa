//! What a lane says of why it is broken: it has failed, this end has stopped it, or a request was refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;

use super::fake_nic::FakeNic;
use super::tests::{CAPS, fill};
use super::*;
use crate::fabric::CompletionStatus;
use crate::pool::{BreakCause, LaneHealth, LaneSetup, LaneStatus};
use crate::transfer::{TimeLimit, TransferRecord};

/// A worker with one lane, on which a transfer of one request is under way.
struct Bench {
    state: WorkerState,
    nic: FakeNic,
    pair: usize,
    lane: LaneKey,
    status: Arc<LaneStatus>,
    record: &'static TransferRecord,
}

impl Bench {
    fn new() -> Self {
        let nic = FakeNic::new(64);
        let limits = WorkerLimits { posted: 64, list: 16, poll: 16 };
        let counters = Arc::new(WorkerCounters::default());
        let mut state = WorkerState::new(nic.queue(), limits, counters, Arc::default());
        let status = Arc::new(LaneStatus::new(None));
        let (queue_pair, pair) = nic.pair(CAPS);
        let lane =
            state.add_lane(queue_pair, LaneSetup { status: Arc::clone(&status), heals: true }).unwrap();
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        let mut list = RequestList::default();
        fill(&mut list, 4096);
        state.adopt(Submission { lane, owner: record, list, first: true, begun: 0 });
        let mut bench = Self { state, nic, pair, lane, status, record };
        bench.step();
        bench
    }

    fn step(&mut self) {
        self.state.step_at(1);
    }

    /// The request ends like this.
    fn end(&mut self, status: CompletionStatus) {
        self.nic.state().fail(self.pair, status);
        self.step();
    }

    /// Why the lane is broken, which it is.
    fn cause(&self) -> BreakCause {
        assert_ne!(self.status.health(), LaneHealth::Healthy);
        self.status.break_cause()
    }
}

#[test]
fn only_a_request_that_was_refused_says_that_the_path_works() {
    let refusals = [1, 4, 9, 10, 11];
    for code in [1, 2, 4, 5, 7, 9, 10, 11, 12, 13, 19, 21] {
        let mut bench = Bench::new();
        let status = CompletionStatus::from_code(code);
        bench.end(status);
        let is_refusal = bench.cause() == BreakCause::Refusal;
        assert_eq!(is_refusal, refusals.contains(&code), "{status}");
        assert!(is_refusal || bench.cause() == BreakCause::Failure, "{status}");
        if is_refusal {
            assert_eq!(bench.record.end_state(), EndState::Failed, "{status}");
        }
        bench.state.heal_lane(bench.lane, bench.nic.pair(CAPS).0).unwrap();
        assert_eq!(bench.status.health(), LaneHealth::Healthy, "{status}: rebuilt as ever");
    }
}

#[test]
fn a_lane_that_has_refused_a_request_of_the_peer_has_not_failed() {
    for has_refused in [false, true] {
        let expected = if has_refused { BreakCause::Refusal } else { BreakCause::Failure };
        let mut bench = Bench::new();
        bench.nic.state().refused = has_refused;
        bench.nic.state().break_silently(bench.pair);
        bench.state.notice_broken(bench.lane, "test");
        assert_eq!(bench.cause(), expected);
        let mut bench = Bench::new();
        bench.nic.state().refused = has_refused;
        bench.end(CompletionStatus::Flushed);
        assert_eq!(bench.cause(), expected);
    }
}

/// The event of a device may come behind the flushes that it explains.
#[test]
fn what_seemed_to_be_a_failure_may_turn_out_to_be_a_refusal() {
    let mut bench = Bench::new();
    bench.end(CompletionStatus::Flushed);
    assert_eq!(bench.cause(), BreakCause::Failure);
    bench.nic.state().refused = true;
    bench.state.notice_broken(bench.lane, "test");
    assert_eq!(bench.cause(), BreakCause::Refusal);
    let mut bench = Bench::new();
    bench.state.break_lane(bench.lane, "test");
    bench.nic.state().refused = true;
    bench.state.notice_broken(bench.lane, "test");
    assert_eq!(bench.cause(), BreakCause::ThisEnd, "nothing was refused before that");
}
