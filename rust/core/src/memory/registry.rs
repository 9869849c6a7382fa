//! The regions of one engine: changed under a lock, read without one. The device registers memory without the lock, for that
//! may take long.

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod concurrency_tests;
mod error;
mod further_nic;
pub(super) mod pieces;
mod registration;
mod snapshot;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::announced::Announced;
use super::gpu_flush::{GpuFlush, GpuFlushLanding};
use super::published::Published;
use super::region::{Hold, MemoryKind, Region, RegionId};
use super::remote_table::RemoteRegion;
use crate::fabric::{Access, Device, DmaBuf, FabricError, Sge, SharedFile};
use crate::observe::process_counts;
use crate::sync::{Condvar, MutexGuard, SequentialBool, SwapGuard, wait};
pub use error::{FurtherNicError, RegistryError};
use further_nic::FurtherNic;
pub(super) use registration::next_id;
use registration::{Registration, gives};
pub use snapshot::RegionSnapshot;

/// How long a registration of a range that another thread is registering sleeps before it looks again without being woken.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The regions of one engine.
#[derive(Debug)]
pub struct Registry {
    device: Arc<dyn Device>,
    /// Each state has a number that no registry has had before.
    regions: Published<State, RegionSnapshot>,
    /// Notified when a range leaves [`State::registering`].
    registered: Condvar,
    announced: Arc<Announced>,
    /// Made when a transfer first needs it.
    landing: OnceCell<GpuFlushLanding>,
    gpu_flush: GpuFlush,
    /// Memory was registered that peers may write to and cannot flush. Set before the device has it, by the threads that register.
    has_unflushable: SequentialBool,
    /// A peer may have been told to flush what it writes to memory that it does not know: all that is registered from then on can be
    /// flushed, whatever the GPUs turn out to be. Set by the threads that connect. Each side sets its own word and then reads the other
    /// one, so one of the two sees the other.
    flushes_unknown: SequentialBool,
    /// Further NICs may come to register the same memory.
    has_further_nics: bool,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<RegionId, Entry>,
    by_start: BTreeMap<u64, RegionId>,
    /// Starts of the ranges that the device is registering now: a second registration waits for the first, and shares its id.
    registering: BTreeSet<u64>,
    /// All regions were taken out, because the engine closes. What the device registers meanwhile is not kept.
    closed: bool,
    /// The registries of further NICs.
    further: Vec<FurtherNic>,
}

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    /// The rights that were asked for; memory that is not writable has been given less.
    asked: Access,
    /// How often the range was registered; the last deregistration counts.
    owners: usize,
    /// The ids under which peers know its segments; none if they do not.
    announced: Range<u64>,
}

