//! The runtime over the CUDA driver.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use once_cell::sync::OnceCell;

use super::super::pages::Pages;
use super::super::{
    CopyStream, DmaBufExport, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcExport, MappedFiles, MemoryFiles,
    PointerKind, SavedGpu, closed_on_exec,
};
use super::context::{Entered, restore};
use super::stream::CudaStream;
use super::symbols::{IpcMemHandle, Symbols};

/// Name in logs and errors.
pub(super) const NAME: &str = "cuda";

const ERROR_INVALID_VALUE: c_int = 1;
const ERROR_NOT_INITIALIZED: c_int = 3;
const ERROR_DEINITIALIZED: c_int = 4;
const ERROR_INVALID_CONTEXT: c_int = 201;
const ERROR_CONTEXT_IS_DESTROYED: c_int = 709;
const ATTRIBUTE_CONTEXT: c_int = 1;
const ATTRIBUTE_MEMORY_TYPE: c_int = 2;
const ATTRIBUTE_IS_MANAGED: c_int = 8;
pub(super) const ATTRIBUTE_DEVICE_ORDINAL: c_int = 9;
const MEMORY_TYPE_HOST: u32 = 1;
const IPC_LAZY_PEER_ACCESS: u32 = 1;
const RANGE_HANDLE_DMA_BUF: c_int = 1;

/// The CUDA driver. Works in the primary context of each GPU, which it shares with the CUDA runtime library, and asks about an
/// address in the context in which that was allocated. The calling thread has its own context again when a call returns.
#[derive(Debug)]
pub struct CudaRuntime {
    symbols: Arc<Symbols>,
    initialised: OnceCell<()>,
    /// Primary contexts retained so far, by GPU; kept until the process ends, as the CUDA runtime library does. The program may
    /// reset one all the same (`cudaDeviceReset`): it is retained again then.
    contexts: Mutex<HashMap<i32, usize>>,
}

impl CudaRuntime {
    /// The driver that this process has loaded already. A process that has not has no GPU memory either.
    pub fn of_process() -> Result<Self, GpuError> {
        Symbols::of_process().map(Self::over)
    }

    /// The driver in the file `library` (`libcuda.so.1`), loaded now if need be.
    pub fn load(library: &str) -> Result<Self, GpuError> {
        Symbols::load(library).map(Self::over)
    }

    pub(super) fn over(symbols: Symbols) -> Self {
        Self { symbols: Arc::new(symbols), initialised: OnceCell::new(), contexts: Mutex::default() }
    }

    /// The functions, after the driver has been initialised.
    pub(super) fn driver(&self) -> Result<&Symbols, GpuError> {
        let initialise = || {
            // SAFETY: takes no pointer, and may be called again after the program itself has.
            let code = unsafe { (self.symbols.init)(0) };
            self.symbols.check("cuInit", code)
        };
        self.initialised.get_or_try_init(initialise)?;
        Ok(&self.symbols)
    }

    /// The functions, for what outlives this call.
    pub(super) fn shared_driver(&self) -> Result<Arc<Symbols>, GpuError> {
        self.driver().map(|_| Arc::clone(&self.symbols))
    }

    /// The number of GPUs; `None` where the driver does not say it, as before it is initialised.
    pub(super) fn count_if_initialised(&self) -> Option<i32> {
        let mut count = 0;
        // SAFETY: the driver's function by its documented type; the out parameter is valid.
        (unsafe { (self.symbols.device_count)(&raw mut count) } == 0).then_some(count)
    }

    pub(super) fn device(&self, ordinal: i32) -> Result<c_int, GpuError> {
        let (driver, mut device) = (self.driver()?, 0);
        // SAFETY: the out parameter is valid.
        driver.check("cuDeviceGet", unsafe { (driver.device_get)(&raw mut device, ordinal) })?;
        Ok(device)
    }

    fn primary_context(&self, ordinal: i32) -> Result<*mut c_void, GpuError> {
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = contexts.get(&ordinal) {
            return Ok(*context as *mut c_void);
        }
        let (driver, device, mut context) = (self.driver()?, self.device(ordinal)?, ptr::null_mut());
        // SAFETY: the out parameter is valid, the device came from the driver.
        let code = unsafe { (driver.primary_context)(&raw mut context, device) };
        driver.check("cuDevicePrimaryCtxRetain", code)?;
        contexts.insert(ordinal, context as usize);
        Ok(context)
    }

