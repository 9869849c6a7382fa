//! From the caller's iovs to validated pieces.

use std::ops::Range;
use std::sync::Arc;

use super::{Iov, SubmitError};
use crate::fabric::Opcode;
use crate::memory::{
    Hold, MemoryKind, Region, RegionId, RemoteCheck, RemoteTable, Snapshot, holds as contains,
};
use crate::pool::{Chunk, Cutter, RequestList, SlicePolicy, TooManyRequests};

/// The iovs of a transfer, wherever they are: a slice, or the four vectors of a C++ caller.
pub trait PieceSource {
    /// Number of iovs.
    fn len(&self) -> usize;
    /// The iovs of `range`; none if it is not within `len`.
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov>;
    /// The lengths of all iovs, in bytes.
    fn lengths(&self) -> impl Iterator<Item = u64>;
    /// The iov at `index`; `None` from `len` on.
    #[inline]
    fn piece(&self, index: usize) -> Option<Iov> {
        self.iovs(index..index.checked_add(1)?).next()
    }
    /// Whether there are none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PieceSource for [Iov] {
    #[inline]
    fn len(&self) -> usize {
        <[Iov]>::len(self)
    }
    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.get(range).unwrap_or_default().iter().copied()
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.iter().map(|iov| iov.length)
    }
}

impl<const N: usize> PieceSource for [Iov; N] {
    #[inline]
    fn len(&self) -> usize {
        N
    }
    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.as_slice().iovs(range)
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.as_slice().lengths()
    }
}

/// Which share of the iovs one part gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Iovs `start..end`, whole.
    Range {
        /// First.
        start: usize,
        /// Behind the last.
        end: usize,
    },
    /// Stripe `part` of `of` of every long iov; short ones whole, in turn.
    Stripe {
        /// Which stripe.
        part: usize,
        /// Of how many.
        of: usize,
    },
}

/// How a transfer is spread over lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    parts: usize,
    striped: bool,
    iovs: usize,
}

/// Bytes that a part must at least have: below that a second lane costs more than it brings.
const MIN_PART: u64 = 256 << 10;

/// Stripes begin at multiples of this, the page of most memory.
const STRIPE_ALIGN: u64 = 4096;

impl Plan {
    /// Spreads `source` over at most `lanes` lanes.
    #[inline]
    pub fn new(source: &(impl PieceSource + ?Sized), lanes: usize) -> Self {
        let iovs = source.len();
        let (mut total, mut longest) = (0u64, 0u64);
        for length in source.lengths() {
            total = total.saturating_add(length);
            longest = longest.max(length);
        }
        let parts = usize::try_from(total / MIN_PART).unwrap_or(usize::MAX).clamp(1, lanes.max(1));
        // Dealing out whole iovs balances well unless one of them is a large share of all.
        let striped = parts > 1 && longest.saturating_mul(2 * parts as u64) > total;
        Self { parts, striped, iovs }
    }

    /// Number of parts, at least 1.
    pub fn parts(&self) -> usize {
        self.parts
    }

    /// The share of part `part`.
    pub fn share(&self, part: usize) -> Share {
        if self.striped {
            Share::Stripe { part, of: self.parts }
        } else {
            let bound = |part: usize| (self.iovs as u128 * part as u128 / self.parts as u128) as usize;
            Share::Range { start: bound(part), end: bound(part + 1) }
        }
    }
}

/// What iovs are validated against.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Our regions.
    pub local: &'a Snapshot,
    /// The peer's.
    pub remote: &'a RemoteTable,
    /// How iovs are cut into work requests.
    pub policy: SlicePolicy,
}

