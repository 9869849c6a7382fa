//! A device that notes what the engine asks of the one beneath it.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use flagcx_p2p::events::Waiter;
use flagcx_p2p::fabric::{
    Batch, Completion, CompletionQueue, Connecting, Device, DeviceAttributes, DeviceEvent, FabricError,
    GidEntry, MemoryRange, MemoryRegion, PathKind, PathOptions, PortAttributes, Posted, QpAddress, QueuePair,
    QueuePairCaps,
};

/// What was asked for so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) queue_depths: Vec<u32>,
    pub(crate) queue_pairs: Vec<QueuePairCaps>,
    /// Requests of each post.
    pub(crate) lists: Vec<usize>,
    /// Entries of each request.
    pub(crate) entries: Vec<u8>,
    pub(crate) inline: usize,
    pub(crate) arms: usize,
    /// Completions asked for by the last poll.
    pub(crate) poll_batch: usize,
}

type Notes = Arc<Mutex<Record>>;

#[derive(Debug)]
pub(crate) struct Recorder {
    inner: Arc<dyn Device>,
    notes: Notes,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn Device>) -> Arc<Self> {
        Arc::new(Self { inner, notes: Notes::default() })
    }

    pub(crate) fn record(&self) -> Record {
        self.notes.lock().unwrap().clone()
    }
}

impl Device for Recorder {
    fn attributes(&self) -> &DeviceAttributes {
        self.inner.attributes()
    }
    fn port(&self) -> Result<PortAttributes, FabricError> {
        self.inner.port()
    }
    fn gids(&self) -> Result<Vec<GidEntry>, FabricError> {
        self.inner.gids()
    }
    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        self.inner.register(range)
    }
    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError> {
        self.notes.lock().unwrap().queue_depths.push(depth);
        let inner = Arc::clone(&self.inner).create_completion_queue(depth)?;
        Ok(Box::new(Queue { inner, notes: Arc::clone(&self.notes) }))
    }
    fn create_queue_pair(
        self: Arc<Self>,
        queue: &mut dyn CompletionQueue,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        self.notes.lock().unwrap().queue_pairs.push(*caps);
        let inner = Arc::clone(&self.inner).create_queue_pair(queue, caps)?;
        Ok(Box::new(Pair { inner, notes: Arc::clone(&self.notes) }))
    }
    fn poll_event(&self) -> Option<DeviceEvent> {
        self.inner.poll_event()
    }
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.event_fd()
    }
}

#[derive(Debug)]
struct Queue {
    inner: Box<dyn CompletionQueue>,
    notes: Notes,
}

impl CompletionQueue for Queue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        self.notes.lock().unwrap().poll_batch = out.len();
        self.inner.poll(out)
    }
    fn arm(&mut self) -> Result<bool, FabricError> {
        self.notes.lock().unwrap().arms += 1;
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
    /// The inner queue, which is what the inner device looks for.
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self.inner.as_any_mut()
    }
}

#[derive(Debug)]
struct Pair {
    inner: Box<dyn QueuePair>,
    notes: Notes,
}

impl QueuePair for Pair {
    fn address(&self) -> QpAddress {
        self.inner.address()
    }
    fn caps(&self) -> QueuePairCaps {
        self.inner.caps()
    }
    fn connect_with<'a>(
        &'a mut self,
        peer: &'a QpAddress,
        path: &'a PathOptions,
        waiter: &'a Waiter,
    ) -> Connecting<'a> {
        self.inner.connect_with(peer, path, waiter)
    }
    fn connects_by_commands(&self) -> bool {
        self.inner.connects_by_commands()
    }
    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        let mut notes = self.notes.lock().unwrap();
        notes.lists.push(batch.requests.len());
        notes.entries.extend(batch.requests.iter().map(|request| request.sge_count));
        notes.inline += batch.requests.iter().filter(|request| request.inline).count();
        drop(notes);
        self.inner.post(batch)
    }
    fn set_error(&mut self) -> Result<(), FabricError> {
        self.inner.set_error()
    }
    fn is_broken(&self) -> bool {
        self.inner.is_broken()
    }
    fn path(&self) -> PathKind {
        self.inner.path()
    }
}
