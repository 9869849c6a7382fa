//! The runtime over a table.
#![allow(unsafe_code, reason = "calls the host program's C callbacks")]

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr;

use super::super::{
    CopyStream, DmaBufExport, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcExport, PointerKind, SavedGpu,
};
use super::GpuTable;
use super::stream::TableStream;
use crate::gpu::installed::cuda;

/// Name in errors.
pub(super) const NAME: &str = "callback";
/// `flagcxSuccess`.
pub(super) const SUCCESS: c_int = 0;
/// `getDevice` is not offered, so there is nothing to restore.
const NOTHING_SAVED: u64 = u64::MAX;

/// A runtime over C callbacks. The table is read anew at each use, since its owner may replace it at run time.
pub struct TableRuntime {
    read: Box<dyn Fn() -> GpuTable + Send + Sync>,
}

impl TableRuntime {
    /// `read` gives the table as it is now; an empty one stands for "no GPU runtime".
    ///
    /// # Safety
    /// Every callback of every table that `read` gives must behave as [`GpuTable`] says, from any thread, for as
    /// long as this runtime or a stream of it exists.
    pub unsafe fn new(read: impl Fn() -> GpuTable + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read) }
    }

    fn table(&self) -> GpuTable {
        (self.read)()
    }

    /// Fills a handle object for `address` and hands its bytes on. `Ok(None)`: not GPU memory.
    fn probe(&self, address: u64) -> Result<Option<[u8; IPC_HANDLE_BYTES]>, GpuError> {
        let table = self.table();
        let (Some(create), Some(get), Some(free)) =
            (table.ipc_mem_handle_create, table.ipc_mem_handle_get, table.ipc_mem_handle_free)
        else {
            return Ok(None);
        };
        let (mut handle, mut size) = (ptr::null_mut(), 0);
        // SAFETY: the table's owner promised a conforming callback; both out parameters are valid for it.
        check("ipcMemHandleCreate", unsafe { create(&raw mut handle, &raw mut size) })?;
        // SAFETY: as above; `handle` came from `create`, and `address` is only looked up, not accessed.
        let code = unsafe { get(handle, address as *mut c_void) };
        let mut bytes = [0; IPC_HANDLE_BYTES];
        let usable = !handle.is_null() && size <= IPC_HANDLE_BYTES;
        if code == SUCCESS && usable {
            // SAFETY: `create` says that the object has `size` bytes, and `bytes` has room for them.
            unsafe { ptr::copy_nonoverlapping(handle.cast::<u8>(), bytes.as_mut_ptr(), size) };
        }
        // SAFETY: `handle` came from `create` and is not used again.
        let freed = unsafe { free(handle) };
        if code != SUCCESS {
            if let Some(clear) = table.get_last_error {
                // SAFETY: the table's owner promised a conforming callback.
                unsafe { clear() };
            }
            return Ok(None);
        }
        if !usable {
            let answer = format!("a handle of {size} bytes, at most {IPC_HANDLE_BYTES} fit");
            return Err(GpuError::Malformed { runtime: NAME, operation: "ipcMemHandleCreate", answer });
        }
        check("ipcMemHandleFree", freed)?;
        Ok(Some(bytes))
    }

    fn current(&self) -> Result<Option<i32>, GpuError> {
        let Some(get_device) = self.table().get_device else { return Ok(None) };
        let mut gpu = 0;
        // SAFETY: the table's owner promised a conforming callback; the out parameter is valid.
        check("getDevice", unsafe { get_device(&raw mut gpu) })?;
        Ok(Some(gpu))
    }

    fn set(&self, gpu: i32) -> Result<(), GpuError> {
        let set_device = self.table().set_device.ok_or_else(|| unsupported("choose a GPU"))?;
        // SAFETY: the table's owner promised a conforming callback.
        check("setDevice", unsafe { set_device(gpu) })
    }
}

