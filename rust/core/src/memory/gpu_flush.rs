//! GPU flushes: a WRITE into memory of some GPUs is done only once a byte behind it has been read on the same queue
//! pair, because the read waits for the bytes that the NIC has on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Instant;

use super::region::{Hold, Region};
use crate::fabric::{Access, Backing, Device, FabricError, MemoryRange, MemoryRegion, Sge};
use crate::gpu;

/// Which flushes were asked for. The default leaves it to the GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuFlush {
    /// Whether peers flush what they write to GPU memory of this process; `None`: as the GPU needs it.
    pub writes: Option<bool>,
    /// READs into GPU memory of this process are to be flushed, which this engine does not do: said once.
    pub reads: bool,
}

impl GpuFlush {
    /// Whether peers are to flush what they write to the GPU memory at `address`.
    pub(super) fn of_memory(self, address: u64) -> bool {
        /// Set by the first registration that says it. Relaxed: it stands alone.
        static SAID: AtomicBool = AtomicBool::new(false);
        if self.reads && !SAID.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "FLAGCX_GDR_READ_REQUIRES_FLUSH=1 has no effect: what a READ brings into GPU memory is not flushed; let the \
                 other side WRITE it"
            );
        }
        self.writes.unwrap_or_else(|| gpu::runtime().writes_need_flush(address))
    }

    /// Whether memory that comes to be registered with `device` may need it.
    pub(super) fn may_come(self, device: &dyn Device) -> bool {
        device.attributes().capabilities.gpu_memory
            && self.writes.unwrap_or_else(|| gpu::runtime().some_gpu_needs_flush())
    }
}

/// A byte of this process that a device may write to, which no peer is told of and nothing reads.
#[derive(Debug)]
pub(crate) struct GpuFlushLanding(Arc<Region>);

impl GpuFlushLanding {
    /// Registers a byte with `device`.
    pub(super) fn register(device: &dyn Device) -> Result<Self, FabricError> {
        // Room alone, which is no value that would be built on the stack first. A page of its own, so that nothing else of the
        // process is pinned. Atomic: the device writes to it.
        let room = Vec::<AtomicU8>::with_capacity(2 * PAGE);
        let page = room.as_ptr().expose_provenance().next_multiple_of(PAGE);
        let range = MemoryRange {
            address: page as u64,
            length: 1,
            access: Access { local_write: true, ..NO_ACCESS },
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Anonymous,
            announced: false,
        };
        let memory = Arc::new(Registered { memory: device.register(&range)?, _room: room });
        Ok(Self(Region::imported(range.address, range.length, memory)))
    }

    /// The byte as the entry of a READ, and what keeps it registered.
    pub(crate) fn entry(&self) -> Option<(Sge, Hold)> {
        Some((Sge { address: self.0.address, length: 1, lkey: self.0.lkey() }, self.0.hold()?))
    }
}

/// The registration, which ends before the room does: fields are dropped in their order.
#[derive(Debug)]
struct Registered {
    memory: Arc<dyn MemoryRegion>,
    /// Holds no value: only the device uses it.
    _room: Vec<AtomicU8>,
}

impl MemoryRegion for Registered {
    fn lkey(&self) -> u32 {
        self.memory.lkey()
    }

    fn rkey(&self) -> u32 {
        self.memory.rkey()
    }

    fn revoke(&self, deadline: Instant) -> Result<(), FabricError> {
        self.memory.revoke(deadline)
    }
}

/// The largest page of a kernel: 64 KiB on ARM64.
const PAGE: usize = 65_536;
const NO_ACCESS: Access = Access {
    local_write: false,
    remote_write: false,
    remote_read: false,
    remote_atomic: false,
    relaxed_ordering: false,
};

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;
    use crate::memory::limited_device::LimitedDevice;

    /// The caller is a thread of the program, which may have asked for a small stack.
    #[test]
    fn a_landing_needs_little_of_the_stack() {
        let device = LimitedDevice::new(u64::MAX);
        let register = move || GpuFlushLanding::register(&device).map(|landing| landing.0.address);
        let thread = std::thread::Builder::new().stack_size(PAGE).spawn(register).unwrap();
        let address = thread.join().unwrap().unwrap();
        assert!(address != 0 && address.is_multiple_of(PAGE as u64), "{address:#x}");
    }
}
