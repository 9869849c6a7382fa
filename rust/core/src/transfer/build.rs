//! From the caller's iovs to validated pieces.

use std::ops::Range;
use std::sync::Arc;

use super::{Iov, Piece, SubmitError};
use crate::fabric::Opcode;
use crate::memory::{
    Hold, LocalRange, Recent, Region, RegionId, Registry, RemoteCheck, RemoteRegion, RemoteTable, Snapshot,
    holds,
};
use crate::pool::{Chunk, Cutter, Placed, RequestList, SlicePolicy, TooManyRequests, push_only};
use crate::sync::SwapGuard;

/// The iovs of a transfer, wherever they are: a slice, or the four vectors of a C++ caller.
pub trait PieceSource {
    /// Number of iovs.
    fn len(&self) -> usize;
    /// The iovs of `range`; none if it is not within `len`.
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece>;
    /// The lengths of all iovs, in bytes.
    fn lengths(&self) -> impl Iterator<Item = u64>;
    /// The iov at `index`; `None` from `len` on.
    #[inline]
    fn piece(&self, index: usize) -> Option<Piece> {
        self.pieces(index..index.checked_add(1)?).next()
    }
    /// Whether there are none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> PieceSource for [T]
where
    for<'a> Piece: From<&'a T>,
{
    #[inline]
    fn len(&self) -> usize {
        <[T]>::len(self)
    }
    #[inline]
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece> {
        self.get(range).unwrap_or_default().iter().map(Piece::from)
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.iter().map(|iov| Piece::from(iov).length)
    }
}

impl<const N: usize> PieceSource for [Iov; N] {
    #[inline]
    fn len(&self) -> usize {
        N
    }
    #[inline]
    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = Piece> {
        self.as_slice().pieces(range)
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

impl Share {
    /// All of them.
    #[inline]
    pub fn all(source: &(impl PieceSource + ?Sized)) -> Self {
        Self::Range { start: 0, end: source.len() }
    }
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
        if iovs == 1 && source.lengths().next().is_some_and(|length| length < 2 * MIN_PART) {
            return Self { parts: 1, striped: false, iovs };
        }
        // Two sums that the compiler makes several at a time; `any`, all lengths or-ed, is no less than the longest.
        let (sum, any) = source
            .lengths()
            .fold((0u64, 0u64), |(sum, any), length| (sum.wrapping_add(length), any | length));
        let total =
            if any <= u64::from(u32::MAX) { sum } else { source.lengths().fold(0, u64::saturating_add) };
        let parts = usize::try_from(total / MIN_PART).unwrap_or(usize::MAX).clamp(1, lanes.max(1));
        // Dealing out whole iovs balances well unless one of them is a large share of all.
        let is_large = |length: u64| length.saturating_mul(2 * parts as u64) > total;
        let striped = parts > 1 && is_large(any) && source.lengths().any(is_large);
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
    pub local: &'a Registry,
    /// The peer's.
    pub remote: &'a RemoteTable,
    /// How iovs are cut into work requests.
    pub policy: SlicePolicy,
}

/// Validates the iovs of `share` and makes work requests of them in `list`, which is empty, cut and joined as the policy
/// says. `recent` is that of the lane which will post them, if its worker's lock is held.
///
/// The first bad iov ends it with an error; the list is then to be thrown away.
#[inline]
pub fn build<S: PieceSource + ?Sized>(
    source: &S,
    share: Share,
    scope: &Scope<'_>,
    opcode: Opcode,
    list: &mut RequestList,
    mut recent: Option<&mut Recent>,
) -> Result<(), SubmitError> {
    if let (Share::Range { start, end }, Some(recent)) = (share, recent.as_deref_mut())
        && end - start == 1
        && let Some(iov) = source.piece(start)
        && build_one(&iov, start, scope.policy, opcode, list, recent)
    {
        return Ok(());
    }
    build_many(source, share, scope, opcode, list, recent)
}

/// The common case of a single iov like the one before it on the lane, for a third of the price; false, and nothing is
/// done, if it is not.
#[inline(always)]
fn build_one(
    iov: &Piece,
    index: usize,
    policy: SlicePolicy,
    opcode: Opcode,
    list: &mut RequestList,
    recent: &mut Recent,
) -> bool {
    if !holds_remote(&recent.remote, iov) || !policy.takes_whole(iov.length) {
        return false;
    }
    let Some(local) = recent.share(iov.region, iov.local, iov.length) else { return false };
    list.shares_recent = true;
    push_only(list, policy, opcode, &chunk(iov, index as u32, &local));
    true
}

#[inline(never)]
fn build_many<S: PieceSource + ?Sized>(
    source: &S,
    share: Share,
    scope: &Scope<'_>,
    opcode: Opcode,
    list: &mut RequestList,
    recent: Option<&mut Recent>,
) -> Result<(), SubmitError> {
    // Apart from the list while the cutter has that.
    let mut sides = Sides {
        scope,
        recent,
        snapshot: None,
        holds: std::mem::take(&mut list.holds),
        shares_recent: false,
        local: LocalRange::default(),
        remote: RemoteRegion::default(),
        other_local: LocalRange::default(),
        other_remote: RemoteRegion::default(),
    };
    let built = match share {
        Share::Range { start, end } => {
            let mut cutter = Cutter::new(list, scope.policy, opcode, end - start);
            cut_range(source, start..end, &mut sides, &mut cutter)
        }
        Share::Stripe { part, of } => {
            let mut cutter = Cutter::new(list, scope.policy, opcode, source.len().div_ceil(of));
            cut_stripes(source, (part, of), &mut sides, &mut cutter)
        }
    };
    list.holds = sides.holds;
    list.shares_recent = sides.shares_recent;
    built
}

/// Iovs that are like those before them go in runs, which cost a third of what [`Cutter::push`] does.
#[inline]
fn cut_range<S: PieceSource + ?Sized>(
    source: &S,
    Range { start: mut at, end }: Range<usize>,
    sides: &mut Sides<'_>,
    cutter: &mut Cutter<'_>,
) -> Result<(), SubmitError> {
    while at < end {
        let Some(iov) = source.piece(at) else { break };
        let chunk = sides.check(&iov, at)?;
        at += 1;
        let placed = if chunk.length == 0 { Placed::Joined } else { push(cutter, &chunk)? };
        // Behind one that was gathered comes another such, most often.
        if at < end && placed == Placed::Apart {
            at += cutter.push_joined(sides.like(source.pieces(at..end), at));
            at += cutter.push_apart(sides.like(source.pieces(at..end), at));
        }
    }
    Ok(())
}

fn cut_stripes<S: PieceSource + ?Sized>(
    source: &S,
    (part, of): (usize, usize),
    sides: &mut Sides<'_>,
    cutter: &mut Cutter<'_>,
) -> Result<(), SubmitError> {
    for (index, iov) in source.pieces(0..source.len()).enumerate() {
        let chunk = sides.check(&iov, index)?;
        let (offset, length) = stripe(iov.length, index, part, of);
        if length > 0 {
            let stripe =
                Chunk { local: chunk.local + offset, remote: chunk.remote + offset, length, ..chunk };
            push(cutter, &stripe)?;
        }
    }
    Ok(())
}

#[inline]
fn push(cutter: &mut Cutter<'_>, chunk: &Chunk) -> Result<Placed, SubmitError> {
    cutter.push(chunk).map_err(|TooManyRequests| SubmitError::TooLong { iov: chunk.iov as usize })
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

/// The regions on both sides: those of the last iov, which neighbours mostly share, those before, and where others are
/// found.
struct Sides<'a> {
    scope: &'a Scope<'a>,
    recent: Option<&'a mut Recent>,
    /// Our regions, once one had to be looked up.
    snapshot: Option<SwapGuard<Snapshot>>,
    /// Of the regions in use that are not the lane's recent one.
    holds: Vec<Hold>,
    shares_recent: bool,
    local: LocalRange,
    remote: RemoteRegion,
    /// Those before: keys and values, say, take turns.
    other_local: LocalRange,
    other_remote: RemoteRegion,
}

impl Sides<'_> {
    /// The chunk of an iov, valid on both sides.
    #[inline(always)]
    fn check(&mut self, iov: &Piece, index: usize) -> Result<Chunk, SubmitError> {
        if !self.local.holds(iov.region, iov.local, iov.length) {
            std::mem::swap(&mut self.local, &mut self.other_local);
            if !self.local.holds(iov.region, iov.local, iov.length) {
                self.local = self.look_up_local(iov, index)?;
            }
        }
        if !holds_remote(&self.remote, iov) {
            std::mem::swap(&mut self.remote, &mut self.other_remote);
            if !holds_remote(&self.remote, iov) {
                self.look_up_remote(iov, index)?;
            }
        }
        Ok(chunk(iov, index as u32, &self.local))
    }

    /// Chunks of iovs from `index` on, as long as they are valid in the regions of the last one.
    #[inline(always)]
    fn like<I: Iterator<Item = Piece>>(&self, iovs: I, index: usize) -> Like<I> {
        Like { iovs, index: index as u32, local: self.local, remote: self.remote }
    }

    #[inline]
    fn look_up_local(&mut self, iov: &Piece, index: usize) -> Result<LocalRange, SubmitError> {
        if !self.shares_recent
            && let Some(recent) = self.recent.as_deref_mut()
            && let Some(local) = recent.share(iov.region, iov.local, iov.length)
        {
            self.shares_recent = true;
            return Ok(local);
        }
        self.find_local(iov, index)
    }

    #[inline(never)]
    fn find_local(&mut self, iov: &Piece, index: usize) -> Result<LocalRange, SubmitError> {
        let registry = self.scope.local;
        let snapshot = self.snapshot.get_or_insert_with(|| registry.snapshot());
        let region = find_local(iov, index, snapshot)?;
        if let Some(recent) = self.recent.as_deref_mut() {
            if self.shares_recent && recent.is_shared(region.id) {
                return Ok(LocalRange::of(region));
            }
            if !self.shares_recent
                && let Some(local) = recent.replace(region)
            {
                self.shares_recent = true;
                return Ok(local);
            }
        }
        // A short look back finds the common patterns; a region held twice only costs its entry.
        if !self.holds.iter().rev().take(4).any(|hold| hold.region().id == region.id) {
            let hold =
                region.hold().ok_or_else(|| local_error(iov, index, "is in a region being deregistered"))?;
            self.holds.push(hold);
        }
        Ok(LocalRange::of(region))
    }

    #[inline]
    fn look_up_remote(&mut self, iov: &Piece, index: usize) -> Result<(), SubmitError> {
        if let Some(recent) = &self.recent
            && holds_remote(&recent.remote, iov)
        {
            self.remote = recent.remote;
            return Ok(());
        }
        self.find_remote(iov, index)
    }

    #[inline(never)]
    fn find_remote(&mut self, iov: &Piece, index: usize) -> Result<(), SubmitError> {
        // A descriptor's size is 32 bits wide; longer iovs are checked against the peer's table alone.
        if iov.length > u64::from(iov.remote.size) && iov.length <= u64::from(u32::MAX) {
            return Err(remote_error(iov, index, "is longer than its descriptor"));
        }
        match self.scope.remote.check(iov.remote.rkey, iov.remote.address, iov.length) {
            RemoteCheck::Inside(region) => {
                self.remote = region;
                if let Some(recent) = self.recent.as_deref_mut() {
                    recent.remote = region;
                }
                Ok(())
            }
            RemoteCheck::UnknownKey if iov.remote.address.checked_add(iov.length).is_some() => Ok(()),
            RemoteCheck::UnknownKey => Err(remote_error(iov, index, "wraps around the address space")),
            RemoteCheck::Outside => Err(remote_error(iov, index, "is outside the peer's region of that key")),
        }
    }
}

/// See [`Sides::like`]. Not an adapter: its closure would be a call for each iov, which passes everything through memory.
struct Like<I> {
    iovs: I,
    index: u32,
    local: LocalRange,
    remote: RemoteRegion,
}

impl<I: Iterator<Item = Piece>> Iterator for Like<I> {
    type Item = Chunk;

