//! The way by copies: the initiator moves the bytes itself, within this process or between two of this host.
#![allow(unsafe_code, reason = "copies into registered memory")]

use std::sync::Arc;

use super::address_space::{AddressSpace, CopyStop};
use super::batch::{CopyBatch, Refused, check};
use super::device_core::Core;
use super::endpoint::Endpoint;
use super::far_end::{FarEnd, FarMemory, FarView, Here, OtherProcess};
use super::faults::Injection;
use super::link::{Link, Unmapped};
use super::send_queue::QueuedRequest;
use super::table::end_of_copy;
use super::work::{Next, Patience, PinSet, Step, Work};
use crate::fabric::{CompletionStatus, Opcode, PathKind};

/// The path to a queue pair in this or another process; this process can copy from and to its memory.
#[derive(Debug)]
pub(super) struct Copier {
    far: FarEnd,
    /// Bytes of the request under way that are done.
    offset: u64,
    patience: Patience,
    batch: CopyBatch,
}

impl Copier {
    /// To queue pair `endpoint` of this process, on `device`.
    pub(super) fn within_process(endpoint: Arc<Endpoint>, device: Arc<Core>) -> Self {
        Self::new(FarEnd::Here(Here { endpoint, device }))
    }

    /// From queue pair `own` to one of the process behind `link`. `slot`: where that stands in its queue pair table;
    /// `counterpart`: its number. `forced`: the path that the operator wants and no other.
    pub(super) fn between_processes(
        link: Arc<Link>,
        own: u32,
        slot: usize,
        counterpart: u32,
        forced: Option<PathKind>,
    ) -> Self {
        Self::new(FarEnd::OtherProcess(OtherProcess { link, own, slot, counterpart, closed: false, forced }))
    }

    fn new(far: FarEnd) -> Self {
        Self { far, offset: 0, patience: Patience::default(), batch: CopyBatch::default() }
    }

    /// The other end, for threads that copy beside this.
    pub(super) fn far_view(&self) -> FarView {
        self.far.view()
    }

    /// The other end, if it is in this process.
    pub(super) fn here(&self) -> Option<&Here> {
        match &self.far {
            FarEnd::Here(here) => Some(here),
            FarEnd::OtherProcess(_) => None,
        }
    }

    /// The request under way was carried out by another path.
    pub(super) fn restart(&mut self) {
        self.offset = 0;
    }

    pub(super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        let mut executed = 0;
        let next = loop {
            let first = work.queue.executed + executed;
            if work.request(first).is_none() {
                break Next::Idle;
            }
            if work.budget.is_spent() {
                break Next::More;
            }
            if let Some(time) = self.here().and_then(|here| here.device.silence()) {
                break Next::Later(time);
            }
            match self.run_batch(work, first) {
                Ok(done) => executed += done,
                Err((done, next)) => {
                    executed += done;
                    break next;
                }
            }
        };
        if next == Next::Failed(CompletionStatus::RemoteAccess) {
            self.far.report_violation();
        }
        Step { executed, next }
    }

    /// Carries out requests from `first` on by one copy. How many are done, and what comes then if not more of them.
    fn run_batch(&mut self, work: &mut Work<'_>, first: u64) -> Result<u64, (u64, Next)> {
        let (regions, memory) = (work.regions, self.far.memory());
        let mut local = PinSet::new(regions.view());
        let mut remote = PinSet::new(memory.view());
        let mut batch = std::mem::take(&mut self.batch);
        let stop = self.collect(work, first, &memory, &mut local, &mut remote, &mut batch);
        let outcome = self.copy(work, first, &memory, &batch, &local, &remote);
        let requests = batch.requests;
        batch.clear();
        self.batch = batch;
        match (outcome, stop) {
            (Ok(done), Some(next)) if done == requests => Err((done, next)),
            // What comes behind the batch is looked at again where that was not copied to its end.
            (Ok(done), _) => Ok(done),
            (Err(next), _) => Err((0, next)),
        }
    }

