//! One registration: what is found out about the memory, and how the device gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{RegistryError, pieces};
use crate::fabric::{Access, Backing, Device, DmaBuf, MemoryRange, SharedFile};
use crate::memory::allocation::{AllocationUse, BeingFreed};
use crate::memory::gpu_flush::GpuFlush;
use crate::memory::gpu_memory::{check_range, probe, synchronise_copies};
use crate::memory::host_inspection::HostInspection;
use crate::memory::nic_registration::register_for_nic;
use crate::memory::process_regions;
use crate::memory::recipe::{Given, Recipe};
use crate::memory::region::{MemoryKind, Region, RegionId};
use crate::memory::segment::{Segment, Segments};
use crate::memory::unreachable::UnreachableMemory;
use crate::observe::{EventKind, event_log, process_counts};

/// What is to be registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registration {
    /// Start and bytes.
    pub(super) range: (u64, u64),
    /// What the caller knows of the memory.
    pub(super) kind: MemoryKind,
    /// The rights that are asked for.
    pub(super) access: Access,
    /// Whether peers are told of it.
    pub(super) announced: bool,
    pub(super) dma_buf: Option<DmaBuf>,
    pub(super) file: Option<SharedFile>,
    /// Peers may flush what they write to it before they know what memory it is, and need the right to READ for that.
    pub(super) flushed_unknown: bool,
    /// Further NICs may register it later.
    pub(super) has_further_nics: bool,
}

impl Registration {
    /// Refuses what is no range of addresses.
    pub(super) fn check(&self) -> Result<(), RegistryError> {
        let (address, length) = self.range;
        if address == 0 || length == 0 || address.checked_add(length).is_none() {
            return Err(RegistryError::NotARange { address, length });
        }
        Ok(())
    }

    /// [`Registration::make`], and counts it.
    pub(super) fn make_counted(
        &self,
        device: &dyn Device,
        gpu_flush: GpuFlush,
    ) -> Result<Arc<Region>, RegistryError> {
        let since = Instant::now();
        let made = self.make(device, gpu_flush);
        process_counts().registration_took(since.elapsed());
        if let Err(error) = &made {
            process_counts().registration_failed();
            let text = format!("cannot register memory: {error}");
            event_log().record(
                EventKind::RegistrationFailed,
                None,
                Some(device.attributes().name.clone()),
                text,
            );
        }
        made
    }

