//! A worker over a scripted device: completions come exactly when a test says so.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;

use super::fake_nic::FakeNic;
use super::*;
use crate::fabric::{Access, CompletionStatus, Opcode, QueuePairCaps, SoftwareOptions, software};
use crate::memory::{LocalRange, MemoryKind, Region, RegionId, Registry};
use crate::observe::{Amount, TransferSource, TransferTotals, WorkerCounters};
use crate::pool::{LaneHealth, LaneSetup, LaneStatus};
use crate::transfer::{CheckedIov, Cutter, SlicePolicy, TimeLimit, TransferRecord};

pub(super) const CAPS: QueuePairCaps = QueuePairCaps { send_depth: 16, max_sge: 4, max_inline: 0 };

/// One request from `local` on.
pub(super) fn fill(list: &mut RequestList, local: u64) {
    let chunk = CheckedIov { local, remote: 4096, length: 64, lkey: 1, rkey: 1, readable: true, iov: 0 };
    let policy = SlicePolicy::new(1 << 20, 0, 1 << 30, 4, 0);
    let mut cutter = Cutter::new(list, policy, Opcode::Write, 1);
    cutter.push(&chunk).unwrap();
}

fn register(memory: &[u8]) -> (Registry, Arc<Region>) {
    let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
    let range = (memory.as_ptr() as u64, memory.len() as u64);
    let id = registry.register(range, MemoryKind::Host, Access::FULL, true, None, None).unwrap();
    let region = Arc::clone(registry.snapshot().by_id(id).unwrap());
    (registry, region)
}

struct Bench {
    state: WorkerState,
    nic: FakeNic,
    lane: LaneKey,
    status: Arc<LaneStatus>,
    now: u64,
}

impl Bench {
    fn new() -> Self {
        let nic = FakeNic::new(64);
        nic.state().silent = true;
        let limits = WorkerLimits { posted: 64, list: 16, poll: 16 };
        let mut state =
            WorkerState::new(nic.queue(), limits, Arc::new(WorkerCounters::default()), Arc::default());
        let status = Arc::new(LaneStatus::new(None));
        let setup = LaneSetup { status: Arc::clone(&status), heals: true };
        let lane = state.add_lane(nic.pair(CAPS).0, setup).unwrap();
        Self { state, nic, lane, status, now: 1 }
    }

    /// Begins a transfer of one request.
    fn begin(&mut self) -> &'static TransferRecord {
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        self.begin_part(record);
        record
    }

    /// As [`Bench::begin`], with so many milliseconds from the first look on.
    fn begin_within(&mut self, milliseconds: u64) -> &'static TransferRecord {
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::new(Duration::from_millis(milliseconds)));
        self.begin_part(record);
        record
    }

    /// One of one request.
    fn begin_part(&mut self, record: &'static TransferRecord) {
        self.start(record, |list| fill(list, 4096));
    }

    /// Starts a part that `make` fills.
    fn start(&mut self, record: &'static TransferRecord, make: impl FnOnce(&mut RequestList)) {
        let mut list = RequestList::default();
        make(&mut list);
        self.state.adopt(Submission { lane: self.lane, owner: record, list, first: true, begun: 0 });
    }

    /// The device completes the `index`-th request posted.
    fn complete(&mut self, index: usize, status: CompletionStatus) {
        self.nic.state().complete_posted(index, status);
        self.step(0);
    }

    /// Some time passes.
    fn step(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.state.step_at(self.now);
    }

    fn begin_holding(&mut self, region: &Arc<Region>) -> &'static TransferRecord {
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        self.start(record, |list| {
            fill(list, region.address);
            list.holds.extend(region.hold());
        });
        record
    }

    fn heal(&mut self) {
        assert!(self.state.heal_lane(self.lane, self.nic.pair(CAPS).0).is_ok());
    }
}

#[test]
fn a_lane_that_breaks_after_all_its_requests_succeeded_is_drained() {
    let mut bench = Bench::new();
    let record = bench.begin();
    bench.state.break_lane(bench.lane, "test");
    assert_eq!(bench.status.health(), LaneHealth::Broken);
    bench.complete(0, CompletionStatus::Success);
    assert!(record.is_ended() && record.end_state() == EndState::Done);
    assert_eq!(bench.status.health(), LaneHealth::Drained);
}

