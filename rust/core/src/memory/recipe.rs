//! How a further NIC registers the memory of a region: as the first one has.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::nic_registration::register_for_nic;
use super::region::Region;
use super::registry::pieces;
use super::shared_export::SharedExport;
use crate::fabric::{Device, DmaBuf, FabricError, MemoryRange, SharedFile};
use crate::gpu::{self, CurrentGpu};

/// What is kept of a registration for further NICs.
#[derive(Debug)]
pub(super) struct Recipe {
    /// But for its descriptors, which were borrowed.
    range: MemoryRange,
    given: Given,
    /// The GPU that was current, for a runtime of which answers depend on that.
    current: Option<i32>,
    /// That of the caller, which may close it.
    dma_buf: Option<Kept<DmaBuf>>,
    /// The same; that of an allocation is asked for when it is needed.
    file: Option<Kept<SharedFile>>,
    /// Of GPU memory.
    exported: SharedExport,
}

/// As what the memory is given to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// By its address, or by the caller's dma-buf.
    Plain,
    /// As what may be GPU memory; true if it is.
    Gpu(bool),
}

/// A descriptor of the caller's, duplicated.
#[derive(Debug)]
struct Kept<T> {
    named: T,
    own: OwnedFd,
}

impl Recipe {
    /// Of a range as the first device has got it. `keeps_file`: its file is the caller's, and devices of the engine use it.
    ///
    /// # Errors
    /// No descriptor is left for what the caller may close.
    pub(super) fn of(range: &MemoryRange, given: Given, keeps_file: bool) -> std::io::Result<Self> {
        let dma_buf = range.dma_buf.map(|named| duplicate(named.fd).map(|own| Kept { named, own }));
        let file = range.file.filter(|_| keeps_file);
        let file = file.map(|named| duplicate(named.fd).map(|own| Kept { named, own }));
        let runtime = matches!(given, Given::Gpu(_)).then(gpu::runtime);
        Ok(Self {
            range: MemoryRange { dma_buf: None, file: None, cpu_address: None, ..*range },
            given,
            current: runtime
                .filter(|runtime| runtime.depends_on_current())
                .and_then(|runtime| runtime.current_gpu().ok()),
            dma_buf: dma_buf.transpose()?,
            file: file.transpose()?,
            exported: SharedExport::new(),
        })
    }

    /// The GPU that has the memory, as far as the runtime says.
    pub(super) fn gpu(&self) -> Option<i32> {
        gpu::runtime().gpu_of(self.range.address).or(self.current)
    }

    /// Registers the memory of `first`, of which this is the recipe, with a further device. May take long.
    pub(super) fn register(&self, first: &Region, device: &dyn Device) -> Result<Arc<Region>, FabricError> {
        let of_allocation = first.allocated_file();
        let file = self.file.as_ref();
        let range = MemoryRange {
            dma_buf: self.dma_buf.as_ref().map(|kept| DmaBuf { fd: kept.own.as_raw_fd(), ..kept.named }),
            file: file.map(|kept| SharedFile { fd: kept.own.as_raw_fd(), ..kept.named }).or(of_allocation),
            ..self.range
        };
        let segments = match self.given {
            Given::Plain => pieces::register(device, &range)?,
            Given::Gpu(on_gpu) => {
                let runtime = gpu::runtime();
                let _entered = CurrentGpu::of_address(&*runtime, range.address, self.current.unwrap_or(-1));
                register_for_nic(device, &range, on_gpu, Some(&self.exported))?
            }
        };
        Ok(Arc::new(Region::on_further_nic(first, &range, segments)))
    }
}

/// A descriptor of its own for what `fd` names.
#[allow(unsafe_code, reason = "borrows a descriptor that the caller keeps open during the call")]
fn duplicate(fd: std::os::fd::RawFd) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not -1, and the caller of the registration keeps it open until that returns; one that is not open is an error of the
    // system call.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}