/// Validates the iovs of `share` and appends them to `list` as work requests, cut and joined as the policy says.
///
/// The first bad iov ends it with an error; the list is then to be thrown away.
#[inline]
pub fn build<S: PieceSource + ?Sized>(
    source: &S,
    share: Share,
    scope: &Scope<'_>,
    opcode: Opcode,
    list: &mut RequestList,
) -> Result<(), SubmitError> {
    let (start, end, expected) = match share {
        Share::Range { start, end } => (start, end, end - start),
        Share::Stripe { of, .. } => (0, source.len(), source.len().div_ceil(of)),
    };
    // Apart from the list while the cutter has that.
    let mut holds = std::mem::take(&mut list.holds);
    let mut cutter = Cutter::new(list, scope.policy, opcode, expected);
    let built = cut(source, start..end, share, scope, &mut cutter, &mut holds);
    cutter.finish();
    list.holds = holds;
    built
}

#[inline]
fn cut<S: PieceSource + ?Sized>(
    source: &S,
    range: Range<usize>,
    share: Share,
    scope: &Scope<'_>,
    cutter: &mut Cutter<'_>,
    holds: &mut Vec<Hold>,
) -> Result<(), SubmitError> {
    let mut local = LocalCache::new();
    let mut remote = RemoteCache::new();
    for (index, iov) in range.clone().zip(source.iovs(range)) {
        // The hits take single values: a reference to the iov would make the compiler copy all of it to memory first.
        if !local.hits(iov.region, iov.local, iov.length) {
            local.look_up(source, index, scope, holds)?;
        }
        if !remote.hits(iov.remote.rkey, iov.remote.address, iov.remote.size, iov.length) {
            remote.look_up(source, index, scope)?;
        }
        let (offset, length) = match share {
            Share::Range { .. } => (0, iov.length),
            Share::Stripe { part, of } => stripe(iov.length, index, part, of),
        };
        if length == 0 {
            continue;
        }
        let chunk = Chunk {
            local: iov.local + offset,
            remote: iov.remote.address + offset,
            length,
            lkey: local.lkey,
            rkey: iov.remote.rkey,
            host: local.host,
            iov: index as u32,
        };
        cutter.push(chunk).map_err(|TooManyRequests| SubmitError::TooLong { iov: index })?;
    }
    Ok(())
}

/// Offset and length of stripe `part` of `of` of an iov; iovs too short to cut belong whole to one part in turn.
fn stripe(length: u64, index: usize, part: usize, of: usize) -> (u64, u64) {
    if length < MIN_PART.max(of as u64 * STRIPE_ALIGN) {
        return if index % of == part { (0, length) } else { (0, 0) };
    }
    let bound = |part: usize| {
        if part == of {
            length
        } else {
            (u128::from(length) * part as u128 / of as u128) as u64 / STRIPE_ALIGN * STRIPE_ALIGN
        }
    };
    (bound(part), bound(part + 1) - bound(part))
}

/// The region of the last iov: neighbours mostly share it.
struct LocalCache {
    id: u64,
    address: u64,
    length: u64,
    lkey: u32,
    host: bool,
}

impl LocalCache {
    fn new() -> Self {
        Self { id: 0, address: 0, length: 0, lkey: 0, host: false }
    }

    #[inline(always)]
    fn hits(&self, region: Option<RegionId>, address: u64, length: u64) -> bool {
        region.is_none_or(|id| id.0 == self.id)
            && self.id != 0
            && contains(self.address, self.length, address, length)
    }

    #[inline(never)]
    fn look_up<S: PieceSource + ?Sized>(
        &mut self,
        source: &S,
        index: usize,
        scope: &Scope<'_>,
        holds: &mut Vec<Hold>,
    ) -> Result<(), SubmitError> {
        let Some(iov) = &source.piece(index) else { return Ok(()) };
        let region = find_local(iov, index, scope.local)?;
        *self = Self {
            id: region.id.0,
            address: region.address,
            length: region.length,
            lkey: region.lkey,
            host: region.kind == MemoryKind::Host,
        };
        // A short look back finds the common patterns; a region held twice only costs its entry.
        if !holds.iter().rev().take(4).any(|hold| hold.region().id == region.id) {
            let hold =
                region.hold().ok_or_else(|| local_error(iov, index, "is in a region being deregistered"))?;
            holds.push(hold);
        }
        Ok(())
    }
}