#[test]
fn destroying_a_lane_ends_parts_that_were_flushed_already() {
    let mut bench = Bench::new();
    let (flushed, stuck) = (bench.begin(), bench.begin());
    bench.state.break_lane(bench.lane, "test");
    bench.complete(0, CompletionStatus::Flushed);
    assert!(!flushed.is_ended(), "it may go on once the lane is rebuilt");
    bench.step(10);
    bench.step(10_000);
    assert!(stuck.is_ended() && flushed.is_ended(), "the flush did not come");
    assert_eq!((flushed.end_state(), bench.state.part_count()), (EndState::Failed, 0));
    assert_eq!(bench.status.health(), LaneHealth::Closed);
}

/// In time that grows with their number, not with its square, and then they leave nothing behind.
#[test]
fn many_waiting_parts_end_together() {
    const PARTS: u32 = 100_000;
    let mut bench = Bench::new();
    bench.state.break_lane(bench.lane, "test");
    let record = TransferRecord::lasting();
    record.start(PARTS, TimeLimit::NEVER);
    (0..PARTS).for_each(|_| bench.begin_part(record));
    let after = bench.begin();
    record.condemn(EndState::Cancelled);
    bench.state.early_ends.note();
    let start = std::time::Instant::now();
    bench.step(10);
    assert!(record.is_ended() && !after.is_ended());
    assert!(start.elapsed().as_secs() < 5, "took {:?}", start.elapsed());
    assert_eq!((bench.state.part_count(), bench.state.has_backlog()), (1, true));

    bench.heal();
    bench.step(10);
    bench.complete(0, CompletionStatus::Success);
    assert!(after.is_ended());
    assert!(bench.state.parts.capacity() > PARTS);
    bench.step(10);
    assert_eq!(bench.state.parts.capacity(), 0);
}

/// Each look costs what expires, however many wait: with looks at all of them this took minutes.
#[test]
fn of_many_that_wait_those_that_are_late_end_and_the_others_cost_nothing() {
    const AT_A_TIME: usize = 50;
    const TIMES: usize = 2000;
    let mut bench = Bench::new();
    bench.state.break_lane(bench.lane, "test");
    let start = std::time::Instant::now();
    let limit = 10 * TIMES as u64;
    let mut records = Vec::new();
    for _ in 0..TIMES {
        records.extend((0..AT_A_TIME).map(|_| bench.begin_within(limit)));
        bench.step(10);
    }
    for late in records.chunks(AT_A_TIME) {
        assert!(late.iter().all(|record| !record.is_ended()));
        bench.step(10);
        assert!(late.iter().all(|record| record.is_ended() && record.end_state() == EndState::TimedOut));
    }
    assert_eq!((bench.state.part_count(), bench.state.has_backlog()), (0, false));
    assert!(start.elapsed().as_secs() < 5, "took {:?}", start.elapsed());
}

#[test]
fn a_part_that_was_interrupted_keeps_its_deadline_before_younger_ones() {
    let mut bench = Bench::new();
    let oldest = bench.begin_within(100);
    bench.step(10);
    let middle = bench.begin_within(100);
    bench.step(10);
    bench.state.break_lane(bench.lane, "test");
    let youngest = bench.begin_within(100);
    bench.step(10);
    for index in [0, 1] {
        bench.complete(index, CompletionStatus::Flushed);
    }
    for (late, others) in [(oldest, vec![middle, youngest]), (middle, vec![youngest]), (youngest, vec![])] {
        while !late.is_ended() {
            assert!(bench.now < 200);
            bench.step(5);
        }
        assert_eq!(late.end_state(), EndState::TimedOut);
        assert!(others.iter().all(|record| !record.is_ended()), "at {}", bench.now);
    }
    assert_eq!(bench.state.part_count(), 0);
}

