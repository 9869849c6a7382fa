//! Both ends in one process: plain copies between registered ranges, or copies by the kernel.
#![allow(unsafe_code, reason = "copies between registered ranges")]

use std::sync::Arc;

use super::copy;
use super::device_core::Core;
use super::endpoint::Endpoint;
use super::faults::Verdict;
use super::kernel_copy::{self, CopyError};
use super::send_queue::{Piece, Request};
use super::socket::Range;
use super::table::Right;
use super::work::{MAX_MESSAGE, Next, Patience, PinSet, Step, Unpinned, Work, rights};
use crate::fabric::{CompletionStatus, Opcode};

/// The way to a queue pair of this process.
#[derive(Debug)]
pub(super) struct InProcess {
    remote: Arc<Endpoint>,
    remote_device: Arc<Core>,
    /// Bytes of the request under way that are done.
    offset: u64,
    patience: Patience,
    for_kernel: KernelCopies,
}

/// What the kernel is to copy of a request; the lists keep their room.
#[derive(Debug, Default)]
struct KernelCopies {
    sources: Vec<Range>,
    targets: Vec<Range>,
}

impl InProcess {
    pub(super) fn new(remote: Arc<Endpoint>, remote_device: Arc<Core>) -> Self {
        let (patience, for_kernel) = (Patience::default(), KernelCopies::default());
        Self { remote, remote_device, offset: 0, patience, for_kernel }
    }

    pub(super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        let remote_device = Arc::clone(&self.remote_device);
        let mut local = PinSet::new(work.regions.view());
        let mut remote = PinSet::new(remote_device.regions.view());
        let mut executed = 0;
        let next = loop {
            let index = work.queue.executed + executed;
            let Some(request) = work.queue.get(index) else { break Next::Idle };
            if work.budget.is_spent() {
                break Next::More;
            }
            if let Some(next) = self.obstacle(work, index) {
                break next;
            }
            if let Err(status) = self.move_bytes(work, index, request, &mut local, &mut remote) {
                break Next::Failed(status);
            }
            if self.offset == request.length {
                self.offset = 0;
                executed += 1;
                work.budget.requests -= 1;
            }
        };
        if next == Next::Failed(CompletionStatus::RemoteAccess) {
            // As with RC, the responder's queue pair goes down together with the initiator's.
            self.remote_device.queue_pair_fatal(&self.remote);
        }
        Step { executed, next }
    }

    fn obstacle(&mut self, work: &mut Work<'_>, index: u64) -> Option<Next> {
        match work.faults.judge(index) {
            Verdict::Go => self.patience.judge(self.remote.counterpart(&work.endpoint.address)),
            Verdict::Wait(time) => Some(Next::Later(time)),
            Verdict::Fail(status) => Some(Next::Failed(status)),
            Verdict::DropPeer => {
                self.remote.set_peer_gone();
                work.endpoint.set_peer_gone();
                Some(Next::Failed(CompletionStatus::RetryExceeded))
            }
        }
    }

    /// Moves as much of the request as the budget allows.
    fn move_bytes(
        &mut self,
        work: &mut Work<'_>,
        index: u64,
        request: &Request,
        local: &mut PinSet<'_>,
        remote: &mut PinSet<'_>,
    ) -> Result<(), CompletionStatus> {
        if request.length > u64::from(MAX_MESSAGE) {
            return Err(CompletionStatus::LocalLength);
        }
        if request.length == 0 {
            return Ok(());
        }
        let (local_right, remote_right) = rights(request.opcode);
        let far_is_anonymous =
            check_remote(remote, request, remote_right).map_err(|_| CompletionStatus::RemoteAccess)?;
        for piece in work.queue.pieces(index, self.offset) {
            let length = piece.length.min(work.budget.bytes);
            if length == 0 {
                break;
            }
            let is_anonymous = self.check_local(local, &piece, request.opcode, local_right)?;
            work.faults.hold();
            let far = request.remote_address + self.offset;
            let (from, to) = match request.opcode {
                Opcode::Write => (piece.address, far),
                Opcode::Read => (far, piece.address),
            };
            if far_is_anonymous && is_anonymous {
                // SAFETY: both ranges were checked against their regions. Both are pinned until after the copy, so neither
                // registration ends before, and their owners promised that they stay mapped until then.
                // No other process can take them away: they are anonymous.
                unsafe { copy::copy(from, to, length) };
            } else {
                self.for_kernel.push(from, to, length);
            }
            self.offset += length;
            work.budget.bytes -= length;
            work.faults.moved(length);
        }
        self.copy_by_kernel(request.opcode)
    }

    /// Whether only its owner can take the memory of a local piece away. Releases the other regions when the set is full:
    /// one at a time is enough here.
    fn check_local(
        &mut self,
        pins: &mut PinSet<'_>,
        piece: &Piece,
        opcode: Opcode,
        right: Right,
    ) -> Result<bool, CompletionStatus> {
        let checked = match pins.check(piece.lkey, piece.address, piece.length, right) {
            Err(Unpinned::Full) => {
                // What waits for the kernel is in regions that are released now.
                self.copy_by_kernel(opcode)?;
                pins.clear();
                pins.check(piece.lkey, piece.address, piece.length, right)
            }
            answer => answer,
        };
        checked.map_err(|_| CompletionStatus::LocalProtection)
    }

    /// Has the kernel copy what waits for it.
    fn copy_by_kernel(&mut self, opcode: Opcode) -> Result<(), CompletionStatus> {
        // SAFETY: the ranges were checked against their regions, which are pinned until after the call.
        unsafe { self.for_kernel.copy() }.map_err(|error| status_of(error, opcode))
    }
}

impl KernelCopies {
    fn push(&mut self, from: u64, to: u64, length: u64) {
        self.sources.push(Range::new(from, length));
        self.targets.push(Range::new(to, length));
    }

    /// Copies all of it, if there is any.
    ///
    /// # Safety
    /// As [`kernel_copy::copy`].
    unsafe fn copy(&mut self) -> Result<(), CopyError> {
        if self.sources.is_empty() {
            return Ok(());
        }
        // SAFETY: by the caller's promise.
        let answer = unsafe { kernel_copy::copy(&self.sources, &self.targets) };
        self.sources.clear();
        self.targets.clear();
        answer
    }
}

fn status_of(error: CopyError, opcode: Opcode) -> CompletionStatus {
    match (error, opcode) {
        (CopyError::Source, Opcode::Write) | (CopyError::Target, Opcode::Read) => {
            CompletionStatus::LocalProtection
        }
        (CopyError::Source, Opcode::Read) | (CopyError::Target, Opcode::Write) => {
            CompletionStatus::RemoteAccess
        }
        (CopyError::NoMeans(errno), _) => {
            tracing::warn!(%errno, "the kernel copies nothing inside this process, not even through a pipe");
            CompletionStatus::General
        }
    }
}

/// Whether only its owner can take the remote memory of a request away. Nothing waits for the kernel yet, so the other
/// regions may go when the set is full.
fn check_remote(pins: &mut PinSet<'_>, request: &Request, right: Right) -> Result<bool, Unpinned> {
    let Request { rkey, remote_address, length, .. } = *request;
    match pins.check(rkey, remote_address, length, right) {
        Err(Unpinned::Full) => {
            pins.clear();
            pins.check(rkey, remote_address, length, right)
        }
        answer => answer,
    }
}
