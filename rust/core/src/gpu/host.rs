//! No GPU: all memory is host memory.

use super::{
    CopyStream, DmaBufExport, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcExport, PointerKind, SavedGpu,
};

/// The runtime of a process without GPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRuntime;

impl HostRuntime {
    fn cannot<T>(operation: &'static str) -> Result<T, GpuError> {
        Err(GpuError::Unsupported { runtime: "host", operation })
    }
}

impl GpuRuntime for HostRuntime {
    fn name(&self) -> &'static str {
        "host"
    }

    fn has_memory(&self) -> bool {
        false
    }

    fn pointer_kind(&self, _address: u64) -> Result<PointerKind, GpuError> {
        Ok(PointerKind::Host)
    }

    fn gpu_count(&self) -> Result<u32, GpuError> {
        Ok(0)
    }

    fn current_gpu(&self) -> Result<i32, GpuError> {
        Self::cannot("name the current GPU")
    }

    fn pci_bus_id(&self, _gpu: i32) -> Result<String, GpuError> {
        Self::cannot("name the bus id of a GPU")
    }

    fn enter(&self, _gpu: i32) -> Result<SavedGpu, GpuError> {
        Self::cannot("choose a GPU")
    }

    fn restore(&self, _saved: SavedGpu) -> Result<(), GpuError> {
        Ok(())
    }

    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        Self::cannot("open a stream")
    }

    fn ipc_export(&self, _address: u64) -> Result<IpcExport, GpuError> {
        Self::cannot("export memory to other processes")
    }

    fn ipc_open(&self, _handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError> {
        Self::cannot("open memory of other processes")
    }

    fn ipc_close(&self, _address: u64) -> Result<(), GpuError> {
        Self::cannot("close memory of other processes")
    }

    fn dma_buf(&self, _address: u64, _length: u64) -> Result<DmaBufExport, GpuError> {
        Self::cannot("export a dma-buf")
    }
}
