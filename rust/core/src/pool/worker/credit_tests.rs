//! Credits against the smallest legal depths: whatever the load, the failures and the order of completions, no send queue
//! and no completion queue ever overruns, and no transfer ends well before the device has carried all of it out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::ops::Range;
use std::sync::Arc;

use proptest::prelude::*;

use super::fake_nic::FakeNic;
use super::*;
use crate::fabric::{Opcode, QueuePairCaps};
use crate::observe::WorkerCounters;
use crate::pool::lane_status::LaneHealth;
use crate::pool::{LaneSetup, LaneStatus};
use crate::transfer::{CheckedIov, Cutter, SlicePolicy, TimeLimit, TransferRecord};

#[derive(Clone, Copy, Debug)]
enum Act {
    Begin(usize, usize),
    Stripe(usize),
    Run(usize, usize),
    Fail(usize, bool),
    Break(usize),
    Refuse(usize, usize, bool),
    Heal(usize),
    Step,
}

fn act(lanes: usize) -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..lanes, prop_oneof![Just(1usize), 1usize..30]).prop_map(|(lane, count)| Act::Begin(lane, count)),
        2 => (1usize..30).prop_map(Act::Stripe),
        6 => (0..lanes, 1usize..6).prop_map(|(lane, count)| Act::Run(lane, count)),
        1 => (0..lanes, any::<bool>()).prop_map(|(lane, hard)| Act::Fail(lane, hard)),
        1 => (0..lanes).prop_map(Act::Break),
        1 => (0..lanes, 0usize..3, any::<bool>()).prop_map(|(lane, at, hard)| Act::Refuse(lane, at, hard)),
        2 => (0..lanes).prop_map(Act::Heal),
        6 => Just(Act::Step),
    ]
}

fn caps(send_depth: u32) -> QueuePairCaps {
    QueuePairCaps { send_depth, max_sge: 1, max_inline: 0 }
}

/// Every chunk is a request of its own.
fn policy() -> SlicePolicy {
    SlicePolicy::new(64, 0, 64, 1, 0)
}

/// What the request with this note moves.
fn chunk(note: u32) -> CheckedIov {
    let at = 4096 + u64::from(note) * 128;
    CheckedIov { local: at, remote: at, length: 64, lkey: 1, rkey: 1, readable: true, iov: note }
}

struct Transfer {
    record: &'static TransferRecord,
    notes: Range<u32>,
}

struct Bench {
    state: WorkerState,
    nic: FakeNic,
    depth: u32,
    lanes: Vec<(LaneKey, Arc<LaneStatus>, usize)>,
    /// Those that have not been seen to end.
    transfers: Vec<Transfer>,
    notes: u32,
}

