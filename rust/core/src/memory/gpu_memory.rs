//! What registration asks the device runtime.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustix::param::page_size;

use super::MemoryKind;
use crate::fabric::DmaBuf;
use crate::gpu::{self, DmaBufExport, GpuRuntime, PointerKind};

/// What lies at `address`.
pub(super) fn probe(address: u64) -> MemoryKind {
    match gpu::runtime().pointer_kind(address) {
        Ok(PointerKind::Device(_)) => MemoryKind::Device,
        Ok(PointerKind::Host) => MemoryKind::Host,
        Err(error) => {
            tracing::warn!("memory at {address:#x} is taken for host memory: {error}");
            MemoryKind::Host
        }
    }
}

/// The dma-buf behind a range of device memory, and what keeps it open; `None` if the runtime offers none.
pub(super) fn export(address: u64, length: u64) -> Option<(DmaBuf, DmaBufExport)> {
    let export = gpu::runtime().dma_buf(address, length).ok()?;
    Some((DmaBuf { fd: export.fd.as_raw_fd(), offset: export.offset }, export))
}

/// A range as the CPU sees it, while it is being registered: unmapped when dropped.
#[derive(Debug)]
pub(super) struct CpuMapping {
    runtime: Arc<dyn GpuRuntime>,
    /// Start and length of the pages that were mapped.
    pages: (u64, u64),
    /// Where the range begins in them.
    offset: u64,
}

impl CpuMapping {
    /// Maps whole pages around the range. `None` where the runtime has no use for it, or refuses: there the range is
    /// registered by its own address, as host memory must be.
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

    /// Where the CPU sees the range.
    pub(super) fn address(&self) -> u64 {
        self.pages.0.saturating_add(self.offset)
    }
}

impl Drop for CpuMapping {
    fn drop(&mut self) {
        let (mapped, length) = self.pages;
        if let Err(error) = self.runtime.unmap_for_cpu(mapped, length) {
            tracing::warn!("the mapping {mapped:#x}+{length} of device memory stays: {error}");
        }
    }
}
