//! From the caller's iovs to work requests: everything is checked, then cut and joined.

use std::ops::Range;

use rustix::param::page_size;

use super::cutter::{CheckedIov, Cutter, Placed, TooManyRequests, set_only};
use super::plan::{fraction, stripe};
use super::region_resolver::{GpuFlushRead, RegionResolver, Unfit, chunk, holds_remote};
use super::segments::cut_at_segments;
use super::slice_policy::SlicePolicy;
use super::{Iov, IovSource, Scope, Share, SubmitError};
use crate::fabric::Opcode;
use crate::memory::{Recent, Registry};
use crate::pool::RequestList;

/// Validates the iovs of `share` and makes work requests of them in `list`, which is empty, cut and joined as the policy
/// says. `recent` is that of the lane which will post them, if its worker's lock is held.
///
/// The first bad iov ends it with an error; the list is then to be thrown away.
pub fn build<S: IovSource + ?Sized>(
    source: &S,
    share: Share,
    scope: Scope<'_>,
    opcode: Opcode,
    list: &mut RequestList,
    recent: Option<&mut Recent>,
) -> Result<(), SubmitError> {
    // Of an earlier part, and not to be counted when the lane changes its region.
    list.lease = None;
    // Apart from the list while the cutter has that.
    let mut resolver = RegionResolver::new(scope, recent, std::mem::take(&mut list.holds));
    let built = match share {
        Share::Range { start, end } => {
            let mut cutter = Cutter::new(list, *scope.policy, opcode, end - start);
            cut_range(source, start..end, &mut resolver, &mut cutter)
        }
        Share::Stripe { part, of } => {
            let mut cutter = Cutter::new(list, *scope.policy, opcode, source.len().div_ceil(of));
            let page = page_size() as u64;
            cut_stripes(
                source,
                |length, index| stripe(length, index, part, of, page),
                &mut resolver,
                &mut cutter,
            )
        }
        Share::Fraction { start, end } => {
            let mut cutter = Cutter::new(list, *scope.policy, opcode, source.len());
            let page = page_size() as u64;
            cut_stripes(
                source,
                |length, index| fraction(length, index, (start, end), page),
                &mut resolver,
                &mut cutter,
            )
        }
    };
    let (holds, lease, gpu_flushes) = resolver.into_uses();
    (list.holds, list.lease) = (holds, lease);
    built?;
    match gpu_flushes {
        None => Ok(()),
        Some(gpu_flushes) => append_gpu_flushes(source, &gpu_flushes, scope.local, list),
    }
}

/// Appends what is read behind the WRITEs of a list. Nothing if there are no WRITEs.
#[cold]
fn append_gpu_flushes<S: IovSource + ?Sized>(
    source: &S,
    gpu_flushes: &[GpuFlushRead],
    local: &Registry,
    list: &mut RequestList,
) -> Result<(), SubmitError> {
    if list.is_empty() {
        return Ok(());
    }
    for gpu_flush in gpu_flushes {
        let (landing, hold) = local.gpu_flush_landing().ok_or_else(|| SubmitError::Remote {
            iov: gpu_flush.iov,
            address: gpu_flush.address,
            length: source.iov(gpu_flush.iov).map_or(0, |iov| iov.length),
            problem: CANNOT_FLUSH,
        })?;
        if !list.append_gpu_flush((gpu_flush.address, gpu_flush.rkey), gpu_flush.iov as u32, landing, hold) {
            return Err(SubmitError::TooLong { iov: gpu_flush.iov });
        }
    }
    Ok(())
}

const CANNOT_FLUSH: &str = "is GPU memory that is flushed by a READ behind the WRITE, and the byte that this needs cannot be \
                            registered here (see the log)";

/// The one fast path: the work request of a single iov that is like the last one of its lane, and is not to be cut. False,
/// and nothing is done, if it is not so. Without this a WRITE alone costs 400 instructions more.
#[inline(always)]
pub fn build_one(
    iov: &Iov,
    policy: &SlicePolicy,
    opcode: Opcode,
    list: &mut RequestList,
    recent: &Recent,
) -> bool {
    if !holds_remote(&recent.remote, iov) || !policy.takes_whole(iov.length) {
        return false;
    }
    let Some(local) = recent.lease_into(&mut list.lease, iov.region, iov.local, iov.length) else {
        return false;
    };
    set_only(list, policy, opcode, &chunk(iov, 0, &local))
}

/// Iovs that are like those before them go in runs, which cost a third of what [`Cutter::push`] does.
#[inline]
fn cut_range<S: IovSource + ?Sized>(
    source: &S,
    Range { start: mut at, end }: Range<usize>,
    resolver: &mut RegionResolver<'_>,
    cutter: &mut Cutter<'_>,
) -> Result<(), SubmitError> {
    while at < end {
        let Some(iov) = source.iov(at) else { break };
        let chunk = match resolver.check(&iov, at, cutter.opcode()) {
            Ok(chunk) => chunk,
            Err(unfit) => {
                cut_unfit(&iov, at, (0, iov.length), unfit, resolver, cutter)?;
                at += 1;
                continue;
            }
        };
        at += 1;
        let placed = if chunk.length == 0 { Placed::Joined } else { push(cutter, &chunk)? };
        // Behind one that was gathered comes another such, most often.
        if at < end && placed == Placed::Apart {
            let like = resolver.like(source.last_key());
            at += cutter.push_joined(&like, source.named(at..end));
            at += cutter.push_apart(&like, source.named(at..end), at as u32);
        }
    }
    Ok(())
}

fn cut_stripes<S: IovSource + ?Sized>(
    source: &S,
    stripe: impl Fn(u64, usize) -> (u64, u64),
    resolver: &mut RegionResolver<'_>,
    cutter: &mut Cutter<'_>,
) -> Result<(), SubmitError> {
    for (index, iov) in source.iovs(0..source.len()).enumerate() {
        let (offset, length) = stripe(iov.length, index);
        let chunk = match resolver.check(&iov, index, cutter.opcode()) {
            Ok(chunk) => chunk,
            Err(unfit) => {
                cut_unfit(&iov, index, (offset, length), unfit, resolver, cutter)?;
                continue;
            }
        };
        if length > 0 {
            let stripe =
                CheckedIov { local: chunk.local + offset, remote: chunk.remote + offset, length, ..chunk };
            push(cutter, &stripe)?;
        }
    }
    Ok(())
}

/// Cuts a part of an iov that is in several segments; else says what is wrong with the iov.
#[cold]
fn cut_unfit(
    iov: &Iov,
    index: usize,
    part: (u64, u64),
    unfit: Unfit,
    resolver: &mut RegionResolver<'_>,
    cutter: &mut Cutter<'_>,
) -> Result<(), SubmitError> {
    match unfit {
        Unfit::Refused(error) => Err(error),
        Unfit::InSegments => cut_at_segments(iov, index, part, resolver, cutter),
    }
}

#[inline]
fn push(cutter: &mut Cutter<'_>, chunk: &CheckedIov) -> Result<Placed, SubmitError> {
    cutter.push(chunk).map_err(|TooManyRequests| SubmitError::TooLong { iov: chunk.iov as usize })
}