impl Bench {
    fn new(lanes: usize, cq_depth: u32, depth: u32, list: usize, poll: usize) -> Self {
        let nic = FakeNic::new(cq_depth);
        let limits = WorkerLimits { posted: u32::MAX, list, poll };
        let mut state =
            WorkerState::new(nic.queue(), limits, Arc::new(WorkerCounters::default()), Arc::default());
        let lanes = (0..lanes)
            .map(|_| {
                let status = Arc::new(LaneStatus::new(None));
                let (pair, index) = nic.pair(caps(depth));
                let setup = LaneSetup { status: Arc::clone(&status), heals: true };
                (state.add_lane(pair, setup).unwrap(), status, index)
            })
            .collect();
        Self { state, nic, depth, lanes, transfers: Vec::new(), notes: 0 }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Begin(lane, count) => self.begin(lane, count),
            Act::Stripe(count) => {
                self.stripe(count);
            }
            Act::Run(lane, count) => self.nic.state().run(self.lanes[lane].2, count),
            Act::Fail(lane, hard) => {
                let status =
                    if hard { CompletionStatus::RemoteAccess } else { CompletionStatus::RetryExceeded };
                self.nic.state().fail(self.lanes[lane].2, status);
            }
            Act::Break(lane) => self.state.break_lane(self.lanes[lane].0, "test"),
            Act::Refuse(lane, at, hard) => {
                let errno = if hard { libc::EIO } else { libc::ENOMEM };
                self.nic.state().refuse(self.lanes[lane].2, Some((at, errno)));
            }
            Act::Heal(lane) => self.heal(lane),
            Act::Step => self.state.step_at(0),
        }
        self.check();
    }

    /// A transfer of so many requests on one lane.
    fn begin(&mut self, lane: usize, count: usize) {
        let (record, notes) = self.transfer(1, count);
        self.begin_part(lane, record, notes);
    }

    /// A transfer of so many requests on each lane.
    fn stripe(&mut self, count: usize) -> &'static TransferRecord {
        let (record, notes) = self.transfer(self.lanes.len(), count);
        for lane in 0..self.lanes.len() {
            let first = notes.start + (lane * count) as u32;
            self.begin_part(lane, record, first..first + count as u32);
        }
        record
    }

    fn transfer(&mut self, parts: usize, count: usize) -> (&'static TransferRecord, Range<u32>) {
        let record = TransferRecord::lasting();
        record.start(parts as u32, TimeLimit::NEVER);
        let notes = self.notes..self.notes + (parts * count) as u32;
        self.notes = notes.end;
        self.transfers.push(Transfer { record, notes: notes.clone() });
        (record, notes)
    }

    fn begin_part(&mut self, lane: usize, record: &'static TransferRecord, mut notes: Range<u32>) {
        let key = self.lanes[lane].0;
        let mut fill = |list: &mut RequestList| {
            let mut cutter = Cutter::new(list, policy(), Opcode::Write, notes.len());
            notes.try_for_each(|iov| cutter.push(&chunk(iov)).map(drop)).unwrap();
        };
        if let Some((part, list, _)) = self.state.acquire_part(key) {
            fill(list);
            self.state.start_part(key, part, record, true, 0);
        } else {
            let mut list = RequestList::default();
            fill(&mut list);
            self.state.adopt(Submission { lane: key, owner: record, list, first: true, begun: 0 });
        }
    }

    fn heal(&mut self, lane: usize) {
        let (key, status, index) = &mut self.lanes[lane];
        if status.health() == LaneHealth::Drained {
            let (pair, fresh) = self.nic.pair(caps(self.depth));
            *index = fresh;
            assert!(self.state.heal_lane(*key, pair).is_ok());
        }
    }

    fn check(&mut self) {
        let nic = self.nic.state();
        assert!(!nic.cq_overrun, "the completion queue overran");
        assert!(!nic.sq_overrun, "a send queue overran");
        for transfer in self.transfers.extract_if(.., |transfer| transfer.record.is_ended()) {
            if transfer.record.end_state() == EndState::Done {
                assert!(transfer.notes.clone().all(|note| nic.done.contains(&note)), "a false success");
            }
        }
    }

    /// From here on nothing fails: everything must end.
    fn settle(&mut self) {
        for now in 0..10_000 {
            if self.transfers.is_empty() {
                break;
            }
            for lane in 0..self.lanes.len() {
                self.nic.state().refuse(self.lanes[lane].2, None);
                self.act(Act::Heal(lane));
                self.act(Act::Run(lane, 1));
            }
            self.state.step_at(now);
            self.check();
        }
        let lanes: Vec<_> = self.lanes.iter().map(|(_, status, _)| status.health()).collect();
        assert_eq!(self.transfers.len(), 0, "transfers that never end, over lanes {lanes:?}");
        assert!(!lanes.contains(&LaneHealth::Closed), "a lane was not drained in time: {lanes:?}");
        assert_eq!((self.state.part_count(), self.state.has_backlog()), (0, false));
    }
}

/// Of a list of two only the first was taken, which is not signaled: nothing says when it is done but what is posted
/// behind it.
#[test]
fn a_part_cut_short_ends_although_the_rest_of_its_transfer_failed() {
    let mut bench = Bench::new(2, 16, 8, 6, 4);
    bench.act(Act::Refuse(0, 1, false));
    let record = bench.stripe(2);
    bench.act(Act::Run(0, 1));
    bench.act(Act::Fail(1, true));
    bench.settle();
    assert_eq!(record.end_state(), EndState::Failed);
}

/// As above, and the lane is broken before anything else is posted on it: what was not taken is posted to get a flush, and
/// its transfer goes on where it was interrupted.
#[test]
fn a_part_cut_short_goes_on_although_its_lane_is_broken() {
    let mut bench = Bench::new(1, 16, 8, 6, 4);
    bench.act(Act::Refuse(0, 1, false));
    let record = bench.stripe(2);
    bench.act(Act::Run(0, 1));
    bench.act(Act::Break(0));
    bench.settle();
    assert_eq!(record.end_state(), EndState::Done);
}

proptest! {
    #[test]
    fn nothing_overruns_and_everything_ends(
        // A send queue of 8 or more has requests that are not signaled.
        cq_depth in 1u32..9, depth in prop_oneof![1u32..5, 8u32..20], list in 1usize..6, poll in 1usize..4,
        acts in prop::collection::vec(act(3), 1..200),
    ) {
        let mut bench = Bench::new(3, cq_depth, depth, list, poll);
        for act in acts {
            bench.act(act);
        }
        bench.settle();
    }
}