impl GpuRuntime for TableRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    /// The table does not say. The driver does, where the table stands on it; other GPUs may need it.
    fn writes_need_flush(&self, address: u64) -> bool {
        cuda().is_none_or(|cuda| cuda.writes_need_flush(address))
    }

    fn pointer_kind(&self, address: u64) -> Result<PointerKind, GpuError> {
        Ok(match self.probe(address)? {
            Some(_) => PointerKind::Gpu(None),
            None => PointerKind::Host,
        })
    }

    fn gpu_count(&self) -> Result<u32, GpuError> {
        let Some(count) = self.table().get_device_count else { return Ok(0) };
        let mut gpus = 0;
        // SAFETY: the table's owner promised a conforming callback; the out parameter is valid.
        check("getDeviceCount", unsafe { count(&raw mut gpus) })?;
        u32::try_from(gpus).map_err(|_| malformed("getDeviceCount", gpus))
    }

    fn current_gpu(&self) -> Result<i32, GpuError> {
        self.current()?.ok_or_else(|| unsupported("name the current GPU"))
    }

    fn is_current(&self, gpu: i32) -> bool {
        self.current().is_ok_and(|current| current.is_none_or(|current| current == gpu))
    }

    fn pci_bus_id(&self, gpu: i32) -> Result<String, GpuError> {
        let bus_id =
            self.table().get_device_pci_bus_id.ok_or_else(|| unsupported("name the bus id of a GPU"))?;
        let mut text = [0_u8; 64];
        // One byte less than there is: the text ends with NUL even if the callback fills all it may.
        let room = c_int::try_from(text.len() - 1).unwrap_or(0);
        // SAFETY: the table's owner promised a conforming callback, which writes at most `room` bytes.
        check("getDevicePciBusId", unsafe { bus_id(text.as_mut_ptr().cast::<c_char>(), room, gpu) })?;
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8(text.to_vec()).map_err(|_| malformed("getDevicePciBusId", "no text"))
    }

    fn enter(&self, gpu: i32) -> Result<SavedGpu, GpuError> {
        let before = self.current()?;
        self.set(gpu)?;
        Ok(SavedGpu(before.map_or(NOTHING_SAVED, |gpu| u64::from(gpu as u32))))
    }

    fn restore(&self, SavedGpu(saved): SavedGpu) -> Result<(), GpuError> {
        match u32::try_from(saved) {
            Ok(gpu) => self.set(gpu as i32),
            Err(_) => Ok(()),
        }
    }

    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        Ok(Box::new(TableStream::open(&self.table())?))
    }

    fn ipc_export(&self, address: u64) -> Result<IpcExport, GpuError> {
        let table = self.table();
        if table.ipc_mem_handle_get.is_none() {
            return Err(unsupported("export memory to other processes"));
        }
        let handle = self.probe(address)?.ok_or_else(|| malformed("ipcMemHandleGet", "no GPU memory"))?;
        Ok(IpcExport { handle, base: None })
    }

    fn ipc_open(&self, handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError> {
        let open =
            self.table().ipc_mem_handle_open.ok_or_else(|| unsupported("open memory of other processes"))?;
        // Handle objects hold words: align the bytes for them.
        let mut object = Aligned(*handle);
        let mut address = ptr::null_mut();
        // SAFETY: the table's owner promised a conforming callback; the object has the bytes of one that `get`
        // filled, or of a peer that lies, against which `open` itself must check.
        let code = unsafe { open((&raw mut object).cast::<c_void>(), &raw mut address) };
        check("ipcMemHandleOpen", code)?;
        if address.is_null() { Err(malformed("ipcMemHandleOpen", "NULL")) } else { Ok(address as u64) }
    }

    fn ipc_close(&self, address: u64) -> Result<(), GpuError> {
        let close = self
            .table()
            .ipc_mem_handle_close
            .ok_or_else(|| unsupported("close memory of other processes"))?;
        // SAFETY: the table's owner promised a conforming callback, and the caller that the mapping is unused.
        check("ipcMemHandleClose", unsafe { close(address as *mut c_void) })
    }

    fn dma_buf(&self, _address: u64, _length: u64) -> Result<DmaBufExport, GpuError> {
        Err(unsupported("export a dma-buf"))
    }

    fn map_for_cpu(&self, address: u64, length: u64) -> Result<Option<u64>, GpuError> {
        let table = self.table();
        let (Some(map), Some(_)) = (table.gdr_ptr_mmap, table.gdr_ptr_munmap) else { return Ok(None) };
        let mut mapped = ptr::null_mut();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // SAFETY: the table's owner promised a conforming callback; the out parameter is valid.
        check("gdrPtrMmap", unsafe { map(&raw mut mapped, address as *mut c_void, length) })?;
        if mapped.is_null() { Err(malformed("gdrPtrMmap", "NULL")) } else { Ok(Some(mapped as u64)) }
    }

    fn unmap_for_cpu(&self, mapped: u64, length: u64) -> Result<(), GpuError> {
        let Some(unmap) = self.table().gdr_ptr_munmap else { return Ok(()) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // SAFETY: the table's owner promised a conforming callback; the mapping came from `map_for_cpu`.
        check("gdrPtrMunmap", unsafe { unmap(mapped as *mut c_void, length) })
    }
}

impl fmt::Debug for TableRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableRuntime").field("table", &self.table()).finish()
    }
}

#[repr(C, align(16))]
struct Aligned([u8; IPC_HANDLE_BYTES]);

pub(super) fn check(operation: &'static str, code: c_int) -> Result<(), GpuError> {
    if code == SUCCESS {
        Ok(())
    } else {
        Err(GpuError::Call { runtime: NAME, operation, code, text: String::new() })
    }
}

pub(super) fn unsupported(operation: &'static str) -> GpuError {
    GpuError::Unsupported { runtime: NAME, operation }
}

fn malformed(operation: &'static str, answer: impl fmt::Display) -> GpuError {
    GpuError::Malformed { runtime: NAME, operation, answer: answer.to_string() }
}