/// The lanes of a worker may be of engines with other limits.
#[test]
fn each_lane_has_a_limit_of_its_own() {
    let mut bench = Bench::new();
    let setup = LaneSetup { status: Arc::new(LaneStatus::new(None)), heals: true };
    let other = bench.state.add_lane(bench.nic.pair(CAPS).0, setup).unwrap();
    let forever = bench.begin();
    let slow = bench.begin_within(1000);
    bench.lane = other;
    let quick = bench.begin_within(20);
    bench.step(10);
    bench.step(20);
    assert!(!quick.is_ended(), "the device has it");
    bench.complete(2, CompletionStatus::Flushed);
    assert_eq!((quick.is_ended(), quick.end_state()), (true, EndState::TimedOut));
    assert_eq!(bench.status.health(), LaneHealth::Healthy);
    for index in [0, 1] {
        bench.complete(index, CompletionStatus::Success);
    }
    assert!(forever.is_ended() && slow.is_ended() && slow.end_state() == EndState::Done);
}

/// One part of it fails on one lane; what waits on another ends too, although nothing is late or posted there.
#[test]
fn parts_on_other_lanes_end_with_the_first_that_fails() {
    let mut bench = Bench::new();
    let setup = LaneSetup { status: Arc::new(LaneStatus::new(None)), heals: true };
    let (first, other) = (bench.lane, bench.state.add_lane(bench.nic.pair(CAPS).0, setup).unwrap());
    bench.state.break_lane(other, "test");
    let record = TransferRecord::lasting();
    record.start(2, TimeLimit::NEVER);
    bench.begin_part(record);
    bench.lane = other;
    bench.begin_part(record);
    let waiting = bench.begin();
    bench.step(10);
    bench.complete(0, CompletionStatus::RemoteAccess);
    assert_eq!((record.is_ended(), bench.status.health()), (false, LaneHealth::Drained));
    bench.step(10);
    assert_eq!((record.is_ended(), record.end_state(), waiting.is_ended()), (true, EndState::Failed, false));
    assert!(bench.state.close_lane(first, EndState::Cancelled, "test").is_closed());
}

/// A part is still in a queue when another one fails: it ends when it is taken out, although the worker has looked at what
/// ends early before.
#[test]
fn a_part_taken_out_of_a_queue_after_another_has_failed_ends_at_once() {
    let mut bench = Bench::new();
    let setup = LaneSetup { status: Arc::new(LaneStatus::new(None)), heals: true };
    let other = bench.state.add_lane(bench.nic.pair(CAPS).0, setup).unwrap();
    bench.state.break_lane(other, "test");
    let record = TransferRecord::lasting();
    record.start(2, TimeLimit::NEVER);
    bench.begin_part(record);
    let waiting = bench.begin();
    bench.step(10);
    bench.complete(0, CompletionStatus::RemoteAccess);
    bench.step(10);
    assert!(!record.is_ended(), "one part is still in a queue");
    let mut list = RequestList::default();
    fill(&mut list, 4096);
    bench.state.adopt(Submission { lane: other, owner: record, list, first: true, begun: 0 });
    assert_eq!((record.is_ended(), record.end_state(), waiting.is_ended()), (true, EndState::Failed, false));
}

/// Parts of one transfer begin on one lane and end on another that is gone: the counts of both agree.
#[test]
fn a_part_for_a_lane_that_is_gone_is_counted_with_that_lane() {
    let mut bench = Bench::new();
    let status = Arc::new(LaneStatus::new(None));
    let setup = LaneSetup { status: Arc::clone(&status), heals: true };
    let other = bench.state.add_lane(bench.nic.pair(CAPS).0, setup).unwrap();
    bench.state.detach_lane(other, EndState::Failed, "test");
    bench.state.destroy_detached();
    let record = TransferRecord::lasting();
    record.start(2, TimeLimit::NEVER);
    bench.begin_part(record);
    bench.complete(0, CompletionStatus::Success);
    bench.step(10);
    let mut list = RequestList::default();
    fill(&mut list, 4096);
    bench.state.adopt(Submission { lane: other, owner: record, list, first: false, begun: 0 });
    assert!(record.is_ended());
    let mut totals = TransferTotals::default();
    [&bench.status, &status].iter().for_each(|status| status.counts.add_to(&mut totals));
    assert_eq!(totals.in_flight(), Amount::default());
    assert!(bench.status.counts.is_idle() && status.counts.is_idle());
}