    #[inline(always)]
    fn next(&mut self) -> Option<Chunk> {
        let iov = self.iovs.next()?;
        if !self.local.holds(iov.region, iov.local, iov.length) || !holds_remote(&self.remote, &iov) {
            return None;
        }
        let chunk = chunk(&iov, self.index, &self.local);
        self.index += 1;
        Some(chunk)
    }
}

#[inline(always)]
fn holds_remote(region: &RemoteRegion, iov: &Piece) -> bool {
    iov.length <= u64::from(iov.remote.size) && region.holds(iov.remote.rkey, iov.remote.address, iov.length)
}

#[inline(always)]
fn chunk(iov: &Piece, index: u32, local: &LocalRange) -> Chunk {
    Chunk {
        local: iov.local,
        remote: iov.remote.address,
        length: iov.length,
        lkey: local.lkey,
        rkey: iov.remote.rkey,
        host: local.host,
        iov: index,
    }
}

/// The region of `regions` that holds the local range of iov `index`.
#[cold]
pub(crate) fn find_local<'a>(
    iov: &Piece,
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

#[cold]
fn local_error(iov: &Piece, index: usize, problem: &'static str) -> SubmitError {
    SubmitError::Local { iov: index, address: iov.local, length: iov.length, problem }
}

#[cold]
fn remote_error(iov: &Piece, index: usize, problem: &'static str) -> SubmitError {
    SubmitError::Remote { iov: index, address: iov.remote.address, length: iov.length, problem }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fabric::{Access, SoftwareOptions, software};
    use crate::memory::MemoryKind;
    use crate::transfer::RemoteRange;

    const REGION: u64 = 1 << 16;
    const BASE: u64 = 1 << 40;

    /// Two regions of ours with a gap between them, and two of a peer that touch.
    struct Scene {
        memory: Vec<u8>,
        regions: [RegionId; 2],
        registry: Registry,
        remote: RemoteTable,
    }

    impl Scene {
        fn new() -> Self {
            let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
            let registry = Registry::new(device);
            let memory = vec![0_u8; 3 * REGION as usize];
            let start = memory.as_ptr().expose_provenance() as u64;
            let regions = [0, 2].map(|n| {
                let range = (start + n * REGION, REGION);
                registry.register(range, MemoryKind::Host, Access::FULL, true, None).unwrap()
            });
            let remote = |n: u64| RemoteRegion { base: BASE + n * REGION, size: REGION, rkey: 7 + n as u32 };
            Self { memory, regions, registry, remote: RemoteTable::new(vec![remote(0), remote(1)]) }
        }

        fn local(&self, region: usize) -> u64 {
            self.memory.as_ptr().addr() as u64 + 2 * region as u64 * REGION
        }

        fn is_held(&self, region: usize) -> bool {
            self.registry.snapshot().by_id(self.regions[region]).unwrap().in_use()
        }
    }

    /// Where an iov lies: in which regions, behind the one before or not, how long, and whether it names its region.
    #[derive(Clone, Copy, Debug)]
    struct Step {
        regions: (usize, usize),
        behind: (bool, bool),
        length: u64,
        named: bool,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let sides = prop::sample::select(vec![(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]);
        let behind = prop::sample::select(vec![(true, true), (false, true), (true, false), (false, false)]);
        let length = prop_oneof![8 => 1u64..200, 1 => Just(0u64), 1 => 200u64..2000];
        let step = (sides, behind, length, any::<bool>()).prop_map(|(regions, behind, length, named)| Step {
            regions,
            behind,
            length,
            named,
        });
        // Runs of equal steps are what the fast paths are for.
        prop::collection::vec((step, 1usize..8), 1..12).prop_map(|runs| {
            runs.into_iter().flat_map(|(step, times)| std::iter::repeat_n(step, times)).collect()
        })
    }

    fn pieces(scene: &Scene, steps: &[Step]) -> Vec<Piece> {
        let (mut local, mut remote) = ([0u64; 2], [0u64; 2]);
        steps
            .iter()
            .filter_map(|step| {
                let (near, far) = step.regions;
                local[near] += if step.behind.0 { 0 } else { 64 };
                remote[far] += if step.behind.1 { 0 } else { 64 };
                let (at, to) = (local[near], remote[far]);
                if at + step.length > REGION || to + step.length > REGION {
                    return None;
                }
                local[near] += step.length;
                remote[far] += step.length;
                Some(Piece {
                    local: scene.local(near) + at,
                    length: step.length,
                    region: step.named.then_some(scene.regions[near]),
                    remote: RemoteRange {
                        address: BASE + far as u64 * REGION + to,
                        size: step.length as u32,
                        rkey: 7 + far as u32,
                    },
                })
            })
            .collect()
    }

    proptest! {
        /// Whatever way the iovs take, runs or one by one, they make the requests that they make one by one, and exactly
        /// the regions that they use are held.
        #[test]
        fn runs_change_nothing(steps in steps(), shared: bool, policy in policies(), write: bool) {
            let scene = Scene::new();
            let pieces = pieces(&scene, &steps);
            prop_assume!(!pieces.is_empty());
            let opcode = if write { Opcode::Write } else { Opcode::Read };
            let scope = Scope { local: &scene.registry, remote: &scene.remote, policy };
            let (mut list, mut recent) = (RequestList::default(), Recent::default());
            // Twice: the second time with what the first has left.
            for _ in 0..2 {
                if list.shares_recent {
                    recent.give_back();
                }
                list.clear();
                let share = Share::Range { start: 0, end: pieces.len() };
                build(&pieces[..], share, &scope, opcode, &mut list, shared.then_some(&mut recent)).unwrap();
                let mut plain = RequestList::default();
                let mut cutter = Cutter::new(&mut plain, policy, opcode, 0);
                for (index, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.length > 0) {
                    let snapshot = scene.registry.snapshot();
                    let region = find_local(piece, index, &snapshot).unwrap();
                    cutter.push(&chunk(piece, index as u32, &LocalRange::of(region))).unwrap();
                }
                prop_assert_eq!(list.contents(), plain.contents());
                for region in [0, 1] {
                    let used = steps.iter().any(|step| step.regions.0 == region);
                    prop_assert!(scene.is_held(region) || !used, "region {} is not held", region);
                    prop_assert!(!scene.is_held(region) || used, "region {} is held for nothing", region);
                }
            }
        }
    }

    fn policies() -> impl Strategy<Value = SlicePolicy> {
        (1usize..3000, 0usize..200, 1u32..5, prop::sample::select(vec![0u32, 100])).prop_map(
            |(slice, fragment, sge, inline)| SlicePolicy::new(slice, fragment, 1 << 30, sge, inline),
        )
    }

    #[test]
    fn bad_iovs_are_refused_wherever_they_stand() {
        let scene = Scene::new();
        let scope = Scope {
            local: &scene.registry,
            remote: &scene.remote,
            policy: SlicePolicy::new(0, 0, 1 << 30, 4, 0),
        };
        let step = |_| Step { regions: (0, 0), behind: (false, false), length: 64, named: true };
        let good = pieces(&scene, &(0..12).map(step).collect::<Vec<_>>());
        let outside = scene.local(0) + REGION - 63;
        let far = |address, size, rkey| RemoteRange { address, size, rkey };
        for at in [0, 1, 5, 11] {
            let bad = [
                Piece { local: outside, ..good[at] },
                Piece { local: outside, region: None, ..good[at] },
                Piece { region: Some(RegionId(0)), ..good[at] },
                Piece { region: Some(scene.regions[1]), ..good[at] },
                Piece { length: u64::MAX, ..good[at] },
                Piece { remote: far(BASE + REGION - 63, 64, 7), ..good[at] },
                Piece { remote: far(BASE, 63, 7), ..good[at] },
                Piece { remote: far(BASE, 64, 8), ..good[at] },
                Piece { remote: far(u64::MAX - 62, 64, 9), ..good[at] },
            ];
            for bad in bad {
                let mut pieces = good.clone();
                pieces[at] = bad;
                let (mut list, mut recent) = (RequestList::default(), Recent::default());
                let share = Share::Range { start: 0, end: pieces.len() };
                let built = build(&pieces[..], share, &scope, Opcode::Write, &mut list, Some(&mut recent));
                let (SubmitError::Local { iov, .. } | SubmitError::Remote { iov, .. }) = built.unwrap_err()
                else {
                    panic!("{bad:?}")
                };
                assert_eq!(iov, at, "{bad:?}");
            }
        }
    }

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
