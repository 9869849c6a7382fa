//! Ranges to copy by one call, of requests in a row.

use super::address_space::{AddressSpace, CheckedRange};
use super::far_end::FarMemory;
use super::foreign::MAX_RANGES;
use super::send_queue::{Piece, QueuedRequest};
use super::socket::Range;
use super::table::Violation;
use super::work::{MAX_MESSAGE, PinSet, Unpinned, Work, rights};
use crate::fabric::{CompletionStatus, Opcode};

/// The ranges of either side; the lists keep their room between calls.
#[derive(Debug)]
pub(super) struct CopyBatch {
    pub(super) opcode: Option<Opcode>,
    /// What the remote ranges are addresses of.
    pub(super) space: AddressSpace,
    /// Copied without the kernel.
    pub(super) plain: bool,
    pub(super) local: Vec<Range>,
    pub(super) remote: Vec<Range>,
    pub(super) requests: u64,
    pub(super) bytes: u64,
}

impl Default for CopyBatch {
    fn default() -> Self {
        let (local, remote) = (Vec::with_capacity(MAX_RANGES), Vec::with_capacity(MAX_RANGES));
        Self { opcode: None, space: AddressSpace::Same, plain: false, local, remote, requests: 0, bytes: 0 }
    }
}

impl CopyBatch {
    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.requests == 0 && self.bytes == 0
    }

    /// Whether a request to `place` fits in, by what is in it already.
    pub(super) fn takes(&self, request: &QueuedRequest, place: &CheckedRange) -> bool {
        let is_alike = |opcode| {
            opcode == request.opcode && self.space == place.space && self.plain == place.cannot_fault
        };
        self.opcode.is_none_or(is_alike)
    }

    pub(super) fn clear(&mut self) {
        self.opcode = None;
        self.plain = false;
        self.local.clear();
        self.remote.clear();
        self.requests = 0;
        self.bytes = 0;
    }

    /// Adds the rest of a request, from `offset` on, to its `place`. False when there was no room for all of it.
    pub(super) fn push(
        &mut self,
        work: &Work<'_>,
        index: u64,
        request: &QueuedRequest,
        offset: u64,
        place: &CheckedRange,
    ) -> bool {
        if request.length == 0 {
            self.requests += 1;
            return true;
        }
        let start = self.bytes;
        for piece in work.queue.pieces(index, offset) {
            let length = piece.length.min(work.budget.bytes.saturating_sub(self.bytes));
            if length == 0 || self.local.len() == MAX_RANGES {
                break;
            }
            self.local.push(Range::new(piece.address, length));
            self.bytes += length;
        }
        let added = self.bytes - start;
        if added == 0 {
            return false;
        }
        self.opcode = Some(request.opcode);
        self.space = place.space;
        self.plain = place.cannot_fault;
        self.remote.push(Range::new(place.address + offset, added));
        let whole = offset + added == request.length;
        self.requests += u64::from(whole);
        whole && self.remote.len() < MAX_RANGES
    }
}

/// Why a request is not added.
pub(super) enum Refused {
    BatchFull,
    /// The remote key is not among those that the set's table has.
    UnknownKey,
    Failed(CompletionStatus),
}

/// Checks both sides of a request, and pins their regions. Answers where its remote range lies in `memory`; that neither side
/// can fault, if [`CheckedRange::cannot_fault`] says so.
pub(super) fn check(
    work: &Work<'_>,
    index: u64,
    request: &QueuedRequest,
    local: &mut PinSet<'_>,
    remote: &mut PinSet<'_>,
    memory: &FarMemory,
) -> Result<CheckedRange, Refused> {
    if request.length > u64::from(MAX_MESSAGE) {
        return Err(Refused::Failed(CompletionStatus::LocalLength));
    }
    if request.length == 0 {
        return Ok(CheckedRange {
            space: memory.space(),
            address: request.remote_address,
            cannot_fault: false,
        });
    }
    let refuse = |status| {
        move |problem| match problem {
            Unpinned::Full => Refused::BatchFull,
            Unpinned::Violation(_) => Refused::Failed(status),
        }
    };
    let refuse_remote = |problem| match problem {
        Unpinned::Violation(Violation::UnknownKey) => Refused::UnknownKey,
        problem => refuse(CompletionStatus::RemoteAccess)(problem),
    };
    let (local_right, remote_right) = rights(request.opcode);
    let mut cannot_fault = true;
    for Piece { address, length, lkey } in work.queue.pieces(index, 0) {
        cannot_fault &= local
            .check(lkey, address, length, local_right)
            .map_err(refuse(CompletionStatus::LocalProtection))?;
    }
    let pinned = remote
        .checked(request.rkey, request.remote_address, request.length, remote_right)
        .map_err(refuse_remote)?;
    let place = memory.locate(pinned, request.remote_address, request.length, request.opcode);
    Ok(CheckedRange { cannot_fault: cannot_fault && place.cannot_fault, ..place })
}