    /// Makes the primary context of a GPU current; gives what was current before.
    fn enter_primary(&self, ordinal: i32) -> Result<*mut c_void, GpuError> {
        let (driver, mut before) = (self.driver()?, ptr::null_mut());
        // SAFETY: the out parameter is valid.
        driver.check("cuCtxGetCurrent", unsafe { (driver.get_context)(&raw mut before) })?;
        let mut context = self.primary_context(ordinal)?;
        // SAFETY: the driver refuses a context that is no more.
        let mut code = unsafe { (driver.set_context)(context) };
        if matches!(code, ERROR_INVALID_CONTEXT | ERROR_CONTEXT_IS_DESTROYED) {
            self.contexts.lock().unwrap_or_else(PoisonError::into_inner).remove(&ordinal);
            context = self.primary_context(ordinal)?;
            // SAFETY: as above.
            code = unsafe { (driver.set_context)(context) };
        }
        driver.check("cuCtxSetCurrent", code).map(|()| before)
    }

    /// Makes the context in which the memory at `address` was allocated current, until the answer is dropped: that of the
    /// program's own if it has one, else the primary one of its GPU, as for memory of pools and of `cuMemMap`, which has none.
    pub(super) fn enter_context_of(
        &self,
        operation: &'static str,
        address: u64,
    ) -> Result<Entered<'_>, GpuError> {
        let (driver, mut context) = (self.driver()?, ptr::null_mut::<c_void>());
        // SAFETY: this attribute is a pointer; the address is only looked up.
        let code = unsafe {
            (driver.pointer_attribute)((&raw mut context).cast::<c_void>(), ATTRIBUTE_CONTEXT, address)
        };
        if code == 0 && !context.is_null() {
            return Entered::new(driver, context);
        }
        let unknown = GpuError::NoMemory { runtime: NAME, operation, address };
        let before = self.enter_primary(self.gpu_of(address).ok_or(unknown)?)?;
        Ok(Entered::already(driver, before))
    }

    /// An integer attribute of a pointer; `None` when the driver does not know the pointer.
    pub(super) fn attribute(&self, attribute: c_int, address: u64) -> Result<Option<u32>, GpuError> {
        let mut value = 0_u32;
        // SAFETY: every attribute asked for here is a 32-bit integer (or a bool); the address is only looked up.
        let code = unsafe {
            (self.symbols.pointer_attribute)((&raw mut value).cast::<c_void>(), attribute, address)
        };
        match code {
            // Not initialised, and so no GPU memory: initialising is left to the program.
            ERROR_INVALID_VALUE | ERROR_NOT_INITIALIZED | ERROR_DEINITIALIZED => Ok(None),
            code => self.symbols.check("cuPointerGetAttribute", code).map(|()| Some(value)),
        }
    }
}

