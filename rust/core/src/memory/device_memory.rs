//! What registration asks the device runtime.

use std::os::fd::AsRawFd;

use super::MemoryKind;
use crate::device::{self, DmaBufExport, PointerKind};
use crate::fabric::DmaBuf;

/// What lies at `address`.
pub(super) fn probe(address: u64) -> MemoryKind {
    match device::runtime().pointer_kind(address) {
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
    let export = device::runtime().dma_buf(address, length).ok()?;
    Some((DmaBuf { fd: export.fd.as_raw_fd(), offset: export.offset }, export))
}
