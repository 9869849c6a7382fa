//! What the engine asks of a GPU runtime, and nothing more.
//!
//! Three runtimes answer: [`HostRuntime`] (no GPU), [`TableRuntime`] (C callbacks that the host program supplies) and
//! [`CudaRuntime`] (the CUDA driver, when the process has it loaded). [`runtime`] is the one in use.

mod allocations;
mod cuda;
mod error;
#[cfg(test)]
mod fake_gpu;
mod guard;
mod host;
mod host_call;
mod installed;
mod ipc_info;
mod memory_files;
mod pages;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod played_runtime;
mod sharing;
mod table;

use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::events::Notifier;

pub use allocations::{GpuAllocation, allocations};
pub use cuda::CudaRuntime;
pub use error::GpuError;
pub use guard::CurrentGpu;
pub use host::HostRuntime;
pub use installed::{install, runtime};
pub use ipc_info::{IPC_INFO_BYTES, IpcInfo};
pub use memory_files::{FileReference, MemoryFile, MemoryFiles, Owner, POOL_POINTER_BYTES};
#[cfg(all(test, not(flagcx_p2p_loom)))]
pub(crate) use played_runtime::{Gate, PlayedRuntime, PlayedStreams};
pub use sharing::{MappedFiles, OpenedShare, Share};
pub use table::{GpuTable, TableRuntime};

/// What a driver has given, for no program that this process may start.
fn closed_on_exec(file: OwnedFd) -> OwnedFd {
    if let Err(error) = fcntl_setfd(&file, FdFlags::CLOEXEC) {
        tracing::warn!(
            "a descriptor of a GPU's driver stays open in programs that this process starts: {error}"
        );
    }
    file
}

/// Bytes of an IPC handle, as it travels between processes.
pub const IPC_HANDLE_BYTES: usize = 64;

/// A GPU runtime. Any thread may call it; calls act on the GPU that is current for the calling thread.
pub trait GpuRuntime: Send + Sync + Debug {
    /// Name for logs: `host`, `cuda`, or what the host program's table says.
    fn name(&self) -> &'static str;

    /// Whether there can be any GPU memory at all.
    fn has_memory(&self) -> bool {
        true
    }

    /// What lies at `address`. Memory that the runtime does not know is host memory, never an error. Memory is a GPU's whether
    /// or not it can be opened by other processes. Needs no current GPU, and makes none.
    fn pointer_kind(&self, address: u64) -> Result<PointerKind, GpuError>;

    /// Whether the memory at `address` is managed: the CPU reaches it, and no NIC reaches it on the GPU. False where the runtime
    /// cannot say.
    fn is_managed(&self, _address: u64) -> bool {
        false
    }

    /// Number of GPUs.
    fn gpu_count(&self) -> Result<u32, GpuError>;

    /// The GPU that is current for the calling thread. An error if there is none; the runtime is not initialised for this.
    fn current_gpu(&self) -> Result<i32, GpuError>;

    /// Whether the calling thread works on `gpu` in the way that [`GpuRuntime::enter`] would have it. True also
    /// where the runtime cannot say: what cannot be restored is not changed.
    fn is_current(&self, gpu: i32) -> bool {
        self.current_gpu().is_ok_and(|current| current == gpu)
    }

    /// The number of the GPU that has the memory at `address`, where the runtime can tell.
    fn gpu_of(&self, _address: u64) -> Option<i32> {
        None
    }

    /// Whether what is asked about an address is answered by the GPU that is current for the calling thread. False where the
    /// runtime goes to the GPU that has the address by itself: the thread's own choice does not matter, and is kept.
    fn depends_on_current(&self) -> bool {
        false
    }

    /// Refuses a range of GPU memory of which a part is none, or that lies in two allocations that no copy may span. A range
    /// that does not begin in GPU memory which the runtime knows passes.
    fn check_range(&self, _address: u64, _length: u64) -> Result<(), GpuError> {
        Ok(())
    }

    /// Bus id of a GPU, as in `0000:3b:00.0`.
    fn pci_bus_id(&self, gpu: i32) -> Result<String, GpuError>;

    /// Makes `gpu` the calling thread's current one; gives what was current before. [`CurrentGpu`] undoes it.
    fn enter(&self, gpu: i32) -> Result<SavedGpu, GpuError>;

    /// Makes what was current before [`GpuRuntime::enter`] current again.
    fn restore(&self, saved: SavedGpu) -> Result<(), GpuError>;

    /// A stream of the current GPU for copies.
    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError>;

    /// A handle by which another process of this host opens the allocation around `address`.
    fn ipc_export(&self, address: u64) -> Result<IpcExport, GpuError>;

