//! A device that notes what the engine asks of the one beneath it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};

use flagcx_p2p::internals::events::Waiter;
use flagcx_p2p::internals::fabric::{
    Batch, Completion, CompletionQueue, Connecting, Device, DeviceAttributes, DeviceEvent, FabricError,
    GidEntry, MemoryRange, MemoryRegion, PathOptions, Paths, PortAttributes, Posted, Progress, QpAddress,
    QueueHandle, QueuePair, QueuePairCaps, WorkQueue,
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
    /// What was called that may block, and on which thread.
    pub(crate) blocking: Vec<(&'static str, String)>,
}

type Notes = Arc<Mutex<Record>>;

#[derive(Debug)]
pub(crate) struct Recorder {
    inner: Arc<dyn Device>,
    notes: Notes,
    event: OwnedFd,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn Device>) -> Arc<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Arc::new(Self { inner, notes: Notes::default(), event })
    }

    /// Makes the event descriptor readable.
    #[allow(dead_code, reason = "not all tests that include this raise events")]
    pub(crate) fn raise(&self) {
        rustix::io::write(&self.event, &1_u64.to_ne_bytes()).unwrap();
    }

    pub(crate) fn record(&self) -> Record {
        self.notes.lock().unwrap().clone()
    }
}

impl Record {
    fn called(&mut self, call: &'static str) {
        self.blocking.push((call, std::thread::current().name().unwrap_or_default().to_owned()));
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
        queue: &QueueHandle,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        let mut notes = self.notes.lock().unwrap();
        notes.queue_pairs.push(*caps);
        notes.called("create a queue pair");
        drop(notes);
        let inner = Arc::clone(&self.inner).create_queue_pair(queue, caps)?;
        Ok(Box::new(Pair { inner, notes: Arc::clone(&self.notes) }))
    }
    fn poll_event(&self) -> Option<DeviceEvent> {
        self.notes.lock().unwrap().called("read an event");
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        self.inner.poll_event()
    }
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.as_fd())
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
    fn detach_progress(&mut self) -> Option<Arc<dyn Progress>> {
        self.inner.detach_progress()
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
    /// The inner queue's, which is what the inner device looks for.
    fn handle(&self) -> QueueHandle {
        self.inner.handle()
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
}

impl WorkQueue for Pair {
    fn caps(&self) -> QueuePairCaps {
        self.inner.caps()
    }
    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        let mut notes = self.notes.lock().unwrap();
        notes.lists.push(batch.requests.len());
        notes.entries.extend(batch.requests.iter().map(|request| request.sge_count));
        notes.inline += batch.requests.iter().filter(|request| request.inline).count();
        drop(notes);
        self.inner.post(batch)
    }
    fn post_empty(&mut self, id: u64, remote: (u64, u32)) -> Posted {
        self.inner.post_empty(id, remote)
    }
    fn set_error(&mut self) -> Result<(), FabricError> {
        self.inner.set_error()
    }
    fn is_broken(&self) -> bool {
        self.inner.is_broken()
    }
    fn paths(&self) -> Paths {
        self.inner.paths()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.notes.lock().unwrap().called("destroy a queue pair");
    }
}
