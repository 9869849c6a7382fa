//! A worker over copy streams, which nothing can stop: deadlines, closing, and contexts that are lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::fabric::gpu::{GpuCompletionQueue, GpuWorkQueue, key};
use crate::fabric::{Access, Opcode, SoftwareOptions, software};
use crate::gpu::{GpuError, PlayedStreams};
use crate::memory::{MemoryKind, Region, Registry};
use crate::pool::{LaneHealth, LaneSetup, LaneStatus};
use crate::transfer::{CheckedIov, Cutter, SlicePolicy, TimeLimit, TransferRecord};

struct Bench {
    state: WorkerState,
    streams: PlayedStreams,
    lane: LaneKey,
    status: Arc<LaneStatus>,
    region: Arc<Region>,
    _registry: Registry,
    _memory: Vec<u8>,
}

impl Bench {
    /// A lane of `depth` requests.
    fn new(depth: u32) -> Self {
        let memory = vec![0_u8; 4096];
        let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
        let range = (memory.as_ptr().expose_provenance() as u64, 4096);
        let id = registry.register(range, MemoryKind::Host, Access::FULL, true, None, None).unwrap();
        let region = Arc::clone(registry.snapshot().by_id(id).unwrap());
        let streams = PlayedStreams::default();
        let queue = GpuCompletionQueue::new(64).unwrap();
        let open = streams.clone();
        let pair = GpuWorkQueue::new(queue.streams(), depth, 1, Box::new(move || open.open())).unwrap();
        let limits = WorkerLimits { posted: 64, list: 16, poll: 16 };
        let mut state = WorkerState::new(Box::new(queue), limits, Arc::default(), Arc::default());
        let status = Arc::new(LaneStatus::new(None));
        let setup = LaneSetup { status: Arc::clone(&status), heals: true };
        let lane = state.add_lane(Box::new(pair), setup).unwrap();
        Self { state, streams, lane, status, region, _registry: registry, _memory: memory }
    }

    /// A transfer of one copy, which holds the region.
    fn begin(&mut self, limit: TimeLimit) -> &'static TransferRecord {
        let record = TransferRecord::lasting();
        record.start(1, limit);
        let region = Arc::clone(&self.region);
        let mut list = RequestList::default();
        list.holds.extend(region.hold());
        let policy = SlicePolicy::new(1 << 20, 0, 1 << 30, 1, 0);
        let (local, remote) = (region.address, 4096);
        let chunk =
            CheckedIov { local, remote, length: 64, lkey: 0, rkey: key(true, 0), readable: false, iov: 0 };
        Cutter::new(&mut list, policy, Opcode::Write, 1).push(&chunk).unwrap();
        self.state.adopt(Submission { lane: self.lane, owner: record, list, first: true, begun: 0 });
        record
    }

    fn done(&mut self, done: bool) {
        self.streams.script().done = done;
    }
}

fn lost() -> GpuError {
    GpuError::Lost { runtime: "played", operation: "query", code: 700, text: String::new() }
}

fn unclear() -> GpuError {
    GpuError::Call { runtime: "played", operation: "query", code: 999, text: String::new() }
}

/// What is posted ends when it is done, as timed out; what is not ends at once. The lane works on.
#[test]
fn a_copy_that_is_late_ends_when_it_is_done() {
    let mut bench = Bench::new(1);
    let limit = TimeLimit::new(Duration::from_millis(100));
    let (posted, waiting) = (bench.begin(limit), bench.begin(limit));
    bench.state.step_at(1);
    bench.state.step_at(10_000);
    assert!(waiting.is_ended() && waiting.end_state() == EndState::TimedOut);
    assert!(!posted.is_ended() && bench.region.in_use(), "its copy goes on");
    assert_eq!((bench.status.health(), bench.streams.script().copies), (LaneHealth::Healthy, 1));
    bench.done(true);
    bench.state.step_at(10_001);
    assert!(posted.is_ended() && posted.end_state() == EndState::TimedOut && !bench.region.in_use());
    let next = bench.begin(limit);
    bench.state.step_at(10_002);
    assert!(next.is_ended() && next.end_state() == EndState::Done);
}

