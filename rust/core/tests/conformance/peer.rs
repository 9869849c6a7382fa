//! The side that is read and written.

use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::fabric::{
    Access, Completion, CompletionQueue, Device, DeviceEvent, MemoryRange, MemoryRegion, PathOptions,
    QpAddress, QueuePair,
};

use super::initiator::{PATIENCE, caps};

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
    /// Queue pair numbers of the fatal events since the last call.
    fn fatal_events(&mut self) -> Vec<u32>;
}

/// A peer in this process.
pub struct LocalPeer {
    device: Arc<dyn Device>,
    queue_pairs: Vec<Box<dyn QueuePair>>,
    completions: Box<dyn CompletionQueue>,
    buffers: Vec<(Arc<dyn MemoryRegion>, Box<[u8]>)>,
}

impl LocalPeer {
    pub fn new(device: Arc<dyn Device>) -> Self {
        let completions = Arc::clone(&device).create_completion_queue(1024).unwrap();
        Self { device, queue_pairs: Vec::new(), completions, buffers: Vec::new() }
    }
}

impl Drop for LocalPeer {
    fn drop(&mut self) {
        // Memory goes after its registration.
        self.queue_pairs.clear();
        for (region, _) in &self.buffers {
            region.revoke(Instant::now() + PATIENCE).unwrap();
        }
    }
}

impl Peer for LocalPeer {
    fn buffer(&mut self, length: usize, fill: u8, access: Access) -> RemoteBuffer {
        let bytes = vec![fill; length].into_boxed_slice();
        let address = bytes.as_ptr() as u64;
        let range = MemoryRange { address, length: length as u64, access, dma_buf: None };
        let region = self.device.register(&range).unwrap();
        let rkey = region.rkey();
        self.buffers.push((region, bytes));
        RemoteBuffer { index: self.buffers.len() - 1, address, length: length as u64, rkey }
    }

    fn bytes(&mut self, index: usize) -> Vec<u8> {
        // Others write there behind the compiler's back.
        std::hint::black_box(&self.buffers[index].1).to_vec()
    }

    fn set_bytes(&mut self, index: usize, bytes: &[u8]) {
        self.buffers[index].1.copy_from_slice(bytes);
        std::hint::black_box(&self.buffers[index].1);
    }

    fn revoke(&mut self, index: usize) {
        self.buffers[index].0.revoke(Instant::now() + PATIENCE).unwrap();
    }

    fn queue_pair(&mut self) -> (usize, QpAddress) {
        let queue_pair = Arc::clone(&self.device).create_queue_pair(&mut *self.completions, &caps()).unwrap();
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
        self.queue_pairs[queue_pair].is_broken()
    }

    fn fatal_events(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.device.poll_event())
            .filter_map(|event| match event {
                DeviceEvent::QueuePairFatal(qpn) => Some(qpn),
                _ => None,
            })
            .collect()
    }
}

/// How all tests connect.
pub fn path() -> PathOptions {
    PathOptions { rd_atomic_initiator: 16, rd_atomic_responder: 16, deadline: Instant::now() + PATIENCE }
}
