//! The regions on both sides of a transfer: which iovs lie in which, checked one by one or in runs.

use std::sync::Arc;

use super::cutter::{CheckedIov, Run};
use super::segments::RemoteSegments;
use super::slice_policy::SlicePolicy;
use super::{Iov, SubmitError};
use crate::fabric::Opcode;
use crate::memory::{
    Hold, KeyOnRail, Lease, LocalRange, MemoryKind, NO_KEY, Recent, Region, RegionId, RegionSnapshot,
    Registry, RemoteCheck, RemoteRegion, RemoteRegions, RemoteTable, holds,
};
use crate::sync::SwapGuard;

const LOCAL_GPU: &str = "is GPU memory, which the software fabric does not move: it needs a peer in this process, or GPU \
                         memory of a peer on this host with its IPC information, or an RDMA device";
const REMOTE_GPU: &str = "has key 0, as GPU memory has on the software fabric, which does not move it: pass its IPC \
                          information where the peer is on this host, or use an RDMA device";

/// What iovs are validated against.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Our regions.
    pub local: &'a Registry,
    /// The peer's.
    pub remote: &'a RemoteRegions,
    /// How iovs are cut into work requests.
    pub policy: &'a SlicePolicy,
    /// Whether lanes carry GPU memory. Where they do not, its keys are [`NO_KEY`], and it is refused here.
    pub carries_gpu: bool,
}

/// The regions on both sides: those of the last iov, which neighbours mostly share, those before, and where others are
/// found.
pub(super) struct RegionResolver<'a> {
    scope: Scope<'a>,
    recent: Option<&'a mut Recent>,
    /// Our regions, once one had to be looked up.
    snapshot: Option<SwapGuard<RegionSnapshot>>,
    /// The peer's, once one had to be looked up.
    table: Option<SwapGuard<RemoteTable>>,
    /// On the lane's recent region, once an iov uses it.
    lease: Option<Lease>,
    /// Of the other regions in use.
    holds: Vec<Hold>,
    local: LocalRange,
    remote: RemoteRegion,
    /// Those before: keys and values, say, take turns.
    other_local: LocalRange,
    other_remote: RemoteRegion,
    /// What is to be read behind the WRITEs; most transfers have none.
    gpu_flushes: Option<Box<GpuFlushes>>,
}

/// READs of a byte each, behind the WRITEs of a part: one for each region of the peer that is to be flushed.
type GpuFlushes = Vec<GpuFlushRead>;

/// A byte to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct GpuFlushRead {
    pub(super) address: u64,
    pub(super) rkey: u32,
    /// The first iov that is written there.
    pub(super) iov: usize,
}

impl<'a> RegionResolver<'a> {
    /// Knows nothing yet; `holds` is empty.
    pub(super) fn new(scope: Scope<'a>, recent: Option<&'a mut Recent>, holds: Vec<Hold>) -> Self {
        Self {
            scope,
            recent,
            snapshot: None,
            table: None,
            holds,
            lease: None,
            local: LocalRange::default(),
            remote: RemoteRegion::default(),
            other_local: LocalRange::default(),
            other_remote: RemoteRegion::default(),
            gpu_flushes: None,
        }
    }

    /// What keeps the regions registered that the iovs use, and what is to be read behind them.
    pub(super) fn into_uses(self) -> (Vec<Hold>, Option<Lease>, Option<Box<GpuFlushes>>) {
        (self.holds, self.lease, self.gpu_flushes)
    }

    /// The chunk of an iov, valid on both sides.
    #[inline(always)]
    pub(super) fn check(&mut self, iov: &Iov, index: usize, opcode: Opcode) -> Result<CheckedIov, Unfit> {
        if !self.local.holds(iov.region, iov.local, iov.length) {
            std::mem::swap(&mut self.local, &mut self.other_local);
            if !self.local.holds(iov.region, iov.local, iov.length) {
                self.local = self.look_up_local(iov, index, opcode)?;
            }
        }
        if !holds_remote(&self.remote, iov) {
            std::mem::swap(&mut self.remote, &mut self.other_remote);
            if !holds_remote(&self.remote, iov) {
                self.look_up_remote(iov, index, opcode)?;
            }
        }
        Ok(chunk(iov, index as u32, &self.local))
    }

    /// The run of iovs that are valid in the regions of the last one, which has passed [`RegionResolver::check`]; they are named by the keys
    /// of the first rail. `key` is of the last one on a further rail.
    #[inline(always)]
    pub(super) fn like(&self, key: Option<KeyOnRail>) -> Like {
        let remote = key.map_or(self.remote, |key| key.named(&self.remote));
        Like { local: self.local, remote, rkey: self.remote.rkey }
    }

