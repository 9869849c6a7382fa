//! The regions of all engines of this process: what a key and an address of a peer in this process stand for.
//!
//! Asked only where GPU memory may be at one end of a transfer. What peers are told of regions comes later, and does not
//! say of which kind they are.

use std::collections::BTreeMap;
// Std's also where loom's take the place of others: a static needs constants.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::range_index::holds;
use super::region::{MemoryKind, Region};
use crate::fork::PerProcess;

/// A region of this process, as far as transfers with it depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInProcess {
    /// Of which kind it is.
    pub kind: MemoryKind,
    /// Peers may only read it.
    pub read_only: bool,
}

/// By the key of a segment, and start and id of its region: the region's length, and what the region is.
type Regions = BTreeMap<(u32, u64, u64), (u64, RegionInProcess)>;

static REGIONS: PerProcess<Mutex<Regions>> = PerProcess::new(Mutex::default);

/// Regions of GPU memory in `REGIONS`. Written under its lock, read without: Relaxed, a program that registers memory and then
/// starts a transfer on another thread has told that thread by other means.
static GPU_REGIONS: PerProcess<AtomicUsize> = PerProcess::new(AtomicUsize::default);

/// Whether any region of this process is GPU memory.
#[inline]
pub fn has_gpu_regions() -> bool {
    GPU_REGIONS.get().load(Ordering::Relaxed) != 0
}

/// The region with this key that holds `address..address + length`.
pub fn region_in_process(rkey: u32, address: u64, length: u64) -> Option<RegionInProcess> {
    let regions = lock();
    let before = regions.range((rkey, 0, 0)..=(rkey, address, u64::MAX)).rev();
    let mut found = before.filter(|((_, start, _), (size, _))| holds(*start, *size, address, length));
    let (_, (_, nearest)) = found.next()?;
    // The key of GPU memory is 0 for all engines of the process: one that does not want it changed is enough.
    Some(RegionInProcess {
        read_only: nearest.read_only || found.any(|(_, (_, region))| region.read_only),
        ..*nearest
    })
}

pub(super) fn add(region: &Region) {
    let mut regions = lock();
    let read_only = !region.access.remote_write;
    let known = RegionInProcess { kind: region.kind, read_only };
    // By the key of each segment all of the region is found.
    let added = names(region).filter(|name| regions.insert(*name, (region.length, known)).is_none()).count();
    if added > 0 && region.kind == MemoryKind::Gpu {
        GPU_REGIONS.get().fetch_add(1, Ordering::Relaxed);
    }
}

/// Idempotent.
pub(super) fn remove(region: &Region) {
    let mut regions = lock();
    let removed = names(region).filter(|name| regions.remove(name).is_some()).count();
    if removed > 0 && region.kind == MemoryKind::Gpu {
        GPU_REGIONS.get().fetch_sub(1, Ordering::Relaxed);
    }
}

fn names(region: &Region) -> impl Iterator<Item = (u32, u64, u64)> {
    region.segments().map(|segment| (segment.rkey, region.address, region.id.0))
}

fn lock() -> MutexGuard<'static, Regions> {
    REGIONS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;
    use crate::fabric::{Access, SoftwareOptions, software};
    use crate::memory::Registry;

    #[test]
    fn regions_are_found_from_their_registration_to_its_end() {
        let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
        let register = |range, kind| {
            let id = registry.register_apart(range, kind, Access::FULL, false, None, None).unwrap();
            std::sync::Arc::clone(registry.snapshot().by_id(id).unwrap())
        };
        let memory = vec![0_u8; 8192];
        let start = memory.as_ptr().expose_provenance() as u64;
        let host = register((start, 8192), MemoryKind::Host);
        let ask = |region: &Region, offset, length| {
            region_in_process(region.rkey(), region.address + offset, length).map(|found| found.kind)
        };
        assert_eq!(ask(&host, 8000, 192), Some(MemoryKind::Host));
        assert_eq!(ask(&host, 8000, 193), None);
        assert_eq!(region_in_process(host.rkey() ^ 1, start, 1), None);
        // Of GPU memory all keys are the same here, and nothing is touched when it is registered.
        let outer = register((1 << 20, 4096), MemoryKind::Gpu);
        let inner = register((1 << 20 | 512, 1024), MemoryKind::Gpu);
        assert!(has_gpu_regions());
        assert_eq!(ask(&inner, 0, 3584), Some(MemoryKind::Gpu), "that around it");
        registry.remove(outer.id).unwrap();
        assert_eq!(ask(&inner, 0, 3584), None);
        assert_eq!(ask(&inner, 0, 1024), Some(MemoryKind::Gpu));
        registry.remove(inner.id).unwrap();
        registry.remove(host.id).unwrap();
        assert_eq!((ask(&inner, 0, 1), ask(&host, 0, 1)), (None, None));
    }
}