#[test]
fn memory_is_taken_back_from_transfers_that_do_not_end() {
    let mut bench = Bench::new();
    let memory = vec![0_u8; 4096];
    let (_registry, region) = register(&memory);
    let (using, other) = (bench.begin_holding(&region), bench.begin());
    bench.state.abort_users(region.id);
    bench.step(1);
    assert!(!using.is_ended() && region.in_use(), "not before the device has flushed it");
    assert_eq!(bench.status.health(), LaneHealth::Broken);
    bench.complete(0, CompletionStatus::Flushed);
    assert_eq!((using.is_ended(), using.end_state(), region.in_use()), (true, EndState::TimedOut, false));
    bench.complete(1, CompletionStatus::Flushed);
    bench.heal();
    bench.step(0);
    bench.complete(2, CompletionStatus::Success);
    assert_eq!(
        (other.is_ended(), other.end_state()),
        (true, EndState::Done),
        "others only wait for the rebuild"
    );
}

/// Of the lane's recent region or not: what a part keeps registered ends with it, and so does what is not started.
#[test]
fn a_lease_ends_with_its_part() {
    let mut bench = Bench::new();
    let memory = vec![0_u8; 4096];
    let (_registry, region) = register(&memory);
    let local = LocalRange::within(&region, region.address, region.length).unwrap();
    let (part, list, recent) = bench.state.acquire_part(bench.lane).unwrap();
    list.lease = recent.replace(&region, local);
    assert!(list.lease.is_some());
    bench.state.forget_regions(&[region.id].into());
    assert!(region.in_use(), "the part has it");
    bench.state.release_unstarted(part);
    assert!(!region.in_use());

    let lane = bench.lane;
    let recent = |bench: &mut Bench| bench.state.lanes.get(lane).unwrap().recent.replace(&region, local);
    let lease = recent(&mut bench);
    let record = TransferRecord::lasting();
    record.start(1, TimeLimit::NEVER);
    bench.start(record, |list| {
        fill(list, region.address);
        list.lease = lease;
    });
    bench.state.forget_regions(&[region.id].into());
    assert!(region.in_use());
    bench.state.abort_users(region.id);
    bench.step(1);
    bench.complete(0, CompletionStatus::Flushed);
    assert_eq!((record.end_state(), region.in_use()), (EndState::TimedOut, false));
}

/// A part that has ended keeps the lease of its lane's recent region for the next one, until the region is forgotten, or the
/// lane has another one.
#[test]
fn a_free_part_keeps_the_lease_of_its_lane_and_no_other() {
    let mut bench = Bench::new();
    let memory = vec![0_u8; 4096];
    let (_registry, region) = register(&memory);
    let (_other_registry, other) = register(&memory);
    let recent = |bench: &mut Bench, region: &Arc<Region>| {
        let local = LocalRange::within(region, region.address, region.length).unwrap();
        let lane = bench.lane;
        bench.state.lanes.get(lane).unwrap().recent.replace(region, local)
    };
    let record = TransferRecord::lasting();
    let mut completed = 0;
    let mut run = |bench: &mut Bench, lease, between: &dyn Fn(&mut Bench)| {
        record.start(1, TimeLimit::NEVER);
        bench.start(record, |list| {
            fill(list, region.address);
            list.lease = lease;
        });
        between(bench);
        bench.complete(completed, CompletionStatus::Success);
        assert!(record.is_ended());
        completed += 1;
    };

    let lease = recent(&mut bench, &region);
    run(&mut bench, lease, &|_| {});
    assert!(region.in_use(), "the lane and the part have it");
    bench.state.forget_regions(&[region.id].into());
    assert!(!region.in_use(), "the free part has let go of it");

    let lease = recent(&mut bench, &region);
    run(&mut bench, lease, &|bench| bench.state.forget_regions(&[region.id].into()));
    assert!(!region.in_use(), "forgotten before the part ended");

    let lease = recent(&mut bench, &region);
    run(&mut bench, lease, &|_| {});
    let ids = [RegionId(region.id.0 + 1000), other.id].into();
    bench.state.forget_regions(&ids);
    assert!(region.in_use(), "none of those that are forgotten");

    let lease = recent(&mut bench, &region);
    run(&mut bench, lease, &|bench| drop(recent(bench, &other)));
    assert!(!region.in_use() && other.in_use(), "the lane has another one");
}