    /// Fills the batch. `Some`: what to do once it is copied.
    fn collect<'a>(
        &mut self,
        work: &mut Work<'_>,
        first: u64,
        memory: &'a FarMemory,
        local: &mut PinSet<'_>,
        remote: &mut PinSet<'a>,
        batch: &mut CopyBatch,
    ) -> Option<Next> {
        let mut index = first;
        let mut offset = self.offset;
        while let Some(request) = work.request(index) {
            if batch.requests >= work.budget.requests || batch.bytes >= work.budget.bytes {
                return None;
            }
            if let Some(next) = self.obstacle(work, index) {
                return Some(next);
            }
            let place = match check(work, index, request, local, remote, memory) {
                Ok(place) => place,
                // The regions are released after this batch, and the next one begins here.
                Err(Refused::BatchFull) => return None,
                Err(Refused::Failed(status)) => return Some(Next::Failed(status)),
                Err(Refused::UnknownKey) => match memory.resolve(request.rkey, remote) {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(next) => return Some(next),
                },
            };
            if request.length > 0 && memory.is_only_mapped() && place.space != AddressSpace::Mapped {
                return Some(unmapped(work.endpoint, memory, request));
            }
            if request.length > 0 && !batch.takes(request, &place) {
                return None;
            }
            if !batch.push(work, index, request, offset, &place) {
                return None;
            }
            index += 1;
            offset = 0;
        }
        None
    }

    fn obstacle(&mut self, work: &mut Work<'_>, index: u64) -> Option<Next> {
        match work.faults.judge(index) {
            Injection::Go => self.patience.judge(self.far.counterpart(work.endpoint)),
            Injection::Wait(time) => Some(Next::Later(time)),
            Injection::Fail(status) => Some(Next::Failed(status)),
            Injection::DropPeer => {
                self.far.cut(work.endpoint);
                Some(Next::Failed(CompletionStatus::RetryExceeded))
            }
        }
    }

    fn copy(
        &mut self,
        work: &mut Work<'_>,
        first: u64,
        memory: &FarMemory,
        batch: &CopyBatch,
        local: &PinSet<'_>,
        remote: &PinSet<'_>,
    ) -> Result<u64, Next> {
        if batch.is_empty() {
            return Ok(0);
        }
        let mut moved = 0;
        if batch.bytes > 0 {
            work.faults.hold();
            // Also of memory that is mapped: it would still show what the process left.
            if memory.link().is_some_and(|link| !link.is_alive()) {
                work.endpoint.set_peer_gone();
                return Err(Next::Failed(CompletionStatus::RetryExceeded));
            }
            let opcode = batch.opcode.unwrap_or(Opcode::Write);
            // SAFETY: the ranges were checked against their regions, which are pinned by `local` and `remote` until after the
            // call, so that neither registration ends before. Plain ones cannot fault: no other process can take them away, and
            // their owners promised that they stay mapped until then.
            let answer = unsafe { batch.space.copy(opcode, &batch.local, &batch.remote, batch.plain) };
            moved = answer.map_err(|stop| self.stopped(work, memory, opcode, stop))?;
            end_of_copy();
            // The regions of another process are pinned as well, so this can fail only if their owner gave up waiting for us.
            if memory.link().is_some() && !(local.all_live() && remote.all_live()) {
                return Err(recheck(work, memory, first));
            }
        }
        work.budget.bytes = work.budget.bytes.saturating_sub(moved);
        work.faults.moved(moved);
        Ok(self.note_moved(work, first, batch, moved))
    }

    /// What a copy that has moved nothing says of the first request of the batch.
    fn stopped(&mut self, work: &Work<'_>, memory: &FarMemory, opcode: Opcode, stop: CopyStop) -> Next {
        match (stop, memory.link()) {
            (CopyStop::Local, _) => Next::Failed(CompletionStatus::LocalProtection),
            (CopyStop::Remote, _) => Next::Failed(CompletionStatus::RemoteAccess),
            (CopyStop::Busy, _) => Next::More,
            (CopyStop::Denied(errno), Some(link)) => {
                // Allowed at the connect: from now on it takes TCP, and what was copied of the request under way is copied
                // again.
                let reason = errno.map_or_else(|| "it moves no bytes".to_owned(), |errno| errno.to_string());
                link.deny(opcode, &reason);
                self.restart();
                Next::More
            }
            (CopyStop::Gone, _) => {
                work.endpoint.set_peer_gone();
                Next::Failed(CompletionStatus::RetryExceeded)
            }
            (CopyStop::Failed(errno), Some(link)) => {
                let pid = link.pid();
                tracing::warn!(%pid, %errno, "the kernel refuses to copy from or to a peer it allowed before");
                Next::Failed(CompletionStatus::RetryExceeded)
            }
            (CopyStop::Failed(_) | CopyStop::Denied(_), None) => {
                tracing::warn!(
                    ?stop,
                    "the kernel copies nothing inside this process, not even through a pipe"
                );
                Next::Failed(CompletionStatus::General)
            }
        }
    }

    /// How many requests are done now that so many bytes were moved.
    fn note_moved(&mut self, work: &mut Work<'_>, first: u64, batch: &CopyBatch, mut moved: u64) -> u64 {
        let mut done = 0;
        while let Some(request) = work.queue.get(first + done).filter(|_| done < batch.requests || moved > 0)
        {
            let left = request.length - self.offset;
            if moved < left {
                self.offset += moved;
                break;
            }
            moved -= left;
            self.offset = 0;
            done += 1;
        }
        work.budget.requests = work.budget.requests.saturating_sub(done);
        done
    }
}

/// What becomes of a request to memory that is not mapped, where nothing else is wanted.
fn unmapped(endpoint: &Endpoint, memory: &FarMemory, request: &QueuedRequest) -> Next {
    match memory.link().map(|link| link.why_unmapped(request)) {
        Some(Unmapped::NotYet(time)) => Next::Later(time),
        Some(Unmapped::Never(reason)) => {
            endpoint.set_error_text(format!("the forced path shared is not available: {reason}"));
            Next::Failed(CompletionStatus::LocalQpOperation)
        }
        None => Next::Failed(CompletionStatus::LocalQpOperation),
    }
}

/// A registration began to end while its bytes moved: fails the first request if it is concerned, else leaves it to be done
/// again, which is harmless.
fn recheck(work: &Work<'_>, memory: &FarMemory, first: u64) -> Next {
    let (mut local, mut remote) = (PinSet::new(work.regions.view()), PinSet::new(memory.view()));
    let again = |request| check(work, first, request, &mut local, &mut remote, memory);
    match work.queue.get(first).map(again) {
        Some(Err(Refused::Failed(status))) => Next::Failed(status),
        _ => Next::More,
    }
}