    #[inline]
    fn look_up_local(&mut self, iov: &Iov, index: usize, opcode: Opcode) -> Result<LocalRange, Unfit> {
        if self.lease.is_none()
            && let Some(recent) = self.recent.as_deref()
            && let Some((local, lease)) = recent.lease(iov.region, iov.local, iov.length)
        {
            self.lease = Some(lease);
            return Ok(local);
        }
        self.find_local(iov, index, opcode)
    }

    #[inline(never)]
    fn find_local(&mut self, iov: &Iov, index: usize, opcode: Opcode) -> Result<LocalRange, Unfit> {
        let registry = self.scope.local;
        let snapshot = self.snapshot.get_or_insert_with(|| registry.snapshot());
        let region = find_local(iov, index, opcode, snapshot)?;
        if region.kind == MemoryKind::Gpu && !self.scope.carries_gpu {
            return Err(local_error(iov, index, LOCAL_GPU).into());
        }
        let local = LocalRange::within(region, iov.local, iov.length).ok_or(Unfit::InSegments)?;
        // One that is for reading only is looked up by each transfer: what is found as the recent one is not asked what it
        // is for.
        if self.lease.is_none()
            && region.access.local_write
            && let Some(recent) = self.recent.as_deref_mut()
        {
            let lease =
                recent.replace(region, local).ok_or_else(|| local_error(iov, index, BEING_DEREGISTERED))?;
            self.lease = Some(lease);
            return Ok(local);
        }
        match hold(&mut self.holds, self.lease.as_deref(), region) {
            true => Ok(local),
            false => Err(local_error(iov, index, BEING_DEREGISTERED).into()),
        }
    }

    /// Our region and the peer's of an iov that is [`Unfit::InSegments`]: valid as a whole, and kept registered.
    pub(super) fn find_segments(
        &mut self,
        iov: &Iov,
        index: usize,
        opcode: Opcode,
    ) -> Result<(Arc<Region>, RemoteSegments), SubmitError> {
        let registry = self.scope.local;
        let snapshot = self.snapshot.get_or_insert_with(|| registry.snapshot());
        let region = find_local(iov, index, opcode, snapshot)?;
        if region.kind == MemoryKind::Gpu && !self.scope.carries_gpu {
            return Err(local_error(iov, index, LOCAL_GPU));
        }
        if !hold(&mut self.holds, self.lease.as_deref(), region) {
            return Err(local_error(iov, index, BEING_DEREGISTERED));
        }
        let region = Arc::clone(region);
        let remote = match self.find_remote(iov, index, opcode) {
            Ok(()) => RemoteSegments::One(iov.remote.rkey),
            Err(Unfit::Refused(error)) => return Err(error),
            Err(Unfit::InSegments) => {
                let remote = self.scope.remote;
                let table = self.table.get_or_insert_with(|| remote.table());
                RemoteSegments::of(table, iov)
                    .ok_or_else(|| remote_error(iov, index, "is outside the peer's region of that key"))?
            }
        };
        Ok((region, remote))
    }

    #[inline]
    fn look_up_remote(&mut self, iov: &Iov, index: usize, opcode: Opcode) -> Result<(), Unfit> {
        if let Some(recent) = &self.recent
            && holds_remote(&recent.remote, iov)
        {
            self.remote = recent.remote;
            return Ok(());
        }
        self.find_remote(iov, index, opcode)
    }

    #[inline(never)]
    fn find_remote(&mut self, iov: &Iov, index: usize, opcode: Opcode) -> Result<(), Unfit> {
        // A descriptor's size is 32 bits wide; longer iovs are checked against the peer's table alone.
        if iov.length > u64::from(iov.remote.size) && iov.length <= u64::from(u32::MAX) {
            return Err(remote_error(iov, index, "is longer than its descriptor").into());
        }
        if iov.remote.rkey == NO_KEY && !self.scope.carries_gpu {
            return Err(remote_error(iov, index, REMOTE_GPU).into());
        }
        let remote = self.scope.remote;
        let table = self.table.get_or_insert_with(|| remote.table());
        match table.check(iov.remote.rkey, iov.remote.address, iov.length) {
            RemoteCheck::Inside(RemoteRegion { read_only: true, .. })
            | RemoteCheck::InSegments { read_only: true }
                if opcode == Opcode::Write =>
            {
                Err(remote_error(iov, index, READ_ONLY_THERE).into())
            }
            RemoteCheck::InSegments { .. } => Err(Unfit::InSegments),
            RemoteCheck::Inside(region) => {
                self.remote = region;
                if region.gpu_flush && opcode == Opcode::Write {
                    // An empty iov may lie right behind the region.
                    let last = region.base.saturating_add(region.size.saturating_sub(1));
                    self.gpu_flush(iov.remote.address.min(last), iov.remote.rkey, index);
                }
                // One that is to be flushed is looked up by each transfer, as is one for reading only: what is found as the
                // recent one is not asked.
                if !region.read_only
                    && !region.gpu_flush
                    && let Some(recent) = self.recent.as_deref_mut()
                {
                    recent.remote = region;
                }
                Ok(())
            }
            RemoteCheck::UnknownKey if iov.remote.address.checked_add(iov.length).is_some() => {
                if table.flushes_unknown() && opcode == Opcode::Write && iov.length > 0 {
                    self.gpu_flush(iov.remote.address, iov.remote.rkey, index);
                }
                Ok(())
            }
            RemoteCheck::UnknownKey => Err(remote_error(iov, index, "wraps around the address space").into()),
            RemoteCheck::Outside => {
                Err(remote_error(iov, index, "is outside the peer's region of that key").into())
            }
            RemoteCheck::Removed => {
                Err(remote_error(iov, index, "is in a region that the peer has deregistered").into())
            }
        }
    }