impl Registry {
    /// An empty registry of regions on `device`.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self::with_gpu_flush(device, GpuFlush::default())
    }

    /// The same, with the flushes that were asked for.
    pub fn with_gpu_flush(device: Arc<dyn Device>, gpu_flush: GpuFlush) -> Self {
        Self {
            device,
            landing: OnceCell::new(),
            gpu_flush,
            has_unflushable: SequentialBool::default(),
            flushes_unknown: SequentialBool::default(),
            regions: Published::new(next_id().0),
            registered: Condvar::new(),
            announced: Arc::default(),
            has_further_nics: false,
        }
    }

    /// Names the regions of this registry as they are now; never 0.
    #[inline]
    pub(super) fn state_number(&self) -> u64 {
        self.regions.number()
    }

    /// Takes note of a change of the regions, which are still locked.
    fn changed(&self, locked: &MutexGuard<'_, State>) {
        self.regions.changed(locked, next_id().0);
    }

    /// Registers a range, for reading only if it is not writable. The same range again answers the same id and counts one
    /// more owner; it must be asked for with the same rights, or with those that it has got. Ranges that differ are registered
    /// at the same time.
    pub fn register(
        &self,
        range: (u64, u64),
        kind: MemoryKind,
        access: Access,
        announced: bool,
        dma_buf: Option<DmaBuf>,
        file: Option<SharedFile>,
    ) -> Result<RegionId, RegistryError> {
        let flushed_unknown = self.is_flushed_unknown(access);
        let has_further_nics = self.has_further_nics;
        let registration =
            Registration { range, kind, access, announced, dma_buf, file, flushed_unknown, has_further_nics };
        registration.check()?;
        let (start, _) = range;
        let mut state = self.lock_open(range)?;
        loop {
            if let Some(id) = state.share(range, access)? {
                return Ok(id);
            }
            if state.registering.insert(start) {
                break;
            }
            state = wait(&self.registered, state, LOOK_AGAIN);
        }
        drop(state);
        // Dropped behind the lock below: until then no other thread registers the range.
        let _placeholder = Placeholder { registry: self, start };
        let region = registration.make_counted(&*self.device, self.gpu_flush)?;
        let mut state = self.lock_for(&region)?;
        state.by_start.insert(start, region.id);
        Ok(self.keep(&mut state, region, access))
    }

    /// Registers a range for one owner, whatever is registered already: each call gives an id and keys of its own, which the owner
    /// gives to peers. They are one lkey and one rkey, so a range that the device cannot register at once is refused.
    pub fn register_apart(
        &self,
        range: (u64, u64),
        kind: MemoryKind,
        access: Access,
        announced: bool,
        dma_buf: Option<DmaBuf>,
        file: Option<SharedFile>,
    ) -> Result<RegionId, RegistryError> {
        let flushed_unknown = self.is_flushed_unknown(access);
        let has_further_nics = self.has_further_nics;
        let registration =
            Registration { range, kind, access, announced, dma_buf, file, flushed_unknown, has_further_nics };
        registration.check()?;
        drop(self.lock_open(range)?);
        let region = registration.make_counted(&*self.device, self.gpu_flush)?;
        require_one_segment(&region, &*self.device)?;
        let mut state = self.lock_for(&region)?;
        Ok(self.keep(&mut state, region, access))
    }

    /// Whether the peer that connects is to flush what it writes to memory that it does not know. Not if some of it cannot be flushed,
    /// since it was registered for WRITEs alone before there was a GPU.
    pub(crate) fn may_need_gpu_flush(&self) -> bool {
        if !self.gpu_flush.may_come(&*self.device) {
            return false;
        }
        self.flushes_unknown.store(true);
        !self.has_unflushable.load()
    }

    /// Whether peers may flush what is registered with these rights, and could not by the rights themselves.
    fn is_flushed_unknown(&self, access: Access) -> bool {
        if !access.remote_write || access.remote_read {
            return false;
        }
        if self.flushes_unknown.load() || self.gpu_flush.may_come(&*self.device) {
            return true;
        }
        self.has_unflushable.store(true);
        self.flushes_unknown.load()
    }

    /// Refuses a range if all regions were taken out.
    fn lock_open(&self, (address, length): (u64, u64)) -> Result<MutexGuard<'_, State>, RegistryError> {
        let state = self.regions.lock();
        if state.closed { Err(RegistryError::Closed { address, length }) } else { Ok(state) }
    }

    /// As [`Registry::lock_open`], which ends a region that it refuses.
    fn lock_for(&self, region: &Region) -> Result<MutexGuard<'_, State>, RegistryError> {
        self.lock_open((region.address, region.length)).inspect_err(|_| region.discard())
    }

    fn keep(&self, state: &mut MutexGuard<'_, State>, region: Arc<Region>, asked: Access) -> RegionId {
        let id = region.id;
        let announced = self.announce(&region, None);
        process_counts().registered(region.length);
        state.further.iter().for_each(|further| further.add(&region));
        state.by_id.insert(id, Entry { region, asked, owners: 1, announced });
        self.changed(state);
        id
    }

    /// Tells the peers of a new region, if they are to know it. Of a further NIC: `first` is the region as the first one has it.
    fn announce(&self, region: &Region, first: Option<&Region>) -> Range<u64> {
        let keys_in_use = || region.segments().for_each(|segment| self.announced.key_in_use(segment.rkey));
        if !region.announced {
            keys_in_use();
            return 0..0;
        }
        let segments = region.segments().map(|segment| RemoteRegion {
            base: segment.address,
            size: segment.length,
            rkey: segment.rkey,
            read_only: !region.access.remote_write,
            gpu_flush: region.gpu_flush,
        });
        let segments: Vec<_> = segments.collect();
        let announced = match first {
            None => self.announced.add(&segments),
            Some(first) => self.announced.add_of_rail(&with_first_keys(&segments, first)),
        };
        if announced.is_empty() {
            keys_in_use();
            tracing::warn!(
                region = region.id.0,
                "too many regions: peers are not told of it and need descriptors"
            );
        }
        announced
    }

    /// The byte that a flush reads to, as the entry of a READ, and what keeps it registered. Registers it at the first call,
    /// which takes some microseconds; `None` if that fails, which is logged.
    pub(crate) fn gpu_flush_landing(&self) -> Option<(Sge, Hold)> {
        let landing = self.landing.get_or_try_init(|| GpuFlushLanding::register(&*self.device));
        landing
            .inspect_err(|error| tracing::warn!("cannot register the byte that a flush reads to: {error}"))
            .ok()?
            .entry()
    }

    /// What peers are told of the regions.
    pub fn announced(&self) -> &Arc<Announced> {
        &self.announced
    }

    /// Takes one owner off; the last one takes the region out and answers it, no longer usable for new transfers.
    /// `Ok(None)`: other owners remain. `Err(())`: no such id here.
    #[allow(clippy::result_unit_err, reason = "an unknown id has no more to say")]
    pub fn remove(&self, id: RegionId) -> Result<Option<Arc<Region>>, ()> {
        let mut state = self.regions.lock();
        let entry = state.by_id.get_mut(&id).ok_or(())?;
        entry.owners -= 1;
        if entry.owners > 0 {
            return Ok(None);
        }
        let region = self.take_out(&mut state, id);
        drop(state);
        Ok(region.inspect(|region| region.sharing.end()))
    }

    fn take_out(&self, state: &mut MutexGuard<'_, State>, id: RegionId) -> Option<Arc<Region>> {
        let entry = state.by_id.remove(&id)?;
        let start = entry.region.address;
        if state.by_start.get(&start) == Some(&id) {
            state.by_start.remove(&start);
        }
        self.withdraw(&entry);
        self.changed(state);
        Some(entry.region)
    }

    /// [`Registry::remove`] by the owner of the memory: while the range has other owners it changes nothing and tells their
    /// number. `Ok(None)`: no such id here.
    pub fn remove_sole(&self, id: RegionId) -> Result<Option<Arc<Region>>, usize> {
        let mut state = self.regions.lock();
        let region = match state.by_id.get(&id).map(|entry| entry.owners) {
            None => None,
            Some(1) => self.take_out(&mut state, id),
            Some(owners) => return Err(owners - 1),
        };
        drop(state);
        Ok(region.inspect(|region| region.sharing.end()))
    }

    /// The region of that id, if its next [`Registry::remove`] takes it out.
    pub fn of_sole_owner(&self, id: RegionId) -> Option<Arc<Region>> {
        let state = self.regions.lock();
        state.by_id.get(&id).filter(|entry| entry.owners == 1).map(|entry| Arc::clone(&entry.region))
    }

    /// Takes every region out, for good: registrations under way, and later ones, fail with [`RegistryError::Closed`].
    pub fn remove_all(&self) -> Vec<Arc<Region>> {
        let mut state = self.regions.lock();
        let entries: Vec<_> = std::mem::take(&mut state.by_id).into_values().collect();
        state.by_start.clear();
        state.closed = true;
        state.further.clear();
        for entry in &entries {
            self.withdraw(entry);
        }
        self.changed(&state);
        drop(state);
        entries.into_iter().map(|entry| entry.region).inspect(|region| region.sharing.end()).collect()
    }

    /// No new use of it, here or by peers; but for what other processes open, which the caller ends without the lock.
    fn withdraw(&self, entry: &Entry) {
        entry.region.revoke();
        if !entry.region.is_further() {
            entry.region.further().end();
            process_counts().deregistered(entry.region.length);
        }
        if !entry.announced.is_empty() {
            self.announced.remove(entry.announced.clone());
        }
    }

    /// The regions now, without a lock unless they changed since the last look.
    #[inline]
    pub fn snapshot(&self) -> SwapGuard<RegionSnapshot> {
        self.regions
            .view(|state| RegionSnapshot::of(state.by_id.values().map(|entry| Arc::clone(&entry.region))))
    }
}

