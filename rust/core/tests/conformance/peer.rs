//! The side that is read and written.

use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::internals::fabric::{
    Access, Backing, Completion, CompletionQueue, Device, DeviceEvent, MemoryRange, MemoryRegion,
    PathOptions, QpAddress, QueuePair,
};

use super::initiator::{PATIENCE, Window, caps};
use super::memory::Kind;

/// A registered buffer of a peer, by the names that an initiator uses.
#[derive(Clone, Copy, Debug)]
pub struct RemoteBuffer {
    pub index: usize,
    pub address: u64,
    pub length: u64,
    pub rkey: u32,
}

/// What a test asks of the other side.
pub trait Peer {
    /// Registers `length` bytes, all `fill`.
    fn buffer(&mut self, length: usize, fill: u8, access: Access) -> RemoteBuffer;
    /// The same with all rights, but it is not announced.
    fn unannounced(&mut self, length: usize, fill: u8) -> RemoteBuffer;
    /// The bytes of a buffer now.
    fn bytes(&mut self, index: usize) -> Vec<u8>;
    /// Overwrites a buffer.
    fn set_bytes(&mut self, index: usize, bytes: &[u8]);
    /// Revokes a buffer's registration.
    fn revoke(&mut self, index: usize);
    /// Makes a queue pair.
    fn queue_pair(&mut self) -> (usize, QpAddress);
    /// Connects it.
    fn connect(&mut self, queue_pair: usize, to: &QpAddress);
    /// Moves it to ERROR.
    fn set_error(&mut self, queue_pair: usize);
    /// Whether it is in ERROR.
    fn is_broken(&mut self, queue_pair: usize) -> bool;
    /// Something of the test's own, for peers that know it.
    fn command(&mut self, command: &str) -> Vec<String> {
        panic!("this peer does not know `{command}`")
    }
    /// Queue pair numbers of the fatal events since the last call.
    fn fatal_events(&mut self) -> Vec<u32>;
}

/// A peer in this process.
pub struct LocalPeer {
    device: Arc<dyn Device>,
    queue_pairs: Vec<Box<dyn QueuePair>>,
    completions: Box<dyn CompletionQueue>,
    buffers: Vec<Window>,
    kind: Kind,
    /// Queue pair numbers of fatal events that the test has not asked for yet.
    fatal: Vec<u32>,
}

impl LocalPeer {
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self::with_memory(device, Kind::Heap(Backing::Anonymous))
    }

    /// Its buffers are registered as memory of this kind.
    pub fn with_backing(device: Arc<dyn Device>, backing: Backing) -> Self {
        Self::with_memory(device, Kind::Heap(backing))
    }

    /// Its buffers are made of such memory.
    pub fn with_memory(device: Arc<dyn Device>, kind: Kind) -> Self {
        let completions = Arc::clone(&device).create_completion_queue(1024).unwrap();
        Self { device, queue_pairs: Vec::new(), completions, buffers: Vec::new(), kind, fatal: Vec::new() }
    }

    /// A buffer of its own.
    pub fn window(&mut self, index: usize) -> &mut Window {
        &mut self.buffers[index]
    }

    fn keep(&mut self, window: Window) -> RemoteBuffer {
        let (address, length) = (window.address(), window.bytes().len() as u64);
        let rkey = window.region.rkey();
        self.buffers.push(window);
        RemoteBuffer { index: self.buffers.len() - 1, address, length, rkey }
    }

    /// A responder may learn of its queue pair's end by the device's events only.
    fn take_events(&mut self) {
        let events = std::iter::from_fn(|| self.device.poll_event());
        self.fatal.extend(events.filter_map(|event| match event {
            DeviceEvent::QueuePairFatal(qpn) => Some(qpn),
            _ => None,
        }));
    }
}

impl Peer for LocalPeer {
    fn buffer(&mut self, length: usize, fill: u8, access: Access) -> RemoteBuffer {
        self.keep(Window::of_kind(&self.device, length, fill, access, self.kind))
    }

    fn unannounced(&mut self, length: usize, fill: u8) -> RemoteBuffer {
        self.keep(Window::unannounced(&self.device, length, fill, self.kind))
    }

    fn bytes(&mut self, index: usize) -> Vec<u8> {
        self.buffers[index].bytes().to_vec()
    }

    fn set_bytes(&mut self, index: usize, bytes: &[u8]) {
        self.buffers[index].set(bytes);
    }

    fn revoke(&mut self, index: usize) {
        self.buffers[index].region.revoke(Instant::now() + PATIENCE).unwrap();
    }

    fn queue_pair(&mut self) -> (usize, QpAddress) {
        let queue_pair =
            Arc::clone(&self.device).create_queue_pair(&self.completions.handle(), &caps()).unwrap();
        let address = queue_pair.address();
        self.queue_pairs.push(queue_pair);
        (self.queue_pairs.len() - 1, address)
    }

    fn connect(&mut self, queue_pair: usize, to: &QpAddress) {
        self.queue_pairs[queue_pair].connect(to, &path()).unwrap();
    }

    fn set_error(&mut self, queue_pair: usize) {
        self.queue_pairs[queue_pair].set_error().unwrap();
        let mut out = [Completion::default(); 8];
        while self.completions.poll(&mut out).unwrap() > 0 {}
    }

    fn is_broken(&mut self, queue_pair: usize) -> bool {
        self.take_events();
        self.queue_pairs[queue_pair].is_broken()
    }

    fn fatal_events(&mut self) -> Vec<u32> {
        self.take_events();
        std::mem::take(&mut self.fatal)
    }
}

/// How all tests connect.
pub fn path() -> PathOptions {
    PathOptions { rd_atomic_initiator: 16, rd_atomic_responder: 16, deadline: Instant::now() + PATIENCE }
}
