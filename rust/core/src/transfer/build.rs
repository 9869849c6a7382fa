//! From the caller's iovs to validated pieces.

use std::sync::Arc;

use super::{Iov, SubmitError};
use crate::memory::{MemoryKind, Region, RegionId, RemoteCheck, RemoteTable, Snapshot, holds};
use crate::pool::{Piece, PieceList};

/// Iovs by index, wherever they are: a slice, or the four vectors of a C++ caller.
pub trait PieceSource {
    /// Number of iovs.
    fn len(&self) -> usize;
    /// The iov at `index`; `None` only from `len` on.
    fn piece(&self, index: usize) -> Option<Iov>;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PieceSource for [Iov] {
    fn len(&self) -> usize {
        <[Iov]>::len(self)
    }
    #[inline]
    fn piece(&self, index: usize) -> Option<Iov> {
        self.get(index).copied()
    }
}

impl<const N: usize> PieceSource for [Iov; N] {
    fn len(&self) -> usize {
        N
    }
    #[inline]
    fn piece(&self, index: usize) -> Option<Iov> {
        self.get(index).copied()
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
        for index in 0..iovs {
            let length = source.piece(index).map_or(0, |iov| iov.length);
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
    /// Neighbours that touch on both sides are joined up to this length.
    pub merge_limit: u32,
}

/// Validates the iovs of `share` and appends them to `list` as pieces, joining neighbours that touch on both sides.
///
/// The first bad iov ends it with an error; the list is then to be thrown away.
#[inline]
pub fn build<S: PieceSource + ?Sized>(
    source: &S,
    share: Share,
    scope: &Scope<'_>,
    list: &mut PieceList,
) -> Result<(), SubmitError> {
    let (start, end) = match share {
        Share::Range { start, end } => (start, end),
        Share::Stripe { .. } => (0, source.len()),
    };
    list.inline = true;
    list.pieces.reserve(end - start);
    let mut local = LocalCache::new();
    let mut remote = RemoteCache::new();
    for index in start..end {
        let Some(iov) = source.piece(index) else { break };
        // The hits take single values: a reference to the iov would make the compiler copy all of it to memory first.
        if !local.hits(iov.region, iov.local, iov.length) {
            local.look_up(source, index, scope, list)?;
        }
        if !remote.hits(iov.remote.rkey, iov.remote.address, iov.remote.size, iov.length) {
            remote.look_up(source, index, scope)?;
        }
        let lkey = local.lkey;
        let (offset, length) = match share {
            Share::Range { .. } => (0, iov.length),
            Share::Stripe { part, of } => stripe(iov.length, index, part, of),
        };
        if length == 0 {
            continue;
        }
        let (from, to) = (iov.local + offset, iov.remote.address + offset);
        if let Some(last) = list.pieces.last_mut()
            && last.local + u64::from(last.length) == from
            && last.remote + u64::from(last.length) == to
            && last.lkey == lkey
            && last.rkey == iov.remote.rkey
            && u64::from(last.length) + length <= u64::from(scope.merge_limit)
        {
            last.length += length as u32;
            continue;
        }
        push(
            list,
            Piece { local: from, remote: to, length: 0, lkey, rkey: iov.remote.rkey, iov: index as u32 },
            length,
        );
    }
    Ok(())
}

/// Appends `length` bytes from `piece` on, in as many pieces as it takes.
#[inline]
fn push(list: &mut PieceList, piece: Piece, length: u64) {
    let mut offset = 0;
    loop {
        let take = (length - offset).min(u64::from(Piece::MAX_LENGTH));
        list.pieces.push(Piece {
            local: piece.local + offset,
            remote: piece.remote + offset,
            length: take as u32,
            ..piece
        });
        offset += take;
        if offset == length {
            break;
        }
    }
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
}

impl LocalCache {
    fn new() -> Self {
        Self { id: 0, address: 0, length: 0, lkey: 0 }
    }

    #[inline(always)]
    fn hits(&self, region: Option<RegionId>, address: u64, length: u64) -> bool {
        region.is_none_or(|id| id.0 == self.id)
            && self.id != 0
            && holds(self.address, self.length, address, length)
    }

    #[inline(never)]
    fn look_up<S: PieceSource + ?Sized>(
        &mut self,
        source: &S,
        index: usize,
        scope: &Scope<'_>,
        list: &mut PieceList,
    ) -> Result<(), SubmitError> {
        let Some(iov) = &source.piece(index) else { return Ok(()) };
        let region = find_local(iov, index, scope.local)?;
        *self = Self { id: region.id.0, address: region.address, length: region.length, lkey: region.lkey };
        // A short look back finds the common patterns; a region held twice only costs its entry.
        if !list.holds.iter().rev().take(4).any(|hold| hold.region().id == region.id) {
            let hold =
                region.hold().ok_or_else(|| local_error(iov, index, "is in a region being deregistered"))?;
            list.holds.push(hold);
        }
        list.inline &= region.kind == MemoryKind::Host;
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
            Some(region) if holds(region.address, region.length, iov.local, iov.length) => Ok(region),
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
        rkey == self.rkey && length <= u64::from(size) && holds(self.base, self.size, address, length)
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