/// The region of `regions` that holds the local range of iov `index`.
#[cold]
pub(crate) fn find_local<'a>(
    iov: &Iov,
    index: usize,
    regions: &'a Snapshot,
) -> Result<&'a Arc<Region>, SubmitError> {
    match iov.region {
        Some(RegionId(0)) => Err(local_error(iov, index, "names region 0, which never exists")),
        Some(id) => match regions.by_id(id) {
            None => Err(local_error(iov, index, "names a region that this engine does not have")),
            Some(region) if contains(region.address, region.length, iov.local, iov.length) => Ok(region),
            Some(_) => Err(local_error(iov, index, "is not inside the region that it names")),
        },
        None => regions
            .by_address(iov.local, iov.length)
            .ok_or_else(|| local_error(iov, index, "is in no registered region")),
    }
}

/// The peer's region of the last iov.
struct RemoteCache {
    rkey: u32,
    base: u64,
    size: u64,
}

impl RemoteCache {
    fn new() -> Self {
        Self { rkey: 0, base: 0, size: 0 }
    }

    #[inline(always)]
    fn hits(&self, rkey: u32, address: u64, size: u32, length: u64) -> bool {
        rkey == self.rkey && length <= u64::from(size) && contains(self.base, self.size, address, length)
    }

    #[inline(never)]
    fn look_up<S: PieceSource + ?Sized>(
        &mut self,
        source: &S,
        index: usize,
        scope: &Scope<'_>,
    ) -> Result<(), SubmitError> {
        let Some(iov) = &source.piece(index) else { return Ok(()) };
        // A descriptor's size is 32 bits wide; longer iovs are checked against the peer's table alone.
        if iov.length > u64::from(iov.remote.size) && iov.length <= u64::from(u32::MAX) {
            return Err(remote_error(iov, index, "is longer than its descriptor"));
        }
        match scope.remote.check(iov.remote.rkey, iov.remote.address, iov.length) {
            RemoteCheck::Inside(region) => {
                *self = Self { rkey: region.rkey, base: region.base, size: region.size };
                Ok(())
            }
            RemoteCheck::UnknownKey if iov.remote.address.checked_add(iov.length).is_some() => Ok(()),
            RemoteCheck::UnknownKey => Err(remote_error(iov, index, "wraps around the address space")),
            RemoteCheck::Outside => Err(remote_error(iov, index, "is outside the peer's region of that key")),
        }
    }
}

#[cold]
fn local_error(iov: &Iov, index: usize, problem: &'static str) -> SubmitError {
    SubmitError::Local { iov: index, address: iov.local, length: iov.length, problem }
}

#[cold]
fn remote_error(iov: &Iov, index: usize, problem: &'static str) -> SubmitError {
    SubmitError::Remote { iov: index, address: iov.remote.address, length: iov.length, problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The stripes of an iov tile it, and a short one belongs to exactly one part.
        #[test]
        fn stripes_tile(length in prop_oneof![0u64..100_000, any::<u64>()], index in 0usize..20, of in 1usize..9) {
            let stripes: Vec<_> = (0..of).map(|part| stripe(length, index, part, of)).collect();
            prop_assert_eq!(stripes.iter().map(|(_, length)| u128::from(*length)).sum::<u128>(), u128::from(length));
            let mut end = 0;
            for (offset, length) in stripes.into_iter().filter(|(_, length)| *length > 0) {
                prop_assert_eq!(offset, end);
                end = offset + length;
            }
        }

        /// Shares of whole iovs cover each iov once.
        #[test]
        fn ranges_tile(iovs in 1usize..5000, parts in 1usize..9) {
            let plan = Plan { parts, striped: false, iovs };
            let mut next = 0;
            for part in 0..parts {
                let Share::Range { start, end } = plan.share(part) else { panic!("not a range") };
                prop_assert_eq!(start, next);
                next = end;
            }
            prop_assert_eq!(next, iovs);
        }
    }
}
