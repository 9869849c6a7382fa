//! The regions of one engine: changed under a lock, read without one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::announced::Announced;
use super::gpu_memory::{CpuMapping, export, probe};
use super::host_look::HostLook;
use super::inspect::Inaccessible;
use super::process_regions;
use super::published::Published;
use super::range_index::RangeIndex;
use super::region::{MemoryKind, Region, RegionId};
use super::remote_table::RemoteRegion;
use super::unreachable::UnreachableMemory;
use crate::fabric::{Access, Backing, Device, DmaBuf, FabricError, MemoryRange, MemoryRegion, Provider};
use crate::sync::{MutexGuard, SwapGuard};

/// Why a range was not registered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// Address 0, length 0, or a range that wraps around the address space.
    #[error(
        "memory {address:#x}+{length} is not a range: address and length must be more than zero and not wrap"
    )]
    NotARange {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// The same start is registered with another length.
    #[error("memory at {address:#x} is registered with {registered} bytes already, {length} were asked for")]
    OtherLength {
        /// Start.
        address: u64,
        /// Bytes asked for.
        length: u64,
        /// Bytes registered.
        registered: u64,
    },
    /// The same range is registered with other rights.
    #[error(
        "memory {address:#x}+{length} is registered with other rights already: {registered}; asked for were: {asked}. \
         Deregister it first"
    )]
    OtherRights {
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// The rights that it has.
        registered: Access,
        /// Those asked for.
        asked: Access,
    },
    /// Nobody can access it, or a part of it.
    #[error(transparent)]
    Inaccessible(#[from] Inaccessible),
    /// The provider refused.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

/// The regions at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Sorted by id.
    regions: Vec<Arc<Region>>,
    by_address: RangeIndex,
}

impl Snapshot {
    fn of(state: &State) -> Self {
        let regions: Vec<_> = state.by_id.values().map(|entry| Arc::clone(&entry.region)).collect();
        let by_address = RangeIndex::new(regions.iter().map(|region| (region.address, region.length)));
        Self { regions, by_address }
    }

    /// The region with this id.
    pub fn by_id(&self, id: RegionId) -> Option<&Arc<Region>> {
        let position = self.regions.binary_search_by_key(&id, |region| region.id).ok()?;
        self.regions.get(position)
    }

    /// A region that holds `address..address + length`: the innermost by start, then the newest.
    pub fn by_address(&self, address: u64, length: u64) -> Option<&Arc<Region>> {
        self.regions.get(self.by_address.find(address, length)?)
    }

    /// All regions, by id.
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }
}

/// The regions of one engine.
#[derive(Debug)]
pub struct Registry {
    device: Arc<dyn Device>,
    regions: Published<State, Snapshot>,
    announced: Arc<Announced>,
}

#[derive(Debug, Default)]
struct State {
    by_id: BTreeMap<RegionId, Entry>,
    by_start: BTreeMap<u64, RegionId>,
}

#[derive(Debug)]
struct Entry {
    region: Arc<Region>,
    /// The rights that were asked for; memory that is not writable has been given less.
    asked: Access,
    /// How often the range was registered; the last deregistration counts.
    owners: usize,
    /// The id under which peers know it.
    announced: Option<u64>,
}