    /// Takes note of a byte to be read, of each region once.
    #[cold]
    pub(super) fn gpu_flush(&mut self, address: u64, rkey: u32, iov: usize) {
        let gpu_flushes = self.gpu_flushes.get_or_insert_default();
        if !gpu_flushes.iter().any(|gpu_flush| gpu_flush.rkey == rkey) {
            gpu_flushes.push(GpuFlushRead { address, rkey, iov });
        }
    }
}

/// Why an iov is not one chunk.
#[derive(Debug)]
pub(super) enum Unfit {
    /// It is inside a region on each side as far as was looked, but not inside one segment of each:
    /// [`RegionResolver::find_segments`].
    InSegments,
    /// It is not valid.
    Refused(SubmitError),
}

impl From<SubmitError> for Unfit {
    fn from(error: SubmitError) -> Self {
        Self::Refused(error)
    }
}

/// Keeps the region registered for the part. False if it is being deregistered.
fn hold(holds: &mut Vec<Hold>, lease: Option<&Hold>, region: &Arc<Region>) -> bool {
    // A short look back finds the common patterns; a region held twice only costs its entry.
    if lease.into_iter().chain(holds.iter().rev().take(4)).any(|hold| hold.region().id == region.id) {
        return true;
    }
    let hold = region.hold();
    let is_held = hold.is_some();
    holds.extend(hold);
    is_held
}

/// See [`RegionResolver::like`].
pub(super) struct Like {
    local: LocalRange,
    /// By the key that names it.
    remote: RemoteRegion,
    /// The key that requests have.
    rkey: u32,
}

impl Run<Iov> for Like {
    #[inline(always)]
    fn is_readable(&self) -> bool {
        self.local.readable
    }

    #[inline(always)]
    fn chunk(&self, iov: &Iov, index: u32) -> Option<CheckedIov> {
        let valid =
            self.local.holds_too(iov.region, iov.local, iov.length) && holds_remote(&self.remote, iov);
        valid.then(|| CheckedIov { rkey: self.rkey, ..chunk(iov, index, &self.local) })
    }
}

#[inline(always)]
pub(super) fn holds_remote(region: &RemoteRegion, iov: &Iov) -> bool {
    iov.length <= u64::from(iov.remote.size) && region.holds(iov.remote.rkey, iov.remote.address, iov.length)
}

#[inline(always)]
pub(super) fn chunk(iov: &Iov, index: u32, local: &LocalRange) -> CheckedIov {
    CheckedIov {
        local: iov.local,
        remote: iov.remote.address,
        length: iov.length,
        lkey: local.lkey,
        rkey: iov.remote.rkey,
        readable: local.readable,
        iov: index,
    }
}

/// The region of `regions` that holds the local range of iov `index`, which `opcode` reads or writes.
#[cold]
pub(crate) fn find_local<'a>(
    iov: &Iov,
    index: usize,
    opcode: Opcode,
    regions: &'a RegionSnapshot,
) -> Result<&'a Arc<Region>, SubmitError> {
    let region = find_holding(iov, index, regions)?;
    match opcode == Opcode::Read && !region.access.local_write {
        true => Err(local_error(iov, index, READ_ONLY_HERE)),
        false => Ok(region),
    }
}

fn find_holding<'a>(
    iov: &Iov,
    index: usize,
    regions: &'a RegionSnapshot,
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

const BEING_DEREGISTERED: &str = "is in a region being deregistered";
const READ_ONLY_HERE: &str = "is in a region that is registered for reading only, and a READ writes there: register \
                              writable memory, without the flag";
/// Of a WRITE to a region that the peer has announced as such.
pub(crate) const READ_ONLY_THERE: &str = "is in a region that the peer has registered for reading only";

#[cold]
pub(super) fn local_error(iov: &Iov, index: usize, problem: &'static str) -> SubmitError {
    SubmitError::Local { iov: index, address: iov.local, length: iov.length, problem }
}

#[cold]
pub(super) fn remote_error(iov: &Iov, index: usize, problem: &'static str) -> SubmitError {
    SubmitError::Remote { iov: index, address: iov.remote.address, length: iov.length, problem }
}
