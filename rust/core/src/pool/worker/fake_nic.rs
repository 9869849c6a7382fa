//! The NIC of a worker's tests: it does what a test has set, and notes what a real one would not survive.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};

use crate::fabric::{
    Batch, Completion, CompletionQueue, CompletionStatus, FabricError, Opcode, PathKind, Paths, Posted,
    QueueHandle, QueuePairCaps, WorkQueue, WorkRequest,
};

/// The note of a probe.
pub(super) const PROBE: u32 = u32::MAX;

/// The NIC, shared by its test and by the queues made of it.
#[derive(Clone, Debug)]
pub(super) struct FakeNic(Arc<Mutex<Nic>>);

#[derive(Debug, Default)]
pub(super) struct Nic {
    cq_depth: usize,
    completions: VecDeque<Completion>,
    pairs: Vec<SendQueue>,
    /// What was posted, on all queue pairs.
    posted: Vec<u64>,
    /// What was carried out, by the requests' notes.
    pub(super) done: HashSet<u32>,
    /// Something to do that only a poll does: until then the completion queue cannot be armed.
    pub(super) chore: bool,
    /// A queue pair in error says nothing by itself: its flushes too are completions that the test makes.
    pub(super) silent: bool,
    /// Queue pairs are not moved to ERROR: the errno.
    pub(super) resists: Option<i32>,
    /// A failure is reported on the oldest request of which nothing was polled, not on the one that failed.
    pub(super) inexact: bool,
    /// Its queue pairs have refused requests of their peers.
    pub(super) refused: bool,
    /// What finds no way to the peer ends as a local error.
    pub(super) local: bool,
    pub(super) cq_overrun: bool,
    pub(super) sq_overrun: bool,
}

#[derive(Debug, Default)]
struct SendQueue {
    depth: usize,
    error: bool,
    /// It was to be moved to ERROR: as with verbs it says that it is broken even where that was refused.
    to_be_broken: bool,
    /// Not carried out yet: id, note, signaled.
    waiting: VecDeque<(u64, u32, bool)>,
    /// Slots in use: freed by polling a completion at or behind them, as in hardware.
    used: VecDeque<u64>,
    /// The next post is cut short here, with this errno.
    refuse: Option<(usize, i32)>,
}

