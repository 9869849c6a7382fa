//! GPU memory of other processes of this host, opened here: kept open between transfers, so many allocations at most.

use std::sync::Arc;
use std::time::Instant;

use crate::fabric::{FabricError, MemoryRegion};
use crate::gpu::{CurrentDevice, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcInfo};
use crate::memory::{Hold, Region};
use crate::sync::{Mutex, lock};

/// Allocations of one peer that are kept open. One more closes the one that was not used for the longest time.
const KEPT: usize = 16;

/// What is open of one peer's memory, the allocation that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Imports(Mutex<Vec<Import>>);

#[derive(Debug)]
struct Import {
    handle: [u8; IPC_HANDLE_BYTES],
    gpu: i32,
    runtime: Arc<dyn GpuRuntime>,
    region: Arc<Region>,
}

/// An allocation of another process, closed when dropped.
#[derive(Debug)]
struct Opened {
    runtime: Arc<dyn GpuRuntime>,
    gpu: i32,
    address: u64,
}

impl Imports {
    /// Opens the allocation that `info` names, unless it is open: where it begins here, and what keeps it open.
    pub(super) fn open(
        &self,
        runtime: &Arc<dyn GpuRuntime>,
        gpu: i32,
        info: &IpcInfo,
    ) -> Result<(u64, Hold), GpuError> {
        let mut imports = lock(&self.0);
        let is_it = |import: &Import| {
            import.handle == info.handle && import.gpu == gpu && Arc::ptr_eq(&import.runtime, runtime)
        };
        let import = match imports.iter().position(is_it) {
            Some(place) => imports.remove(place),
            None => Import::open(runtime, gpu, info)?,
        };
        let (address, hold) = (import.region.address, import.region.hold());
        imports.push(import);
        if imports.len() > KEPT {
            // One that is in use is closed by the last transfer that uses it.
            let idle = imports.iter().position(|import| !import.region.in_use()).unwrap_or(0);
            drop(imports.remove(idle));
        }
        // A region that nothing revokes can always be held.
        let hold = hold.ok_or_else(|| GpuError::Unsupported {
            runtime: runtime.name(),
            operation: "use closed memory",
        })?;
        Ok((address, hold))
    }

    /// Closes what no transfer uses.
    pub(super) fn close_idle(&self) {
        lock(&self.0).retain(|import| import.region.in_use());
    }

    /// Keeps nothing open any more, beyond the transfers that use it.
    pub(super) fn close(&self) {
        lock(&self.0).clear();
    }
}

impl Import {
    fn open(runtime: &Arc<dyn GpuRuntime>, gpu: i32, info: &IpcInfo) -> Result<Self, GpuError> {
        let _entered = CurrentDevice::ensure(&**runtime, gpu);
        let address = runtime.ipc_open(&info.handle)?;
        let opened = Opened { runtime: Arc::clone(runtime), gpu, address };
        let region = Region::imported(address, info.size.max(1), Arc::new(opened));
        Ok(Self { handle: info.handle, gpu, runtime: Arc::clone(runtime), region })
    }
}

impl MemoryRegion for Opened {
    fn lkey(&self) -> u32 {
        crate::memory::NO_KEY
    }

    fn rkey(&self) -> u32 {
        crate::memory::NO_KEY
    }

    fn revoke(&self, _deadline: Instant) -> Result<(), FabricError> {
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _entered = CurrentDevice::ensure(&*self.runtime, self.gpu);
        if let Err(error) = self.runtime.ipc_close(self.address) {
            tracing::warn!("the GPU memory of another process was not closed: {error}");
        }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;
    use crate::gpu::PlayedRuntime;

    fn info(number: u8) -> IpcInfo {
        IpcInfo { handle: [number; IPC_HANDLE_BYTES], base: 0, offset: 0, size: 64 }
    }

    #[test]
    fn an_allocation_is_opened_once_and_the_oldest_idle_one_closed() {
        let played = Arc::new(PlayedRuntime::default());
        let runtime = Arc::clone(&played) as Arc<dyn GpuRuntime>;
        let imports = Imports::default();
        let (first, in_use) = imports.open(&runtime, 0, &info(0)).unwrap();
        for number in 1..=KEPT as u8 {
            drop(imports.open(&runtime, 0, &info(number)).unwrap());
        }
        assert_eq!(
            (played.opens(), played.open()),
            (KEPT + 1, KEPT),
            "the second one, not that in use, was closed"
        );
        assert_eq!(imports.open(&runtime, 0, &info(0)).unwrap().0, first);
        assert_eq!(played.opens(), KEPT + 1);
        drop(imports.open(&runtime, 0, &info(1)).unwrap());
        assert_eq!((played.opens(), played.open()), (KEPT + 2, KEPT));
        imports.close_idle();
        assert_eq!(played.open(), 1);
        imports.close();
        assert_eq!(played.open(), 1, "a transfer uses it");
        drop(in_use);
        assert_eq!(played.open(), 0);
    }
}
