//! The CUDA driver with failures put into its streams: every so-many-th copy, mark or question is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use flagcx_p2p::internals::events::Notifier;
use flagcx_p2p::internals::gpu::{
    CopyDirection, CopyStream, DmaBufExport, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcExport, PointerKind,
    SavedGpu,
};

/// What fails, and how often it has.
#[derive(Debug, Default)]
pub struct Faults {
    pub on: AtomicBool,
    calls: AtomicU64,
    pub injected: AtomicU64,
}

impl Faults {
    /// Fails every `every`-th call while they are on.
    fn strike(&self, operation: &'static str, every: u64) -> Result<(), GpuError> {
        if !self.on.load(Ordering::SeqCst) || self.calls.fetch_add(1, Ordering::SeqCst) % every != every - 1 {
            return Ok(());
        }
        self.injected.fetch_add(1, Ordering::SeqCst);
        Err(GpuError::Call { runtime: "failing", operation, code: 999, text: String::new() })
    }
}

/// The runtime: all but its streams is the driver's.
#[derive(Debug)]
pub struct Failing {
    pub driver: Arc<dyn GpuRuntime>,
    pub faults: Arc<Faults>,
}

impl GpuRuntime for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }
    fn pointer_kind(&self, address: u64) -> Result<PointerKind, GpuError> {
        self.driver.pointer_kind(address)
    }
    fn gpu_count(&self) -> Result<u32, GpuError> {
        self.driver.gpu_count()
    }
    fn current_gpu(&self) -> Result<i32, GpuError> {
        self.driver.current_gpu()
    }
    fn is_current(&self, gpu: i32) -> bool {
        self.driver.is_current(gpu)
    }
    fn gpu_of(&self, address: u64) -> Option<i32> {
        self.driver.gpu_of(address)
    }
    fn pci_bus_id(&self, gpu: i32) -> Result<String, GpuError> {
        self.driver.pci_bus_id(gpu)
    }
    fn enter(&self, gpu: i32) -> Result<SavedGpu, GpuError> {
        self.driver.enter(gpu)
    }
    fn restore(&self, saved: SavedGpu) -> Result<(), GpuError> {
        self.driver.restore(saved)
    }
    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        self.faults.strike("open a stream", 5)?;
        Ok(Box::new(FailingStream { stream: self.driver.open_stream()?, faults: Arc::clone(&self.faults) }))
    }
    fn ipc_export(&self, address: u64) -> Result<IpcExport, GpuError> {
        self.driver.ipc_export(address)
    }
    fn ipc_open(&self, handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError> {
        self.driver.ipc_open(handle)
    }
    fn ipc_close(&self, address: u64) -> Result<(), GpuError> {
        self.driver.ipc_close(address)
    }
    fn dma_buf(&self, address: u64, length: u64) -> Result<DmaBufExport, GpuError> {
        self.driver.dma_buf(address, length)
    }
}

#[derive(Debug)]
struct FailingStream {
    stream: Box<dyn CopyStream>,
    faults: Arc<Faults>,
}

impl CopyStream for FailingStream {
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        direction: CopyDirection,
    ) -> Result<(), GpuError> {
        self.faults.strike("copy", 7)?;
        // SAFETY: the caller's promise.
        unsafe { self.stream.copy(destination, source, length, direction) }
    }
    fn mark(&mut self, mark: usize) -> Result<(), GpuError> {
        self.faults.strike("mark", 11)?;
        self.stream.mark(mark)
    }
    fn is_done(&mut self, mark: usize) -> Result<bool, GpuError> {
        self.faults.strike("ask", 13)?;
        self.stream.is_done(mark)
    }
    fn notify(&mut self, notifier: &Arc<Notifier>) -> Result<(), GpuError> {
        self.faults.strike("notify", 3)?;
        self.stream.notify(notifier)
    }
}