#[test]
fn an_orphan_keeps_its_memory_until_its_copy_is_done() {
    let mut bench = Bench::new(8);
    let record = bench.begin(TimeLimit::NEVER);
    assert!(!bench.state.close_lane(bench.lane, EndState::Cancelled, "closed").is_closed());
    bench.state.detach_lane(bench.lane, EndState::Cancelled, "closed");
    assert_eq!(bench.status.health(), LaneHealth::Closed);
    for now in [1, 10_000, 20_000] {
        bench.state.step_at(now);
        assert!(!record.is_ended() && bench.region.in_use() && bench.state.has_lanes());
    }
    bench.done(true);
    bench.state.step_at(20_001);
    assert!(record.is_ended() && record.end_state() == EndState::Cancelled);
    assert!(!bench.region.in_use() && !bench.state.has_lanes());
    assert_eq!((bench.streams.script().live, bench.state.part_count()), (0, 0));
}

#[test]
fn only_proof_ends_a_copy() {
    let mut bench = Bench::new(8);
    let record = bench.begin(TimeLimit::NEVER);
    bench.streams.script().answer = Some(unclear());
    (1..100).for_each(|now| bench.state.step_at(now));
    assert!(!record.is_ended() && bench.region.in_use());
    bench.streams.script().answer = None;
    bench.done(true);
    bench.state.step_at(100);
    assert!(record.is_ended() && record.end_state() == EndState::Done);
}

/// The stream is replaced, and what was on it copied again.
#[test]
fn what_a_lost_context_leaves_goes_on_in_a_new_one() {
    let mut bench = Bench::new(8);
    let records = [bench.begin(TimeLimit::NEVER), bench.begin(TimeLimit::NEVER)];
    bench.streams.script().answer = Some(lost());
    bench.state.step_at(1);
    bench.streams.script().answer = None;
    assert_eq!(bench.status.health(), LaneHealth::Healthy);
    bench.done(true);
    (2..5).for_each(|now| bench.state.step_at(now));
    assert!(records.iter().all(|record| record.is_ended() && record.end_state() == EndState::Done));
    let script = bench.streams.script();
    assert_eq!((script.opened, script.live, script.copies), (2, 1, 4));
}

/// A GPU that is lost for good takes the lane down: everything fails, with the reason.
#[test]
fn without_another_context_everything_fails() {
    let mut bench = Bench::new(1);
    let records = [bench.begin(TimeLimit::NEVER), bench.begin(TimeLimit::NEVER)];
    bench.streams.script().answer = Some(lost());
    bench.streams.script().closed = true;
    bench.state.step_at(1);
    assert!(records.iter().all(|record| record.is_ended() && record.end_state() == EndState::Failed));
    assert!(!bench.region.in_use());
    assert_eq!(bench.status.health(), LaneHealth::Drained);
    assert!(!bench.status.reason().is_empty());
}

/// One that cannot be started fails its own transfer, and no other.
#[test]
fn a_refused_copy_fails_its_transfer_alone() {
    let mut bench = Bench::new(8);
    let good = bench.begin(TimeLimit::NEVER);
    bench.streams.script().refuse = Some(unclear());
    let (bad, after) = (bench.begin(TimeLimit::NEVER), bench.begin(TimeLimit::NEVER));
    bench.done(true);
    (1..5).for_each(|now| bench.state.step_at(now));
    assert_eq!(
        [good, bad, after].map(|record| record.end_state()),
        [EndState::Done, EndState::Failed, EndState::Done]
    );
    assert!([good, bad, after].iter().all(|record| record.is_ended()));
    let failure = bad.failure().unwrap();
    assert!(failure.reason.contains("error 999") && failure.vendor_error == 999, "{failure:?}");
}
