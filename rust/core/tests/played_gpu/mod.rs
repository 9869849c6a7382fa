//! What the conformance suite needs beside work queues: buffers of the host and of the stand-in's GPU, as a device.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use flagcx_p2p::internals::events::Waiter;
use flagcx_p2p::internals::fabric::gpu::{CopyStreams, GpuCompletionQueue, GpuWorkQueue, key};
use flagcx_p2p::internals::fabric::{
    Access, Batch, Capabilities, CompletionQueue, Connecting, Device, DeviceAttributes, DeviceEvent,
    FabricError, GidEntry, MemoryRange, MemoryRegion, PathOptions, Paths, PortAttributes, Posted, Provider,
    QpAddress, QueueHandle, QueuePair, QueuePairCaps, WorkQueue,
};
use flagcx_p2p::internals::gpu::{CudaRuntime, CurrentGpu, GpuRuntime};

use crate::conformance::Peer;
use crate::conformance::peer::RemoteBuffer;
use crate::cuda::{cuda, library};

const NOWHERE: QpAddress = QpAddress { qpn: 1, gid: [0; 16], port: 1, link_layer: 0, lid: 0, mtu: 5 };

#[derive(Debug)]
pub struct PlayedGpu {
    attributes: DeviceAttributes,
    runtime: Arc<CudaRuntime>,
}

impl PlayedGpu {
    pub fn new() -> Self {
        let runtime = CudaRuntime::load(library().to_str().unwrap()).unwrap();
        let attributes = DeviceAttributes {
            provider: Provider::Software,
            name: "gpu0".to_owned(),
            port: 1,
            guid: 1,
            pci_path: None,
            max_queue_depth: 4096,
            max_cq_depth: 4096,
            max_queue_pairs: 64,
            max_sge: 32,
            max_region: u64::MAX,
            max_rd_atomic_initiator: 1,
            max_rd_atomic_responder: 1,
            dma_buf: false,
            capabilities: Capabilities {
                needs_polling: false,
                blocking_commands: false,
                gpu_memory: true,
                shared_files: false,
            },
        };
        Self { attributes, runtime: Arc::new(runtime) }
    }
}

/// Host memory with a key of its own.
#[derive(Debug)]
struct HostKey(u32);

impl MemoryRegion for HostKey {
    fn lkey(&self) -> u32 {
        self.0
    }
    fn rkey(&self) -> u32 {
        self.0
    }
    /// Copies cannot be stopped: what the test has left is waited for.
    fn revoke(&self, _: Instant) -> Result<(), FabricError> {
        in_context(|| cuda().synchronise());
        Ok(())
    }
}

impl Device for PlayedGpu {
    fn attributes(&self) -> &DeviceAttributes {
        &self.attributes
    }
    fn port(&self) -> Result<PortAttributes, FabricError> {
        Err(FabricError::Unsupported("no port".to_owned()))
    }
    fn gids(&self) -> Result<Vec<GidEntry>, FabricError> {
        Ok(Vec::new())
    }
    fn register(&self, _: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Ok(Arc::new(HostKey(key(false, NEXT.fetch_add(1, Ordering::Relaxed)))))
    }
    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError> {
        Ok(Box::new(GpuCompletionQueue::new(depth)?))
    }
    fn create_queue_pair(
        self: Arc<Self>,
        queue: &QueueHandle,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        let queue = queue.downcast::<CopyStreams>().unwrap();
        let runtime = Arc::clone(&self.runtime);
        let open = move || {
            let _entered = CurrentGpu::ensure(&*runtime, 0);
            runtime.open_stream()
        };
        let inner = GpuWorkQueue::new(&queue, caps.send_depth, caps.max_sge, Box::new(open)).unwrap();
        Ok(Box::new(Pair(inner)))
    }
    fn poll_event(&self) -> Option<DeviceEvent> {
        None
    }
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A work queue that lets itself be connected.
#[derive(Debug)]
struct Pair(GpuWorkQueue);

impl QueuePair for Pair {
    fn address(&self) -> QpAddress {
        NOWHERE
    }
    fn connect_with<'a>(&'a mut self, _: &'a QpAddress, _: &'a PathOptions, _: &'a Waiter) -> Connecting<'a> {
        Box::pin(async { Ok(()) })
    }
}

impl WorkQueue for Pair {
    fn caps(&self) -> QueuePairCaps {
        self.0.caps()
    }
    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        self.0.post(batch)
    }
    fn set_error(&mut self) -> Result<(), FabricError> {
        self.0.set_error()
    }
    fn is_broken(&self) -> bool {
        self.0.is_broken()
    }
    fn paths(&self) -> Paths {
        self.0.paths()
    }
    fn can_stop(&self) -> bool {
        self.0.can_stop()
    }
    fn renew(&mut self) -> Result<(), FabricError> {
        self.0.renew()
    }
    fn error_text(&self) -> String {
        self.0.error_text()
    }
}

/// Buffers in the GPU's memory.
#[derive(Debug, Default)]
pub struct GpuPeer(Vec<(u64, usize)>);

fn in_context<T>(act: impl FnOnce() -> T) -> T {
    let before = cuda().context();
    cuda().set_context(cuda().primary(0));
    let made = act();
    cuda().set_context(before);
    made
}

impl Peer for GpuPeer {
    fn buffer(&mut self, length: usize, fill: u8, _: Access) -> RemoteBuffer {
        let address = in_context(|| cuda().allocate(length));
        self.0.push((address, length));
        let index = self.0.len() - 1;
        self.set_bytes(index, &vec![fill; length]);
        RemoteBuffer { index, address, length: length as u64, rkey: key(true, index as u32) }
    }
    fn unannounced(&mut self, length: usize, fill: u8) -> RemoteBuffer {
        self.buffer(length, fill, Access::FULL)
    }
    fn bytes(&mut self, index: usize) -> Vec<u8> {
        let (address, length) = self.0[index];
        let mut bytes = vec![0; length];
        // SAFETY: both ranges are valid and as long.
        in_context(|| unsafe { cuda().copy(bytes.as_mut_ptr() as u64, address, length) });
        bytes
    }
    fn set_bytes(&mut self, index: usize, bytes: &[u8]) {
        let (address, length) = self.0[index];
        assert!(bytes.len() <= length);
        // SAFETY: both ranges are valid, as just checked.
        in_context(|| unsafe { cuda().copy(address, bytes.as_ptr() as u64, bytes.len()) });
    }
    fn revoke(&mut self, _: usize) {}
    fn queue_pair(&mut self) -> (usize, QpAddress) {
        (0, NOWHERE)
    }
    fn connect(&mut self, _: usize, _: &QpAddress) {}
    fn set_error(&mut self, _: usize) {}
    fn is_broken(&mut self, _: usize) -> bool {
        false
    }
    fn fatal_events(&mut self) -> Vec<u32> {
        Vec::new()
    }
}

impl Drop for GpuPeer {
    fn drop(&mut self) {
        for (address, _) in self.0.drain(..) {
            in_context(|| cuda().free(address));
        }
    }
}
