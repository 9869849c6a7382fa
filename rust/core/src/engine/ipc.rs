//! GPU memory of this engine, for other processes of this host.

use super::Engine;
use crate::gpu::{self, CurrentGpu, IpcInfo, Share};
use crate::memory::MemoryKind;

impl Engine {
    /// What another process of this host needs to copy from and to the GPU memory at `address`: it passes that to
    /// [`Connection::start`](crate::Connection::start), as [`Remote::Ipc`](crate::Remote::Ipc).
    ///
    /// `None` if no region of this engine holds the address. `Some(None)` for host memory, memory that peers may only read,
    /// and memory that the GPU's runtime does not share.
    pub fn ipc_info(&self, address: u64) -> Option<Option<IpcInfo>> {
        let region = self.find_region(address, 1)?;
        // A process that opens a handle may write: what is for reading only goes by the lanes.
        if region.kind != MemoryKind::Gpu || !region.access.remote_write {
            return Some(None);
        }
        let share = region.sharing.get_or_make(|| {
            let runtime = gpu::runtime();
            let _entered = CurrentGpu::of_address(&*runtime, region.address, self.gpu_index);
            Share::new(&runtime, region.address, region.length).inspect_err(|error| {
                let (address, length) = (region.address, region.length);
                tracing::info!(
                    "GPU memory {address:#x}+{length} cannot be opened by other processes: {error}"
                );
            })
        });
        Some(share.and_then(|share| {
            let offset = address.checked_sub(share.base)?;
            let size = region.address + region.length - address;
            Some(IpcInfo { handle: share.handle, base: share.base, offset, size })
        }))
    }
}
