//! The runtime over a table.
#![allow(unsafe_code, reason = "calls the host program's C callbacks")]

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::Arc;

use super::super::installed::{cuda, found_cuda};
use super::super::{
    CopyStream, CurrentGpu, DmaBufExport, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcExport, PointerKind,
    SavedGpu,
};
use super::handle::{IpcProbe, probe};
use super::stream::TableStream;
use super::{GpuTable, dma_buf};

/// Name in errors.
pub(super) const NAME: &str = "callback";
/// `flagcxSuccess`.
pub(super) const SUCCESS: c_int = 0;
/// `FLAGCX_PTR_HOST` and `FLAGCX_PTR_CUDA`.
const POINTER_IS_HOST: c_int = 1;
const POINTER_IS_GPU: c_int = 2;
/// No GPU was current, as far as the table says, so there is nothing to restore.
const NOTHING_SAVED: u64 = u64::MAX;

/// A runtime over C callbacks. The table is read anew at each use, since its owner may replace it at run time.
///
/// Where the process has the CUDA driver as well, that is asked about memory which it knows: which GPU has it, and its dma-buf if
/// the table gives none.
pub struct TableRuntime {
    read: Box<dyn Fn() -> GpuTable + Send + Sync>,
    driver: FindDriver,
}

/// Finds the driver below the table.
pub(super) type FindDriver = fn(Look) -> Option<Arc<dyn GpuRuntime>>;

/// How it is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Among the libraries that the process has loaded by now.
    Now,
    /// Only whether it was found before, which takes no time.
    Found,
}

impl TableRuntime {
    /// `read` gives the table as it is now; an empty one stands for "no GPU runtime".
    ///
    /// # Safety
    /// Every callback of every table that `read` gives must behave as [`GpuTable`] says, from any thread, for as
    /// long as this runtime or a stream of it exists.
    pub unsafe fn new(read: impl Fn() -> GpuTable + Send + Sync + 'static) -> Self {
        Self { read: Box::new(read), driver: find_cuda }
    }

    /// As [`TableRuntime::new`], over another driver.
    ///
    /// # Safety
    /// As there.
    #[cfg(test)]
    pub(super) unsafe fn over_driver(
        read: impl Fn() -> GpuTable + Send + Sync + 'static,
        driver: FindDriver,
    ) -> Self {
        Self { read: Box::new(read), driver }
    }

    fn table(&self) -> GpuTable {
        (self.read)()
    }

    /// The driver below, if it knows `address` as GPU memory, and the number of the GPU.
    fn driver_of(&self, address: u64) -> Option<(Arc<dyn GpuRuntime>, Option<i32>)> {
        let driver = (self.driver)(Look::Now)?;
        match driver.pointer_kind(address) {
            Ok(PointerKind::Gpu(gpu)) => Some((driver, gpu)),
            _ => None,
        }
    }