/// The segments of a further NIC, cut where the first one has another key, with that.
fn with_first_keys(segments: &[RemoteRegion], first: &Region) -> Vec<(RemoteRegion, u32)> {
    let cut = |segment: &RemoteRegion| {
        let (start, end) = (segment.base, segment.base.saturating_add(segment.size));
        let segment = *segment;
        first.segments().filter_map(move |first| {
            let (base, end) = (start.max(first.address), end.min(first.end()));
            (base < end).then(|| (RemoteRegion { base, size: end - base, ..segment }, first.rkey))
        })
    };
    segments.iter().flat_map(cut).collect()
}

/// Ends a registration of several segments.
fn require_one_segment(region: &Region, device: &dyn Device) -> Result<(), RegistryError> {
    let segments = region.segment_count();
    if segments == 1 {
        return Ok(());
    }
    region.discard();
    let (attributes, length) = (device.attributes(), region.length);
    Err(RegistryError::Fabric(FabricError::Unsupported(format!(
        "a region of {length} bytes needs {segments} registrations on {}, which registers {} bytes (max_mr_size) at once, and \
         here peers get one key: register it in parts",
        attributes.name, attributes.max_region
    ))))
}

impl State {
    /// The id of the range if it is registered with rights that fit, with one more owner.
    fn share(
        &mut self,
        (address, length): (u64, u64),
        access: Access,
    ) -> Result<Option<RegionId>, RegistryError> {
        let Some(id) = self.by_start.get(&address).copied() else { return Ok(None) };
        let Some(entry) = self.by_id.get_mut(&id) else { return Ok(None) };
        let region = &entry.region;
        if region.length != length {
            return Err(RegistryError::OtherLength { address, length, registered: region.length });
        }
        if entry.asked != access && !gives(region, access) {
            let registered = region.access;
            return Err(RegistryError::OtherRights { address, length, registered, asked: access });
        }
        entry.owners += 1;
        Ok(Some(id))
    }
}

/// Keeps other registrations of a range waiting while the device registers it, whatever comes of that.
struct Placeholder<'a> {
    registry: &'a Registry,
    start: u64,
}

impl Drop for Placeholder<'_> {
    fn drop(&mut self) {
        self.registry.regions.lock().registering.remove(&self.start);
        self.registry.registered.notify_all();
    }
}