    /// Has the device register the range. May take long: called without a lock.
    fn make(&self, device: &dyn Device, gpu_flush: GpuFlush) -> Result<Arc<Region>, RegistryError> {
        let Self {
            range: (address, length), kind, access, announced, dma_buf, file, flushed_unknown, ..
        } = *self;
        let of_engine = kind != MemoryKind::Gpu && dma_buf.is_none();
        let allocation = of_engine.then(|| AllocationUse::of_range(address, length)).transpose();
        let allocation =
            allocation.map_err(|BeingFreed| RegistryError::BeingFreed { address, length })?.flatten();
        let declared = if allocation.is_some() { MemoryKind::Host } else { kind };
        let file = allocation.as_ref().map_or(file, AllocationUse::file);
        let told = if declared == MemoryKind::Probe { probe(address) } else { declared };
        let registers_gpu_memory = device.attributes().capabilities.gpu_memory;
        // A dma-buf or a device lies behind what a NIC can read and the CPU cannot.
        let of_host = told != MemoryKind::Gpu && dma_buf.is_none();
        let look = match (&allocation, of_host) {
            (Some(_), _) => HostInspection::of_allocation(),
            (None, true) => HostInspection::at(address, length),
            (None, false) => HostInspection::default(),
        };
        let kind = look.kind(told);
        if kind == MemoryKind::Gpu && dma_buf.is_none() {
            let checked = check_range(address, length);
            checked.map_err(|error| RegistryError::Gpu { reason: error.to_string() })?;
        }
        // A NIC may know better what only it can access. Not of memory for reading only: there the kernel pins pages of
        // the process whatever their protection says (FOLL_FORCE), and refuses none.
        let nic_decides = registers_gpu_memory && declared != MemoryKind::Host && access.local_write;
        if let Some(inaccessible) = look.inaccessible.filter(|_| !nic_decides && kind == MemoryKind::Host) {
            return Err(inaccessible.into());
        }
        let access = if look.read_only { access.for_reading() } else { access };
        let backing = look.backing;
        let range =
            MemoryRange { address, length, access, dma_buf, file, cpu_address: None, backing, announced };
        let by_nic_on_gpu = kind == MemoryKind::Gpu && registers_gpu_memory;
        // A dma-buf may be of a device without a runtime in this process.
        let may_need_gpu_flush =
            by_nic_on_gpu || registers_gpu_memory && dma_buf.is_some() && declared != MemoryKind::Host;
        let gpu_flush = may_need_gpu_flush && access.remote_write && gpu_flush.of_memory(address);
        // The peer's READ of the byte that flushes needs the right to it.
        let read_by_gpu_flush = gpu_flush || flushed_unknown && access.remote_write;
        let access = Access { remote_read: access.remote_read || read_by_gpu_flush, ..access };
        let of_device = MemoryRange { access, ..range };
        let given = match (kind, declared) {
            // No CPU may touch it: only the GPU runtime moves it.
            (MemoryKind::Gpu, _) if !registers_gpu_memory => None,
            (_, MemoryKind::Host) => Some(Given::Plain),
            _ if !registers_gpu_memory || dma_buf.is_some() => Some(Given::Plain),
            _ => Some(Given::Gpu(kind == MemoryKind::Gpu)),
        };
        let registered = match given {
            None => Ok(Segments::of_one(Segment::new(address, length, Arc::new(UnreachableMemory)))),
            Some(Given::Plain) => pieces::register(device, &of_device),
            Some(Given::Gpu(on_gpu)) => register_for_nic(device, &of_device, on_gpu, None),
        };
        let segments = registered.map_err(|error| look.explain(error))?;
        if by_nic_on_gpu {
            synchronise_copies(address, length);
        }
        // Memory that is not anonymous may be gone when the CPU comes to copy a payload out of it.
        let readable = kind == MemoryKind::Host
            && look.backing == Backing::Anonymous
            && (declared == MemoryKind::Host || of_host && look.is_readable(address, length));
        let region = Region::new(next_id(), &range, kind, readable, announced, segments);
        let given = given.filter(|_| self.has_further_nics);
        let keeps_file = allocation.is_none() && device.attributes().capabilities.shared_files;
        let recipe = given.and_then(|given| recipe(&of_device, given, keeps_file));
        let region = region.within(allocation).flushed(gpu_flush).with_recipe(recipe);
        process_regions::add(&region);
        Ok(Arc::new(region))
    }
}

/// For further NICs; `None`, with a line in the log, if it cannot be kept.
fn recipe(of_device: &MemoryRange, given: Given, keeps_file: bool) -> Option<Recipe> {
    let kept = Recipe::of(of_device, given, keeps_file).inspect_err(|error| {
        tracing::warn!(
            "memory {:#x}+{} stays on one NIC, because its descriptor cannot be kept open for others: {error}; see `ulimit -n`",
            of_device.address,
            of_device.length
        );
    });
    kept.ok()
}

/// Whether a region has the rights that its range would be registered with now.
pub(super) fn gives(region: &Region, asked: Access) -> bool {
    let has = |rights: Access| {
        Access { relaxed_ordering: region.access.relaxed_ordering, ..rights } == region.access
    };
    let is_read_only =
        || region.kind == MemoryKind::Host && HostInspection::at(region.address, region.length).read_only;
    has(asked) || has(asked.for_reading()) && is_read_only()
}

pub(in crate::memory) fn next_id() -> RegionId {
    /// Written by every registration of the process, Relaxed: only uniqueness matters.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    RegionId(NEXT.fetch_add(1, Ordering::Relaxed))
}