    /// Makes the GPU of `address` current if the driver below names it; else the one that is current stays.
    fn on_gpu_of(&self, address: u64) -> Result<Option<CurrentGpu<'_>>, GpuError> {
        match self.driver_of(address).and_then(|(_, gpu)| gpu) {
            Some(gpu) => CurrentGpu::ensure(self, gpu),
            None => Ok(None),
        }
    }

    /// What is current for the thread.
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

    /// By the table's own answer, by the driver's, and else by whether the memory has an IPC handle: the last says nothing of a
    /// table that makes none.
    fn pointer_kind(&self, address: u64) -> Result<PointerKind, GpuError> {
        let table = self.table();
        let told = pointer_type(&table, address);
        if told == Some(POINTER_IS_HOST) {
            return Ok(PointerKind::Host);
        }
        // FlagCX's adaptor of CUDA says of managed memory, too, that it is a GPU's.
        if told.is_some() && (self.driver)(Look::Now).is_some_and(|driver| driver.is_managed(address)) {
            return Ok(PointerKind::Host);
        }
        let known = self.driver_of(address).map(|(_, gpu)| PointerKind::Gpu(gpu));
        if let Some(kind) = known.or_else(|| told.map(|_| PointerKind::Gpu(None))) {
            return Ok(kind);
        }
        Ok(match probe(&table, address)? {
            IpcProbe::Handle(_) => PointerKind::Gpu(None),
            IpcProbe::Refused => PointerKind::Host,
            IpcProbe::NoHandles if TableStream::is_offered(&table) => PointerKind::Unknown,
            IpcProbe::NoHandles => PointerKind::Host,
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

    /// Of a table that cannot change it, any GPU is taken as current. Some adaptors answer an error on a thread that has not
    /// chosen a GPU yet: none is current then.
    fn is_current(&self, gpu: i32) -> bool {
        self.table().set_device.is_none()
            || self.current().is_ok_and(|current| current.is_none_or(|current| current == gpu))
    }

    /// Of the driver below, if it has been needed before: this is asked for every transfer.
    fn gpu_of(&self, address: u64) -> Option<i32> {
        (self.driver)(Look::Found)?.gpu_of(address)
    }

    fn depends_on_current(&self) -> bool {
        true
    }

    /// By the driver below; else by the last byte, which is GPU memory if the first one is.
    fn check_range(&self, address: u64, length: u64) -> Result<(), GpuError> {
        if let Some((driver, _)) = self.driver_of(address) {
            return driver.check_range(address, length);
        }
        let is_known = |at| Ok::<_, GpuError>(matches!(self.pointer_kind(at)?, PointerKind::Gpu(_)));
        let last = address.saturating_add(length.saturating_sub(1));
        if last == address || !is_known(address)? || is_known(last)? {
            return Ok(());
        }
        let problem = "it is GPU memory at its first byte, and not any more";
        Err(GpuError::Range { address, length, problem, at: last })
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
        // An adaptor that answers an error has none for this thread.
        let before = self.current().unwrap_or(None);
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
        let operation = "export memory to other processes";
        let _entered = self.on_gpu_of(address)?;
        match probe(&self.table(), address)? {
            // The handle is of the whole allocation. Without a driver that knows it, the range is taken to begin there.
            IpcProbe::Handle(handle) => {
                Ok(IpcExport { handle, base: self.allocation(address).ok().map(|(start, _)| start) })
            }
            IpcProbe::Refused => Err(GpuError::NoMemory { runtime: NAME, operation, address }),
            IpcProbe::NoHandles => Err(unsupported(operation)),
        }
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

    /// By the driver below.
    fn opened_range(&self, address: u64) -> Result<(u64, u64), GpuError> {
        match self.driver_of(address) {
            Some((driver, _)) => driver.opened_range(address),
            None => Err(unsupported("name the bytes of opened memory")),
        }
    }

    /// By the table; if that makes none, by the driver below.
    fn dma_buf(&self, address: u64, length: u64) -> Result<DmaBufExport, GpuError> {
        let entered = self.on_gpu_of(address)?;
        let refused = match dma_buf::export(&self.table(), address, length) {
            Ok(export) => return Ok(export),
            Err(refused) => refused,
        };
        drop(entered);
        match self.driver_of(address) {
            Some((driver, _)) => driver.dma_buf(address, length),
            None => Err(refused),
        }
    }

    /// By the driver below.
    fn allocation(&self, address: u64) -> Result<(u64, u64), GpuError> {
        match self.driver_of(address) {
            Some((driver, _)) => driver.allocation(address),
            None => Err(unsupported("name the allocation around an address")),
        }
    }

    /// By the driver below; the table has no such setting.
    fn synchronise_copies(&self, address: u64) -> Result<(), GpuError> {
        self.driver_of(address).map_or(Ok(()), |(driver, _)| driver.synchronise_copies(address))
    }

    /// The table does not say. The driver below does; other GPUs may need it.
    fn writes_need_flush(&self, address: u64) -> bool {
        self.driver_of(address).is_none_or(|(driver, _)| driver.writes_need_flush(address))
    }

    fn some_gpu_needs_flush(&self) -> bool {
        match (self.driver)(Look::Now) {
            Some(driver) => driver.some_gpu_needs_flush(),
            None => TableStream::is_offered(&self.table()),
        }
    }

    fn map_for_cpu(&self, address: u64, length: u64) -> Result<Option<u64>, GpuError> {
        let table = self.table();
        let (Some(map), Some(_)) = (table.gdr_ptr_mmap, table.gdr_ptr_munmap) else { return Ok(None) };
        let _entered = self.on_gpu_of(address)?;
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

fn find_cuda(look: Look) -> Option<Arc<dyn GpuRuntime>> {
    let found = if look == Look::Now { cuda() } else { found_cuda() };
    found.map(|cuda| cuda as Arc<dyn GpuRuntime>)
}

/// What the table says of an address, if it says anything.
fn pointer_type(table: &GpuTable, address: u64) -> Option<c_int> {
    let (ask, mut answer) = (table.get_pointer_type?, 0);
    // SAFETY: the table's owner promised a conforming callback; the address is only looked up.
    let code = unsafe { ask(address as *const c_void, &raw mut answer) };
    (code == SUCCESS && matches!(answer, POINTER_IS_HOST | POINTER_IS_GPU)).then_some(answer)
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

pub(super) fn malformed(operation: &'static str, answer: impl fmt::Display) -> GpuError {
    GpuError::Malformed { runtime: NAME, operation, answer: answer.to_string() }
}
