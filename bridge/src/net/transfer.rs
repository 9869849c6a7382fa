//! Starting transfers.
#![allow(unsafe_code, reason = "reads the C++ caller's memory handles")]

use std::ops::Range;
use std::sync::Arc;

use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{Iov, IovSource, Opcode, RemoteRange};

use super::answer::{NetError, answer};
use super::comm::Comm;
use super::ffi::{Answer, Batch, Direction, MemoryHandle};
use super::requests::{REQUESTS, Request};

/// One request for all pieces of the batch. Nothing is posted unless all of them are valid.
///
/// # Safety
/// The handles that are not null point at memory handles.
pub(super) unsafe fn start(
    comm: &Comm,
    direction: Direction,
    batch: &Batch<'_>,
    request: &mut usize,
) -> Answer {
    let (call, opcode) = match (direction, batch.sizes.len()) {
        (Direction::Put, _) => ("iput", Opcode::Write),
        (_, 1) => ("iget", Opcode::Read),
        _ => ("igetBatch", Opcode::Read),
    };
    // SAFETY: the caller's promise.
    let pieces = unsafe { Pieces::new(batch) };
    answer(call, pieces.and_then(|pieces| post(comm, opcode, &pieces)), |made| *request = made)
}

/// One request for each piece of a batch of puts. Nothing is posted unless all of them are valid; when the engine
/// takes only the first ones, `posted` is their number.
///
/// # Safety
/// As for [`start`].
pub(super) unsafe fn start_each(
    comm: &Comm,
    batch: &Batch<'_>,
    requests: &mut [usize],
    posted: &mut usize,
) -> Answer {
    *posted = 0;
    // SAFETY: the caller's promise.
    let pieces = unsafe { Pieces::new(batch) };
    let result = pieces.and_then(|pieces| {
        for (index, request) in requests.iter_mut().enumerate().take(pieces.len()) {
            *request = post(comm, Opcode::Write, &Single(pieces.iov(index)))?;
            *posted += 1;
        }
        Ok(())
    });
    answer("iputBatch", result, drop)
}

fn post(comm: &Comm, opcode: Opcode, pieces: &impl IovSource) -> Result<usize, NetError> {
    let connection = comm.connection();
    let bytes = (0..pieces.len()).filter_map(|index| pieces.iov(index)).map(|piece| piece.length).sum();
    let transfer = connection.submit(opcode, pieces)?;
    let request = Request { connection: Arc::clone(connection), transfer, bytes };
    REQUESTS.get().insert(request).ok_or_else(|| {
        // No caller can poll it, so it must not go on.
        connection.cancel(transfer);
        NetError::internal("65,536 requests wait to be polled: test the old ones first")
    })
}

/// A batch that has been checked: every piece is valid by itself.
struct Pieces<'a>(&'a Batch<'a>);

/// One piece of it.
struct Single(Option<Iov>);

impl<'a> Pieces<'a> {
    /// # Safety
    /// The handles that are not null point at memory handles, as long as this lives.
    unsafe fn new(batch: &'a Batch<'a>) -> Result<Self, NetError> {
        for (index, &size) in batch.sizes.iter().enumerate() {
            // SAFETY: the caller's promise.
            let (local, remote) =
                unsafe { (handle(batch.local_handles, index), handle(batch.remote_handles, index)) };
            let (Some(local), Some(remote)) = (local, remote) else {
                return Err(NetError::internal(format_args!("piece {index}: a memory handle is NULL")));
            };
            let fits = |handle: &MemoryHandle, offsets: &[u64]| {
                offsets.get(index).and_then(|&offset| handle.base.checked_add(offset)).is_some()
            };
            if u32::try_from(size).is_err() {
                return Err(NetError::internal(format_args!(
                    "piece {index}: {size} bytes, at most 4 GiB - 1 can be moved"
                )));
            }
            if !fits(local, batch.local_offsets) || !fits(remote, batch.remote_offsets) {
                return Err(NetError::internal(format_args!("piece {index}: an offset is out of range")));
            }
        }
        Ok(Self(batch))
    }
}

impl IovSource for Pieces<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.0.sizes.len()
    }

    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        range.map_while(|index| self.at(index))
    }

    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.0.sizes.iter().map(|size| *size as u64)
    }
}

impl Pieces<'_> {
    #[inline]
    fn at(&self, index: usize) -> Option<Iov> {
        let batch = self.0;
        // SAFETY: the promise of `new`, which also found none of them null.
        let (local, remote) =
            unsafe { (handle(batch.local_handles, index)?, handle(batch.remote_handles, index)?) };
        let size = *batch.sizes.get(index)?;
        Some(Iov {
            local: local.base.wrapping_add(*batch.local_offsets.get(index)?),
            length: size as u64,
            // A caller's copy of the first 16 bytes alone still finds its region.
            region: (local.region != 0).then_some(RegionId(local.region)),
            remote: RemoteRange {
                address: remote.base.wrapping_add(*batch.remote_offsets.get(index)?),
                size: size as u32,
                rkey: remote.rkey,
            },
        })
    }
}

impl IovSource for Single {
    #[inline]
    fn len(&self) -> usize {
        1
    }

    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.0.filter(|_| range == (0..1)).into_iter()
    }

    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|piece| piece.length)
    }
}

/// The handle of a piece; one alone is the handle of all pieces.
///
/// # Safety
/// The elements point at memory handles unless they are null.
unsafe fn handle(handles: &[*const MemoryHandle], index: usize) -> Option<&MemoryHandle> {
    let handle = if handles.len() == 1 { handles.first() } else { handles.get(index) };
    // SAFETY: the caller's promise.
    unsafe { handle?.as_ref() }
}
