//! No GPU: all memory is host memory.

use super::{
    CopyStream, DeviceError, DeviceRuntime, DmaBufExport, IPC_HANDLE_BYTES, IpcExport, PointerKind,
    SavedDevice,
};

/// The runtime of a process without GPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRuntime;

impl HostRuntime {
    fn cannot<T>(operation: &'static str) -> Result<T, DeviceError> {
        Err(DeviceError::Unsupported { runtime: "host", operation })
    }
}

impl DeviceRuntime for HostRuntime {
    fn name(&self) -> &'static str {
        "host"
    }

    fn has_memory(&self) -> bool {
        false
    }

    fn pointer_kind(&self, _address: u64) -> Result<PointerKind, DeviceError> {
        Ok(PointerKind::Host)
    }

    fn device_count(&self) -> Result<u32, DeviceError> {
        Ok(0)
    }

    fn current_device(&self) -> Result<i32, DeviceError> {
        Self::cannot("tell the current device")
    }

    fn pci_bus_id(&self, _device: i32) -> Result<String, DeviceError> {
        Self::cannot("name a device")
    }

    fn enter(&self, _device: i32) -> Result<SavedDevice, DeviceError> {
        Self::cannot("choose a device")
    }

    fn restore(&self, _saved: SavedDevice) -> Result<(), DeviceError> {
        Ok(())
    }

    fn open_stream(&self) -> Result<Box<dyn CopyStream>, DeviceError> {
        Self::cannot("open a stream")
    }

    fn ipc_export(&self, _address: u64) -> Result<IpcExport, DeviceError> {
        Self::cannot("export memory to other processes")
    }

    fn ipc_open(&self, _handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, DeviceError> {
        Self::cannot("open memory of other processes")
    }

    fn ipc_close(&self, _address: u64) -> Result<(), DeviceError> {
        Self::cannot("close memory of other processes")
    }

    fn dma_buf(&self, _address: u64, _length: u64) -> Result<DmaBufExport, DeviceError> {
        Self::cannot("export a dma-buf")
    }
}