impl FakeNic {
    /// One with a completion queue of so many entries.
    pub(super) fn new(cq_depth: u32) -> Self {
        Self(Arc::new(Mutex::new(Nic { cq_depth: cq_depth as usize, ..Nic::default() })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Nic> {
        self.0.lock().unwrap()
    }

    pub(super) fn queue(&self) -> Box<dyn CompletionQueue> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        Box::new(Queue { nic: self.clone(), fd })
    }

    /// A queue pair, and its number among those of this NIC.
    pub(super) fn pair(&self, caps: QueuePairCaps) -> (Box<dyn WorkQueue>, usize) {
        let mut nic = self.state();
        nic.pairs.push(SendQueue { depth: caps.send_depth as usize, ..SendQueue::default() });
        let index = nic.pairs.len() - 1;
        (Box::new(Pair { nic: self.clone(), index, caps }), index)
    }
}

impl Nic {
    fn complete(&mut self, id: u64, status: CompletionStatus) {
        self.completions.push_back(Completion { id, status, ..Completion::default() });
        self.cq_overrun |= self.completions.len() > self.cq_depth;
    }

    /// Completes the `index`-th request ever posted.
    pub(super) fn complete_posted(&mut self, index: usize, status: CompletionStatus) {
        self.complete(self.posted[index], status);
    }

    /// Carries out the next `count` requests of a pair.
    pub(super) fn run(&mut self, pair: usize, count: usize) {
        for _ in 0..count {
            let Some((id, note, signaled)) = self.pairs[pair].waiting.pop_front() else { return };
            self.done.insert(note);
            if signaled {
                self.complete(id, CompletionStatus::Success);
            }
        }
    }

    /// Carries out the next requests of a pair, up to one with the note `note` or a higher one.
    pub(super) fn run_before(&mut self, pair: usize, note: u32) {
        while self.pairs[pair].waiting.front().is_some_and(|(_, next, _)| *next < note) {
            self.run(pair, 1);
        }
    }

    /// The next request of a pair fails, and the others are flushed.
    pub(super) fn fail(&mut self, pair: usize, status: CompletionStatus) {
        let mut status = status;
        if self.inexact {
            let pair = &mut self.pairs[pair];
            let known: HashSet<u64> = pair.waiting.iter().map(|(id, ..)| *id).collect();
            let carried_out = pair.used.iter().filter(|id| !known.contains(id));
            let before: Vec<_> = carried_out.map(|id| (*id, 0, false)).collect();
            before.into_iter().rev().for_each(|request| pair.waiting.push_front(request));
        }
        while let Some((id, ..)) = self.pairs[pair].waiting.pop_front() {
            self.complete(id, status);
            status = CompletionStatus::Flushed;
            self.pairs[pair].error = true;
        }
    }

    /// A pair goes to ERROR, and nothing says so.
    pub(super) fn break_silently(&mut self, pair: usize) {
        self.pairs[pair].error = true;
    }

    /// Cuts the next post of a pair short at `refuse`, with this errno.
    pub(super) fn refuse(&mut self, pair: usize, refuse: Option<(usize, i32)>) {
        self.pairs[pair].refuse = refuse;
    }
}

#[derive(Debug)]
struct Queue {
    nic: FakeNic,
    fd: OwnedFd,
}

impl CompletionQueue for Queue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        let nic = &mut *self.nic.state();
        nic.chore = false;
        let count = nic.completions.len().min(out.len());
        for (slot, completion) in out.iter_mut().zip(nic.completions.drain(..count)) {
            *slot = completion;
            for pair in &mut nic.pairs {
                if let Some(at) = pair.used.iter().position(|id| *id == completion.id) {
                    pair.used.drain(..=at);
                }
            }
        }
        Ok(count)
    }
    fn arm(&mut self) -> Result<bool, FabricError> {
        Ok(!self.nic.state().chore)
    }
    fn acknowledge(&mut self) -> Result<(), FabricError> {
        Ok(())
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    fn depth(&self) -> u32 {
        self.nic.state().cq_depth as u32
    }
    fn handle(&self) -> QueueHandle {
        QueueHandle::new(Arc::clone(&self.nic.0))
    }
}

#[derive(Debug)]
struct Pair {
    nic: FakeNic,
    index: usize,
    caps: QueuePairCaps,
}

impl WorkQueue for Pair {
    fn caps(&self) -> QueuePairCaps {
        self.caps
    }
    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        let nic = &mut *self.nic.state();
        let pair = &mut nic.pairs[self.index];
        let refused = pair.refuse.take().filter(|(at, _)| *at < batch.requests.len());
        let accepted = refused.map_or(batch.requests.len(), |(at, _)| at);
        for (index, request) in batch.requests[..accepted].iter().enumerate() {
            let id = batch.id(index);
            nic.posted.push(id);
            pair.used.push_back(id);
            pair.waiting.push_back((id, request.origin, batch.is_signaled(index)));
        }
        nic.sq_overrun |= pair.used.len() > pair.depth;
        if pair.error {
            nic.fail(self.index, CompletionStatus::Flushed);
        }
        refused.map_or_else(|| Posted::all(batch), |(at, errno)| Posted::cut(at, errno))
    }
    fn post_empty(&mut self, id: u64, _: (u64, u32)) -> Posted {
        let request = WorkRequest {
            remote_address: 0,
            rkey: 0,
            first_sge: 0,
            origin: PROBE,
            sge_count: 0,
            inline: false,
        };
        self.post(&Batch {
            opcode: Opcode::Write,
            first_id: id,
            signal_every: 1,
            requests: &[request],
            entries: &[],
            one_each: false,
        })
    }
    fn set_error(&mut self) -> Result<(), FabricError> {
        let mut nic = self.nic.state();
        nic.pairs[self.index].to_be_broken = true;
        if let Some(errno) = nic.resists {
            return Err(FabricError::call("modify a queue pair", "fake", errno));
        }
        if !nic.silent {
            nic.pairs[self.index].error = true;
            nic.fail(self.index, CompletionStatus::Flushed);
        }
        Ok(())
    }
    fn names_failed_request(&self) -> bool {
        !self.nic.state().inexact
    }
    fn path_fails_as_local(&self) -> bool {
        self.nic.state().local
    }
    fn is_broken(&self) -> bool {
        let pair = &self.nic.state().pairs[self.index];
        pair.error || pair.to_be_broken
    }
    fn has_refused(&self) -> bool {
        self.nic.state().refused
    }
    fn paths(&self) -> Paths {
        Paths::both(PathKind::None)
    }
}