impl GpuRuntime for CudaRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn pointer_kind(&self, address: u64) -> Result<PointerKind, GpuError> {
        match self.attribute(ATTRIBUTE_MEMORY_TYPE, address)? {
            None | Some(0 | MEMORY_TYPE_HOST) => return Ok(PointerKind::Host),
            Some(_) => {}
        }
        if self.is_managed(address) {
            return Ok(PointerKind::Host);
        }
        let ordinal = self.attribute(ATTRIBUTE_DEVICE_ORDINAL, address)?;
        Ok(PointerKind::Gpu(ordinal.map(|ordinal| ordinal as i32)))
    }

    fn is_managed(&self, address: u64) -> bool {
        let managed = self.attribute(ATTRIBUTE_IS_MANAGED, address);
        managed.ok().flatten().is_some_and(|managed| managed & 0xFF != 0)
    }

    fn gpu_count(&self) -> Result<u32, GpuError> {
        let (driver, mut count) = (self.driver()?, 0);
        // SAFETY: the out parameter is valid.
        driver.check("cuDeviceGetCount", unsafe { (driver.device_count)(&raw mut count) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Initialises nothing: a driver that the program has not initialised has no current context.
    fn current_gpu(&self) -> Result<i32, GpuError> {
        let (driver, mut device) = (&*self.symbols, 0);
        // SAFETY: the driver's function by its documented type; the out parameter is valid.
        driver.check("cuCtxGetDevice", unsafe { (driver.context_device)(&raw mut device) })?;
        let ordinals = 0..i32::try_from(self.gpu_count()?).unwrap_or(i32::MAX);
        let mut known = ordinals.filter(|&ordinal| self.device(ordinal).is_ok_and(|other| other == device));
        known.next().ok_or_else(|| {
            GpuError::NotAvailable(format!("the driver does not list its own device {device}"))
        })
    }

    /// In the primary context: streams that are made in another one end with it.
    fn is_current(&self, gpu: i32) -> bool {
        let (Ok(driver), Ok(context)) = (self.driver(), self.primary_context(gpu)) else { return false };
        let mut current = ptr::null_mut();
        // SAFETY: the out parameter is valid.
        unsafe { (driver.get_context)(&raw mut current) == 0 && current == context }
    }

    fn gpu_of(&self, address: u64) -> Option<i32> {
        self.attribute(ATTRIBUTE_DEVICE_ORDINAL, address).ok().flatten().map(|ordinal| ordinal as i32)
    }

    fn check_range(&self, address: u64, length: u64) -> Result<(), GpuError> {
        self.check_allocations(address, length)
    }

    fn pci_bus_id(&self, gpu: i32) -> Result<String, GpuError> {
        let (driver, device, mut text) = (self.driver()?, self.device(gpu)?, [0_u8; 32]);
        let room = c_int::try_from(text.len()).unwrap_or(0);
        // SAFETY: the driver writes at most `room` bytes, NUL included.
        let code = unsafe { (driver.pci_bus_id)(text.as_mut_ptr().cast::<c_char>(), room, device) };
        driver.check("cuDeviceGetPCIBusId", code)?;
        Ok(text.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect())
    }

    fn enter(&self, gpu: i32) -> Result<SavedGpu, GpuError> {
        self.enter_primary(gpu).map(|before| SavedGpu(before as u64))
    }

    fn restore(&self, SavedGpu(saved): SavedGpu) -> Result<(), GpuError> {
        restore(&self.symbols, saved as *mut c_void)
    }

    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        self.driver()?;
        Ok(Box::new(CudaStream::open(&self.symbols)?))
    }

    fn ipc_export(&self, address: u64) -> Result<IpcExport, GpuError> {
        let (driver, mut handle) = (self.driver()?, IpcMemHandle([0; IPC_HANDLE_BYTES]));
        // Memory of `cuMemCreate` and of pools has none. Drivers before 11.0 do not know the attribute, nor such memory.
        if !self.has_ipc_handle(address)? {
            let operation = "make an IPC handle of memory of cuMemCreate or of a pool";
            return Err(GpuError::Unsupported { runtime: NAME, operation });
        }
        let _entered = self.enter_context_of("export memory to other processes", address)?;
        let (base, _) = self.allocation_at(address)?;
        // SAFETY: as above.
        driver.check("cuIpcGetMemHandle", unsafe { (driver.ipc_get)(&raw mut handle, base) })?;
        Ok(IpcExport { handle: handle.0, base: Some(base) })
    }

    fn ipc_open(&self, handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError> {
        let (driver, mut address) = (self.driver()?, 0);
        // SAFETY: the out parameter is valid; the driver itself checks handles, which come from other processes.
        let code =
            unsafe { (driver.ipc_open)(&raw mut address, IpcMemHandle(*handle), IPC_LAZY_PEER_ACCESS) };
        driver.check("cuIpcOpenMemHandle", code)?;
        Ok(address)
    }

    fn opened_range(&self, address: u64) -> Result<(u64, u64), GpuError> {
        self.address_range(address)
    }

    fn ipc_close(&self, address: u64) -> Result<(), GpuError> {
        let driver = self.driver()?;
        // SAFETY: the caller promises that the mapping is unused; the driver refuses what is no mapping.
        driver.check("cuIpcCloseMemHandle", unsafe { (driver.ipc_close)(address) })
    }

    fn memory_files(&self, address: u64, length: u64) -> Result<MemoryFiles, GpuError> {
        self.files_of(address, length)
    }

    fn map_files(&self, files: &MemoryFiles) -> Result<Box<dyn MappedFiles>, GpuError> {
        self.map_taken(files)
    }

    fn dma_buf(&self, address: u64, length: u64) -> Result<DmaBufExport, GpuError> {
        let driver = self.driver()?;
        let operation = "export a dma-buf";
        self.require_dma_bufs(address)?;
        let export = driver.handle_for_range.ok_or(GpuError::Unsupported { runtime: NAME, operation })?;
        // The driver wants whole pages of the host.
        let Pages { start, bytes, offset } = Pages::around(NAME, operation, address, length)?;
        let _entered = self.enter_context_of(operation, address)?;
        let mut fd: c_int = -1;
        // SAFETY: the out parameter is an int, as this handle type wants; the range is only looked up.
        let code = unsafe { export((&raw mut fd).cast::<c_void>(), start, bytes, RANGE_HANDLE_DMA_BUF, 0) };
        driver.check("cuMemGetHandleForAddressRange", code)?;
        if fd < 0 {
            return Err(GpuError::Malformed { runtime: NAME, operation, answer: format!("descriptor {fd}") });
        }
        // SAFETY: the driver has just made this descriptor for us, and nothing else knows it.
        let fd = closed_on_exec(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(DmaBufExport { fd, offset })
    }

    fn allocation(&self, address: u64) -> Result<(u64, u64), GpuError> {
        self.allocation_at(address)
    }

    fn synchronise_copies(&self, address: u64) -> Result<(), GpuError> {
        self.set_sync_memops(address)
    }

    fn writes_need_flush(&self, address: u64) -> bool {
        self.is_before_hopper(address)
    }

    fn some_gpu_needs_flush(&self) -> bool {
        self.has_gpu_before_hopper()
    }
}