impl Registry {
    /// An empty registry of regions on `device`.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self { device, regions: Published::default(), announced: Arc::default() }
    }

    /// Registers a range, for reading only if it is not writable. The same range again answers the same id and counts one
    /// more owner; it must be asked for with the same rights, or with those that it has got.
    pub fn register(
        &self,
        (address, length): (u64, u64),
        kind: MemoryKind,
        access: Access,
        announced: bool,
        dma_buf: Option<DmaBuf>,
    ) -> Result<RegionId, RegistryError> {
        check_range(address, length)?;
        let mut state = self.regions.lock();
        if let Some(id) = state.by_start.get(&address).copied()
            && let Some(entry) = state.by_id.get_mut(&id)
        {
            let region = &entry.region;
            if region.length != length {
                return Err(RegistryError::OtherLength { address, length, registered: region.length });
            }
            if entry.asked != access && !gives(region, access) {
                return Err(RegistryError::OtherRights {
                    address,
                    length,
                    registered: region.access,
                    asked: access,
                });
            }
            entry.owners += 1;
            return Ok(id);
        }
        let region = self.make_region((address, length), kind, access, announced, dma_buf)?;
        state.by_start.insert(address, region.id);
        Ok(self.keep(&mut state, region, access))
    }

    /// Registers a range for one owner, whatever is registered already: each call gives an id and keys of its own.
    pub fn register_apart(
        &self,
        (address, length): (u64, u64),
        kind: MemoryKind,
        access: Access,
        announced: bool,
        dma_buf: Option<DmaBuf>,
    ) -> Result<RegionId, RegistryError> {
        check_range(address, length)?;
        let region = self.make_region((address, length), kind, access, announced, dma_buf)?;
        Ok(self.keep(&mut self.regions.lock(), region, access))
    }

    fn make_region(
        &self,
        (address, length): (u64, u64),
        kind: MemoryKind,
        access: Access,
        announced: bool,
        dma_buf: Option<DmaBuf>,
    ) -> Result<Arc<Region>, RegistryError> {
        let declared = kind;
        let kind = if declared == MemoryKind::Probe { probe(address) } else { declared };
        let software = self.device.attributes().provider == Provider::Software;
        // A dma-buf or a device lies behind what a NIC can read and the CPU cannot.
        let of_host = kind == MemoryKind::Host && dma_buf.is_none();
        let look = if of_host { HostLook::at(address, length) } else { HostLook::default() };
        // A NIC may know better what only it can access. Not of memory for reading only: there the kernel pins pages of
        // the process whatever their protection says (FOLL_FORCE), and refuses none.
        let nic_decides = !software && declared != MemoryKind::Host && access.local_write;
        if let Some(inaccessible) = look.inaccessible.filter(|_| !nic_decides) {
            return Err(inaccessible.into());
        }
        let access = if look.read_only { access.for_reading() } else { access };
        let backing = look.backing;
        let range = MemoryRange { address, length, access, dma_buf, cpu_address: None, backing, announced };
        let registered = match (kind, declared) {
            // No CPU may touch it: only the device runtime moves it.
            (MemoryKind::Device, _) if software => Ok(Arc::new(UnreachableMemory) as Arc<dyn MemoryRegion>),
            (_, MemoryKind::Host) => self.device.register(&range),
            _ if software || dma_buf.is_some() => self.device.register(&range),
            _ => self.register_for_nic(&range, kind == MemoryKind::Device),
        };
        let memory = registered.map_err(|error| look.explain(error))?;
        // Memory that is not anonymous may be gone when the CPU comes to copy a payload out of it.
        let readable = kind == MemoryKind::Host
            && look.backing == Backing::Anonymous
            && (declared == MemoryKind::Host || of_host && look.is_readable(address, length));
        let region = Region::new(next_id(), &range, kind, readable, announced, memory);
        process_regions::add(&region);
        Ok(Arc::new(region))
    }

    /// Registers what may be device memory, in the ways there are: by a dma-buf, by a mapping that the device runtime
    /// makes for it, by its own address, which the kernel may know. A runtime without IPC handles cannot tell device
    /// memory, so it is asked for the mapping of anything that the caller has not declared to be host memory.
    fn register_for_nic(
        &self,
        range: &MemoryRange,
        on_device: bool,
    ) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        if on_device
            && self.device.attributes().dma_buf
            && let Some((dma_buf, _open)) = export(range.address, range.length)
        {
            match self.device.register(&MemoryRange { dma_buf: Some(dma_buf), ..*range }) {
                Ok(memory) => return Ok(memory),
                Err(error) => tracing::info!("device memory by dma-buf: {error}; trying without"),
            }
        }
        let mapping = CpuMapping::of(range.address, range.length);
        self.device
            .register(&MemoryRange { cpu_address: mapping.as_ref().map(CpuMapping::address), ..*range })
    }

    fn keep(&self, state: &mut MutexGuard<'_, State>, region: Arc<Region>, asked: Access) -> RegionId {
        let id = region.id;
        let announced = self.announce(&region);
        state.by_id.insert(id, Entry { region, asked, owners: 1, announced });
        self.regions.changed(state);
        id
    }

    /// Tells the peers of a new region, if they are to know it.
    fn announce(&self, region: &Region) -> Option<u64> {
        let rkey = region.rkey();
        if !region.announced {
            self.announced.key_in_use(rkey);
            return None;
        }
        let announced = self.announced.add(RemoteRegion {
            base: region.address,
            size: region.length,
            rkey,
            read_only: !region.access.remote_write,
        });
        if announced.is_none() {
            self.announced.key_in_use(rkey);
            tracing::warn!(
                region = region.id.0,
                "too many regions: peers are not told of it and need descriptors"
            );
        }
        announced
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
        let start = entry.region.address;
        let removed = state.by_id.remove(&id);
        if state.by_start.get(&start) == Some(&id) {
            state.by_start.remove(&start);
        }
        if let Some(entry) = &removed {
            self.withdraw(entry);
        }
        self.regions.changed(&state);
        Ok(removed.map(|entry| entry.region))
    }

    /// Takes every region out.
    pub fn remove_all(&self) -> Vec<Arc<Region>> {
        let mut state = self.regions.lock();
        let entries: Vec<_> = std::mem::take(&mut state.by_id).into_values().collect();
        state.by_start.clear();
        for entry in &entries {
            self.withdraw(entry);
        }
        self.regions.changed(&state);
        entries.into_iter().map(|entry| entry.region).collect()
    }

    /// No new use of it, here or by peers.
    fn withdraw(&self, entry: &Entry) {
        entry.region.revoke();
        if let Some(id) = entry.announced {
            self.announced.remove(id);
        }
    }

    /// The regions now, without a lock unless they changed since the last look.
    #[inline]
    pub fn snapshot(&self) -> SwapGuard<Snapshot> {
        self.regions.view(Snapshot::of)
    }
}