    /// Maps another process's allocation; gives its start here. Ended by [`GpuRuntime::ipc_close`].
    fn ipc_open(&self, handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError>;

    /// Start and bytes of the allocation of another process that [`GpuRuntime::ipc_open`] has mapped at `address`: of a peer, its
    /// own word is all there is otherwise. Asked with the GPU current for which it was opened.
    fn opened_range(&self, _address: u64) -> Result<(u64, u64), GpuError> {
        Err(GpuError::Unsupported { runtime: self.name(), operation: "name the bytes of opened memory" })
    }

    /// Ends a mapping that [`GpuRuntime::ipc_open`] made. Nothing may use it any more.
    fn ipc_close(&self, address: u64) -> Result<(), GpuError>;

    /// The files of the allocations behind a range of GPU memory, by which another process of this host maps it: for memory
    /// that has no IPC handle, of `cuMemCreate` or of a pool.
    fn memory_files(&self, _address: u64, _length: u64) -> Result<MemoryFiles, GpuError> {
        sharing::no_files(self.name())
    }

    /// Maps another process's allocations one behind the other, for the current GPU.
    fn map_files(&self, _files: &MemoryFiles) -> Result<Box<dyn MappedFiles>, GpuError> {
        sharing::no_files(self.name())
    }

    /// The dma-buf behind a range of GPU memory, for registering it with a NIC.
    fn dma_buf(&self, address: u64, length: u64) -> Result<DmaBufExport, GpuError>;

    /// Start and bytes of the allocation around `address`; of memory that was mapped from several, of the one at `address`.
    fn allocation(&self, _address: u64) -> Result<(u64, u64), GpuError> {
        Err(GpuError::Unsupported {
            runtime: self.name(),
            operation: "name the allocation around an address",
        })
    }

    /// Has the runtime end its own copies of the allocation at `address` before the calls that start them return, for
    /// memory that a NIC accesses too. Nothing where the runtime has no such setting.
    fn synchronise_copies(&self, _address: u64) -> Result<(), GpuError> {
        Ok(())
    }

    /// Whether the GPU sees what a NIC has written at `address` only after a read by that NIC. True also where that is not
    /// known: then bytes are never missed.
    fn writes_need_flush(&self, _address: u64) -> bool {
        true
    }

    /// Whether some GPU needs that, of which memory may come to be registered. True also where that is not known.
    fn some_gpu_needs_flush(&self) -> bool {
        self.has_memory()
    }

    /// A CPU address to register instead of a range of GPU memory, where the platform works so; `None` elsewhere.
    /// Ended by [`GpuRuntime::unmap_for_cpu`] once the range is registered.
    fn map_for_cpu(&self, _address: u64, _length: u64) -> Result<Option<u64>, GpuError> {
        Ok(None)
    }

    /// Ends what [`GpuRuntime::map_for_cpu`] made.
    fn unmap_for_cpu(&self, _mapped: u64, _length: u64) -> Result<(), GpuError> {
        Ok(())
    }
}

/// Copies on one stream, in order. Used by one thread at a time. Dropping it waits for nothing: finish first.
pub trait CopyStream: Send + Debug {
    /// Starts a copy and returns at once, or after it is done. An error means that it was not started.
    ///
    /// # Safety
    /// Both ranges must be valid for `length` bytes, of the kinds that `direction` says, and stay so until
    /// [`CopyStream::is_done`] has answered true of a later [`CopyStream::mark`], or [`GpuError::Lost`].
    #[allow(unsafe_code, reason = "declares the caller's promise; does nothing unsafe itself")]
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        direction: CopyDirection,
    ) -> Result<(), GpuError>;

    /// Puts mark number `mark` here: [`CopyStream::is_done`] then speaks of every copy started before. Marks are numbered from
    /// 0, and one that is put again is at its new place only. Each number costs an object of the driver, made at its first
    /// use.
    fn mark(&mut self, mark: usize) -> Result<(), GpuError>;

    /// Whether every copy before a mark is done. Never blocks. [`GpuError::Lost`] means that they have failed, and that
    /// nothing of the stream touches memory any more; any other error says nothing about them.
    fn is_done(&mut self, mark: usize) -> Result<bool, GpuError>;

    /// Asks that `notifier` be notified once everything started so far is done. It may never be, if the GPU fails.
    /// [`GpuError::Unsupported`] where the runtime cannot.
    fn notify(&mut self, notifier: &Arc<Notifier>) -> Result<(), GpuError>;
}

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointerKind {
    /// Host memory, pinned or not.
    Host,
    /// Memory of a GPU; its number if the runtime says so.
    Gpu(Option<i32>),
    /// The runtime copies GPU memory, and has no way to tell it from host memory.
    Unknown,
}

/// Between which kinds of memory a copy runs. Numbered as in FlagCX's device adaptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum CopyDirection {
    /// From host memory to GPU memory.
    HostToGpu = 0,
    /// From GPU memory to host memory.
    GpuToHost = 1,
    /// Within GPU memory.
    GpuToGpu = 2,
}

/// What was current before [`GpuRuntime::enter`]; only the runtime that gave it knows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedGpu(u64);

/// An allocation, named for other processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcExport {
    /// What the other process opens.
    pub handle: [u8; IPC_HANDLE_BYTES],
    /// Start of the allocation that the handle names, if the runtime says so: opened, the handle gives this address,
    /// not the one that was asked for.
    pub base: Option<u64>,
}

/// A dma-buf that covers a range.
#[derive(Debug)]
pub struct DmaBufExport {
    /// The dma-buf; closed when dropped.
    pub fd: OwnedFd,
    /// Offset of the range in it.
    pub offset: u64,
}
