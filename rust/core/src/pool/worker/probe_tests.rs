//! Probes of lanes that have nothing under way, and lanes that have no queue pair yet.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::fake_nic::{FakeNic, PROBE};
use super::tests::{CAPS, fill};
use super::*;
use crate::pool::{LaneHealth, LaneSetup, LaneStatus, LaneWatcher, ProbeError};
use crate::transfer::{TimeLimit, TransferRecord};

#[derive(Debug, Default)]
struct Calls(AtomicU32);

impl LaneWatcher for Calls {
    fn lane_changed(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Bench {
    state: WorkerState,
    nic: FakeNic,
    calls: Arc<Calls>,
}

impl Bench {
    fn new() -> Self {
        let nic = FakeNic::new(64);
        let limits = WorkerLimits { posted: 64, list: 16, poll: 16 };
        let state =
            WorkerState::new(nic.queue(), limits, Arc::new(WorkerCounters::default()), Arc::default());
        Self { state, nic, calls: Arc::default() }
    }

    fn calls(&self) -> u32 {
        self.calls.0.swap(0, Ordering::Relaxed)
    }

    fn lane(&mut self) -> (LaneKey, Arc<LaneStatus>) {
        let status = Arc::new(LaneStatus::new(Some(Arc::clone(&self.calls) as Arc<dyn LaneWatcher>)));
        let setup = LaneSetup { status: Arc::clone(&status), heals: true };
        (self.state.add_lane(self.nic.pair(CAPS).0, setup).unwrap(), status)
    }

    fn begin(&mut self, lane: LaneKey) -> &'static TransferRecord {
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        let mut list = RequestList::default();
        fill(&mut list, 4096);
        self.state.adopt(Submission { lane, owner: record, list, first: true, begun: 0 });
        record
    }
}

const REMOTE: (u64, u32) = (0x1000, 7);

#[test]
fn an_answer_is_told_and_counts_as_no_request() {
    let mut bench = Bench::new();
    let (lane, status) = bench.lane();
    assert_eq!((status.probe_answered(), bench.state.post_probe(lane, 41, REMOTE)), (0, Ok(())));
    assert_eq!(bench.state.post_probe(lane, 42, REMOTE), Err(ProbeError::Busy), "one at a time");
    bench.state.step_at(1);
    assert_eq!((status.requests(), bench.state.outstanding(), bench.calls()), ((0, 1), 1, 0));
    // A part may come behind it.
    let record = bench.begin(lane);
    bench.nic.state().run(0, 2);
    bench.state.step_at(1);
    assert_eq!((status.probe_answered(), bench.calls()), (41, 1));
    assert!(record.is_ended() && record.end_state() == EndState::Done);
    assert_eq!((status.requests(), bench.state.outstanding()), ((1, 0), 0));
    assert!(bench.nic.state().done.contains(&PROBE));
    assert_eq!(bench.state.post_probe(lane, 43, REMOTE), Ok(()));
}

#[test]
fn only_an_idle_lane_is_probed_and_a_failure_breaks_it() {
    let mut bench = Bench::new();
    let (lane, status) = bench.lane();
    let record = bench.begin(lane);
    assert_eq!(bench.state.post_probe(lane, 1, REMOTE), Err(ProbeError::Busy));
    bench.nic.state().run(0, 1);
    bench.state.step_at(1);
    assert!(record.is_ended());
    assert_eq!(bench.state.post_probe(lane, 2, REMOTE), Ok(()));
    let behind = bench.begin(lane);
    bench.nic.state().fail(0, CompletionStatus::RetryExceeded);
    bench.state.step_at(1);
    assert_eq!((status.health(), status.probe_answered()), (LaneHealth::Drained, 0));
    assert!(status.reason().contains("retries"), "{}", status.reason());
    assert_eq!((status.requests(), bench.state.outstanding(), behind.is_ended()), ((2, 0), 0, false));
    assert_eq!(bench.state.post_probe(lane, 3, REMOTE), Err(ProbeError::Down));
    assert!(bench.state.heal_lane(lane, bench.nic.pair(CAPS).0).is_ok());
    bench.state.step_at(2);
    bench.nic.state().run(1, 1);
    bench.state.step_at(1);
    assert!(behind.is_ended() && behind.end_state() == EndState::Done, "it was interrupted only");
}

/// A probe that is never answered holds no lane for ever.
#[test]
fn a_lane_with_a_silent_probe_drains_or_is_destroyed() {
    let mut bench = Bench::new();
    let (lane, status) = bench.lane();
    bench.nic.state().silent = true;
    assert_eq!(bench.state.post_probe(lane, 1, REMOTE), Ok(()));
    bench.state.break_lane(lane, "test");
    bench.state.step_at(10);
    assert_eq!((status.health(), bench.state.outstanding()), (LaneHealth::Broken, 1));
    bench.state.step_at(4000);
    assert_eq!((status.health(), bench.state.outstanding()), (LaneHealth::Closed, 0));
    assert_eq!((status.requests().1, status.probe_answered()), (0, 0));
}

#[test]
fn a_refused_probe_breaks_its_lane_and_a_full_queue_does_not() {
    let mut bench = Bench::new();
    let (lane, status) = bench.lane();
    bench.nic.state().refuse(0, Some((0, libc::ENOMEM)));
    assert_eq!(bench.state.post_probe(lane, 1, REMOTE), Err(ProbeError::Busy));
    assert_eq!(status.health(), LaneHealth::Healthy);
    bench.nic.state().refuse(0, Some((0, libc::EINVAL)));
    assert_eq!(bench.state.post_probe(lane, 1, REMOTE), Err(ProbeError::Refused(libc::EINVAL)));
    assert_eq!((status.health(), bench.state.outstanding()), (LaneHealth::Drained, 0));
}

#[test]
fn a_lane_without_a_queue_pair_waits_for_its_first_one() {
    let mut bench = Bench::new();
    let status = Arc::new(LaneStatus::absent(None));
    assert_eq!((status.health(), status.was_made()), (LaneHealth::Drained, false));
    let setup = LaneSetup { status: Arc::clone(&status), heals: true };
    let lane = bench.state.add_absent_lane(setup).unwrap();
    assert_eq!(
        (status.health(), status.was_made(), &*status.reason()),
        (LaneHealth::Drained, false, "not made yet")
    );
    bench.state.notice_broken(lane, "test");
    bench.state.break_lane(lane, "test");
    assert_eq!((status.health(), bench.state.is_drained(lane)), (LaneHealth::Drained, true));
    assert_eq!(bench.state.post_probe(lane, 1, REMOTE), Err(ProbeError::Down));
    let waits = bench.begin(lane);
    bench.state.step_at(1);
    assert!(!waits.is_ended());
    for rebuilds in 0..2 {
        assert!(bench.state.heal_lane(lane, bench.nic.pair(CAPS).0).is_ok());
        assert_eq!((status.was_made(), status.counts.rebuilds()), (true, rebuilds));
        assert_eq!((status.health(), &*status.reason()), (LaneHealth::Healthy, ""));
        bench.state.break_lane(lane, "test");
        bench.state.step_at(1);
    }
    assert!(bench.state.heal_lane(lane, bench.nic.pair(CAPS).0).is_ok());
    bench.state.step_at(2);
    bench.nic.state().run(2, 1);
    bench.state.step_at(1);
    assert!(waits.is_ended() && waits.end_state() == EndState::Done);
}

#[test]
fn a_lane_without_a_queue_pair_closes_at_once() {
    let mut bench = Bench::new();
    let status = Arc::new(LaneStatus::absent(None));
    let lane = bench.state.add_absent_lane(LaneSetup { status: Arc::clone(&status), heals: true }).unwrap();
    let waits = bench.begin(lane);
    assert!(bench.state.close_lane(lane, EndState::Cancelled, "closed").is_closed());
    assert_eq!((status.health(), waits.end_state()), (LaneHealth::Closed, EndState::Cancelled));
    assert!(waits.is_ended() && !bench.state.has_lanes());
    let refusing = LaneSetup { status: Arc::new(LaneStatus::absent(None)), heals: false };
    let lane = bench.state.add_absent_lane(refusing).unwrap();
    let refused = bench.begin(lane);
    assert!(refused.is_ended() && refused.end_state() == EndState::Failed, "as on any drained lane");
}