fn check_range(address: u64, length: u64) -> Result<(), RegistryError> {
    if address == 0 || length == 0 || address.checked_add(length).is_none() {
        return Err(RegistryError::NotARange { address, length });
    }
    Ok(())
}

/// Whether a region has the rights that its range would be registered with now.
fn gives(region: &Region, asked: Access) -> bool {
    let has = |rights: Access| {
        Access { relaxed_ordering: region.access.relaxed_ordering, ..rights } == region.access
    };
    let is_read_only =
        || region.kind == MemoryKind::Host && HostLook::at(region.address, region.length).read_only;
    has(asked) || has(asked.for_reading()) && is_read_only()
}

pub(super) fn next_id() -> RegionId {
    /// Written by every registration of the process, Relaxed: only uniqueness matters.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    RegionId(NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;
    use crate::fabric::{SoftwareOptions, software};

    #[test]
    fn a_range_registered_apart_has_an_id_and_keys_of_its_own() {
        let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let registry = Registry::new(device);
        let memory = vec![0_u8; 4096];
        let start = memory.as_ptr().expose_provenance() as u64;
        let apart = |length| {
            registry.register_apart((start, length), MemoryKind::Host, Access::FULL, false, None).unwrap()
        };
        let shared = || registry.register((start, 4096), MemoryKind::Host, Access::FULL, true, None).unwrap();
        let (first, second, third) = (apart(4096), apart(4096), apart(100));
        let id = shared();
        assert_eq!(shared(), id);
        let snapshot = registry.snapshot();
        let keys: Vec<_> =
            [first, second, third, id].map(|id| snapshot.by_id(id).unwrap().rkey()).into_iter().collect();
        assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)), "{keys:?}");
        // Its end does not touch the others.
        for id in [first, third] {
            registry.remove(id).unwrap().unwrap();
            assert!(registry.remove(id).is_err());
        }
        assert_eq!(shared(), id);
        assert!(registry.snapshot().by_id(second).is_some());
    }

    /// One id for one range: a second registration must ask for the rights that it has.
    #[test]
    fn the_same_range_with_other_rights_is_refused() {
        let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let registry = Registry::new(device);
        let memory = vec![0_u8; 8192];
        let start = memory.as_ptr().expose_provenance() as u64;
        let constant: &'static [u8] = b"not writable, whatever is asked for";
        let constant = (constant.as_ptr().expose_provenance() as u64, constant.len() as u64);
        let register = |range, access| registry.register(range, MemoryKind::Host, access, true, None);
        for (page, first, then) in
            [(0, Access::FULL, Access::READ_ONLY), (1, Access::READ_ONLY, Access::FULL)]
        {
            let range = (start + 4096 * page, 4096);
            let id = register(range, first).unwrap();
            let error = register(range, then).unwrap_err();
            assert!(matches!(error, RegistryError::OtherRights { .. }), "{error}");
            assert!(error.to_string().contains("local read, "), "{error}");
            assert_eq!(register(range, first).unwrap(), id);
            // The refused one is no owner.
            assert!(registry.remove(id).unwrap().is_none() && registry.remove(id).unwrap().is_some());
            assert_ne!(register(range, then).unwrap(), id);
        }
        // Memory that is not writable gives the same rights to both.
        for (first, then) in [(Access::FULL, Access::READ_ONLY), (Access::READ_ONLY, Access::FULL)] {
            let id = register(constant, first).unwrap();
            assert_eq!(register(constant, then).unwrap(), id);
            assert_eq!(registry.snapshot().by_id(id).unwrap().access, Access::READ_ONLY);
            assert!(registry.remove(id).unwrap().is_none() && registry.remove(id).unwrap().is_some());
        }
    }

    #[test]
    fn a_region_says_whether_all_of_it_is_anonymous() {
        let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let registry = Registry::new(device);
        let (heap, constant) = (vec![0_u8; 64], "in the program's file");
        let anonymous = |bytes: &[u8]| {
            let range = (bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64);
            let id = registry.register(range, MemoryKind::Host, Access::FULL, true, None).unwrap();
            registry.snapshot().by_id(id).unwrap().anonymous
        };
        assert!(anonymous(&heap) && !anonymous(constant.as_bytes()));
    }
}
