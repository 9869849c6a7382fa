//! Iovs that are not inside one segment on each side: cut where one segment ends and the next begins, each piece with the keys of
//! its segments.

use super::cutter::{CheckedIov, Cutter, TooManyRequests};
use super::region_resolver::{RegionResolver, local_error, remote_error};
use super::{Iov, SubmitError};
use crate::fabric::Opcode;
use crate::memory::{RemoteRegion, RemoteTable};

/// The keys of the peer's end of an iov.
#[derive(Debug)]
pub(super) enum RemoteSegments {
    /// One for all of it.
    One(u32),
    /// Where each segment ends, its key, and [`RemoteRegion::gpu_flush`](crate::memory::RemoteRegion::gpu_flush), from the segment with the first byte on.
    Many(Vec<(u64, u32, bool)>),
}

impl RemoteSegments {
    /// Those of the region that the iov's key is of; `None` if that region does not hold the iov.
    pub(super) fn of(table: &RemoteTable, iov: &Iov) -> Option<Self> {
        let segments = table.segments(iov.remote.rkey, iov.remote.address, iov.length)?;
        let end = |segment: &RemoteRegion| segment.base.saturating_add(segment.size);
        let segments = segments.iter().map(|segment| (end(segment), segment.rkey, segment.gpu_flush));
        Some(Self::Many(segments.collect()))
    }

    /// The key for this address, how many bytes from there on have it, and whether they are still to be marked for a flush.
    fn at(&self, address: u64) -> Option<(u32, u64, bool)> {
        match self {
            // The resolver has marked it when it looked it up.
            Self::One(rkey) => Some((*rkey, u64::MAX, false)),
            Self::Many(segments) => {
                let (end, rkey, gpu_flush) =
                    segments.get(segments.partition_point(|(end, ..)| *end <= address))?;
                Some((*rkey, end - address, *gpu_flush))
            }
        }
    }
}

/// Appends the `length` bytes of iov `index` that begin `offset` bytes behind its start. The iov is checked as a whole before.
#[cold]
pub(super) fn cut_at_segments(
    iov: &Iov,
    index: usize,
    (offset, length): (u64, u64),
    resolver: &mut RegionResolver<'_>,
    cutter: &mut Cutter<'_>,
) -> Result<(), SubmitError> {
    let (local, remote) = resolver.find_segments(iov, index, cutter.opcode())?;
    let (mut at, end) = (offset, offset + length);
    while at < end {
        let (near, far) = (iov.local + at, iov.remote.address + at);
        // Both regions hold the iov, so each byte has keys; if one had none, the transfer must not be taken for a shorter one.
        let Some(segment) = local.segment_at(near) else {
            return Err(local_error(iov, index, "internal error: has a part without a key"));
        };
        let Some((rkey, behind, gpu_flush)) = remote.at(far) else {
            return Err(remote_error(iov, index, "internal error: has a part without a key"));
        };
        if gpu_flush && cutter.opcode() == Opcode::Write {
            resolver.gpu_flush(far, rkey, index);
        }
        let length = (end - at).min(segment.end() - near).min(behind);
        let lkey = segment.lkey;
        let readable = local.readable;
        let chunk = CheckedIov { local: near, remote: far, length, lkey, rkey, readable, iov: index as u32 };
        cutter.push(&chunk).map_err(|TooManyRequests| SubmitError::TooLong { iov: index })?;
        at += length;
    }
    Ok(())
}
