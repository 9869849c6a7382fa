//! A device that moves its bytes in a thread of its own, as any thread that waits moves those of a worker: polling only
//! reports. What the contract promises must hold all the same.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use flagcx_p2p::internals::fabric::{
    Completion, CompletionQueue, Device, DeviceAttributes, DeviceEvent, FabricError, GidEntry, MemoryRange,
    MemoryRegion, PortAttributes, Progress, QueueHandle, QueuePair, QueuePairCaps,
};

/// The device beneath, with other completion queues.
#[derive(Debug)]
pub struct Detached(pub Arc<dyn Device>);

#[derive(Debug)]
struct Queue {
    inner: Box<dyn CompletionQueue>,
    /// Tells the thread to end. Set once, by drop; Relaxed, joining orders the rest.
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Queue {
    fn new(mut inner: Box<dyn CompletionQueue>) -> Self {
        let progress = inner.detach_progress().unwrap();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || advance(&*progress, &stop));
        Self { inner, stopping, thread: Some(thread) }
    }
}

fn advance(progress: &dyn Progress, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        progress.advance();
        std::thread::yield_now();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

impl CompletionQueue for Queue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        self.inner.poll(out)
    }
    fn arm(&mut self) -> Result<bool, FabricError> {
        self.inner.arm()
    }
    fn acknowledge(&mut self) -> Result<(), FabricError> {
        self.inner.acknowledge()
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.inner.fd()
    }
    fn depth(&self) -> u32 {
        self.inner.depth()
    }
    fn handle(&self) -> QueueHandle {
        self.inner.handle()
    }
}

impl Device for Detached {
    fn attributes(&self) -> &DeviceAttributes {
        self.0.attributes()
    }
    fn port(&self) -> Result<PortAttributes, FabricError> {
        self.0.port()
    }
    fn gids(&self) -> Result<Vec<GidEntry>, FabricError> {
        self.0.gids()
    }
    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        self.0.register(range)
    }
    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError> {
        Ok(Box::new(Queue::new(Arc::clone(&self.0).create_completion_queue(depth)?)))
    }
    fn create_queue_pair(
        self: Arc<Self>,
        queue: &QueueHandle,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        Arc::clone(&self.0).create_queue_pair(queue, caps)
    }
    fn poll_event(&self) -> Option<DeviceEvent> {
        self.0.poll_event()
    }
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.event_fd()
    }
}
