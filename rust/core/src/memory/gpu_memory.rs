//! Queries of the GPU runtime for registration.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::param::page_size;

use super::MemoryKind;
use crate::fabric::DmaBuf;
use crate::gpu::{self, DmaBufExport, GpuError, GpuRuntime, PointerKind};

/// The kind of memory at `address`; [`MemoryKind::Probe`] if the runtime cannot tell.
pub(super) fn probe(address: u64) -> MemoryKind {
    match gpu::runtime().pointer_kind(address) {
        Ok(PointerKind::Gpu(_)) => MemoryKind::Gpu,
        Ok(PointerKind::Host) => MemoryKind::Host,
        Ok(PointerKind::Unknown) => MemoryKind::Probe,
        Err(error) => {
            tracing::warn!(
                "cannot query the kind of memory at {address:#x}, it is registered as host memory: {error}"
            );
            MemoryKind::Host
        }
    }
}

/// Refuses a range that begins in GPU memory and goes on in other memory.
pub(super) fn check_range(address: u64, length: u64) -> Result<(), GpuError> {
    gpu::runtime().check_range(address, length)
}

/// The dma-buf of a range of GPU memory, and the export that keeps it open; `None` if the runtime offers none.
pub(super) fn export(address: u64, length: u64) -> Option<(DmaBuf, DmaBufExport)> {
    let export = gpu::runtime().dma_buf(address, length).ok()?;
    Some((DmaBuf { fd: export.fd.as_raw_fd(), offset: export.offset }, export))
}

/// A CPU mapping of a range of GPU memory, for its registration; unmapped when dropped.
#[derive(Debug)]
pub(super) struct CpuMapping {
    runtime: Arc<dyn GpuRuntime>,
    /// Start and length of the pages that were mapped.
    pages: (u64, u64),
    /// Where the range begins in them.
    offset: u64,
}

impl CpuMapping {
    /// Maps whole pages around the range. `None` where the runtime needs no mapping, or refuses one: there the range
    /// is registered by its own address.
    pub(super) fn of(address: u64, length: u64) -> Option<Self> {
        let page = page_size() as u64;
        let first = address - address % page;
        let whole = address.checked_add(length)?.checked_next_multiple_of(page)?.checked_sub(first)?;
        let runtime = gpu::runtime();
        match runtime.map_for_cpu(first, whole) {
            Ok(mapped) => {
                mapped.map(|mapped| Self { runtime, pages: (mapped, whole), offset: address - first })
            }
            Err(error) => {
                tracing::debug!("{address:#x}+{length} is registered by its own address: {error}");
                None
            }
        }
    }

    /// The CPU's address of the range.
    pub(super) fn address(&self) -> u64 {
        self.pages.0.saturating_add(self.offset)
    }
}

impl Drop for CpuMapping {
    fn drop(&mut self) {
        let (mapped, length) = self.pages;
        if let Err(error) = self.runtime.unmap_for_cpu(mapped, length) {
            tracing::warn!("cannot unmap {mapped:#x}+{length} of GPU memory, which leaks: {error}");
        }
    }
}