#[test]
fn the_time_to_drain_counts_from_the_last_break() {
    let mut bench = Bench::new();
    let record = bench.begin();
    bench.state.break_lane(bench.lane, "test");
    bench.step(10);
    record.condemn(EndState::Cancelled);
    bench.complete(0, CompletionStatus::Flushed);
    assert!(record.is_ended() && bench.status.health() == LaneHealth::Drained);
    bench.heal();
    bench.now += 60_000;
    let second = bench.begin();
    bench.state.break_lane(bench.lane, "test");
    bench.step(10);
    assert_eq!(bench.status.health(), LaneHealth::Broken, "it has only just been broken");
    bench.complete(1, CompletionStatus::Flushed);
    bench.heal();
    bench.step(0);
    bench.complete(2, CompletionStatus::Success);
    assert_eq!((second.is_ended(), second.end_state()), (true, EndState::Done));
}

#[test]
fn the_queue_is_polled_while_parts_wait_for_a_rebuild() {
    let mut bench = Bench::new();
    let record = bench.begin();
    bench.state.break_lane(bench.lane, "test");
    bench.complete(0, CompletionStatus::Flushed);
    assert_eq!((bench.status.health(), bench.state.outstanding()), (LaneHealth::Drained, 0));
    bench.nic.state().chore = true;
    bench.step(0);
    assert_eq!(bench.state.queue().arm().ok(), Some(true), "the worker's thread would spin for it");
    assert!(!record.is_ended());
}

/// Six requests, numbered from `first` on.
fn fill_six(list: &mut RequestList, first: u32) {
    let policy = SlicePolicy::new(1 << 20, 0, 1 << 30, 4, 0);
    let mut cutter = Cutter::new(list, policy, Opcode::Write, 1);
    for iov in first..first + 6 {
        let local = 4096 * u64::from(iov + 1);
        let remote = 8192 * u64::from(iov + 1);
        let chunk = CheckedIov { local, remote, length: 64, lkey: 1, rkey: 1, readable: true, iov };
        cutter.push(&chunk).unwrap();
    }
}

/// Two transfers of six requests each, on a device that reports failures on the oldest request: the first one's list was cut
/// short behind two, and the second one waited then.
fn cut_short() -> (Bench, [&'static TransferRecord; 2]) {
    let mut bench = Bench::new();
    bench.nic.state().inexact = true;
    let records = [0, 6].map(|first| {
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        let accepted = if first == 0 { 0 } else { 2 };
        bench.nic.state().refuse(0, Some((accepted, libc::ENOMEM)));
        bench.start(record, |list| fill_six(list, first));
        record
    });
    bench.step(1);
    (bench, records)
}

#[test]
fn a_failure_behind_a_list_that_was_cut_short_is_one_of_its_transfer() {
    let (mut bench, [first, second]) = cut_short();
    bench.nic.state().run(0, 3);
    bench.nic.state().fail(0, CompletionStatus::RemoteAccess);
    bench.step(1);
    let failure = first.failure().unwrap();
    assert!((failure.iov..=failure.last_iov).contains(&3), "{failure:?}");
    assert!(failure.last_iov < 6, "{failure:?}");
    assert!(second.failure().is_none());
}

#[test]
fn a_transfer_that_was_cut_short_is_not_named_for_another() {
    let (mut bench, [first, second]) = cut_short();
    bench.nic.state().run_before(0, 6);
    bench.step(1);
    bench.nic.state().fail(0, CompletionStatus::RemoteAccess);
    bench.step(1);
    assert_eq!(first.failure(), None);
    assert_eq!((first.is_ended(), first.end_state()), (true, EndState::Done));
    assert_eq!(second.failure().unwrap().iov, 6);
}
