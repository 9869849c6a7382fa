//! The side that reads and writes.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{
    Access, Backing, Batch, Completion, CompletionQueue, Device, MemoryRange, MemoryRegion, Opcode, Posted,
    QueuePair, QueuePairCaps, Sge, WorkRequest,
};

use super::Rig;
use super::memory::{Kind, Memory};
use super::peer::path;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The queue pairs that tests make unless they say otherwise.
pub fn caps() -> QueuePairCaps {
    QueuePairCaps { send_depth: 64, max_sge: 4, max_inline: 64 }
}

/// A registered local buffer.
pub struct Window {
    pub region: Arc<dyn MemoryRegion>,
    pub memory: Memory,
}

impl Window {
    pub fn new(device: &Arc<dyn Device>, length: usize, fill: u8) -> Self {
        Self::with_access(device, length, fill, Access::FULL)
    }

    pub fn with_access(device: &Arc<dyn Device>, length: usize, fill: u8, access: Access) -> Self {
        Self::with_backing(device, length, fill, access, Backing::Anonymous)
    }

    /// Registered as memory of this kind.
    pub fn with_backing(
        device: &Arc<dyn Device>,
        length: usize,
        fill: u8,
        access: Access,
        backing: Backing,
    ) -> Self {
        Self::of_kind(device, length, fill, access, Kind::Heap(backing))
    }

    pub fn of_kind(device: &Arc<dyn Device>, length: usize, fill: u8, access: Access, kind: Kind) -> Self {
        Self::registered(device, length, fill, (access, kind), true)
    }

    /// Peers are not told of it.
    pub fn unannounced(device: &Arc<dyn Device>, length: usize, fill: u8, kind: Kind) -> Self {
        Self::registered(device, length, fill, (Access::FULL, kind), false)
    }

    fn registered(
        device: &Arc<dyn Device>,
        length: usize,
        fill: u8,
        (access, kind): (Access, Kind),
        announced: bool,
    ) -> Self {
        let memory = Memory::new(kind, length, fill);
        let address = memory.bytes().as_ptr() as u64;
        let length = length as u64;
        let range = MemoryRange {
            address,
            length,
            access,
            dma_buf: None,
            file: memory.file(),
            cpu_address: None,
            backing: memory.backing(),
            announced,
        };
        Self { region: device.register(&range).unwrap(), memory }
    }

    /// Filled with bytes that differ from their neighbours and from any constant.
    pub fn patterned(device: &Arc<dyn Device>, length: usize) -> Self {
        let mut window = Self::new(device, length, 0);
        window.set(&pattern(length));
        window
    }

    pub fn address(&self) -> u64 {
        self.memory.bytes().as_ptr() as u64
    }

    pub fn sge(&self, offset: usize, length: usize) -> Sge {
        Sge { address: self.address() + offset as u64, length: length as u32, lkey: self.region.lkey() }
    }

    pub fn bytes(&self) -> &[u8] {
        std::hint::black_box(self.memory.bytes())
    }

    pub fn set(&mut self, bytes: &[u8]) {
        self.memory.bytes_mut().copy_from_slice(bytes);
        std::hint::black_box(self.memory.bytes());
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.region.revoke(Instant::now() + PATIENCE).unwrap();
    }
}

pub fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

/// A connected queue pair with its completion queue, and the index of its counterpart.
pub struct Initiator {
    pub completions: Box<dyn CompletionQueue>,
    pub queue_pair: Box<dyn QueuePair>,
    pub counterpart: usize,
}

impl Initiator {
    pub fn new(rig: &mut Rig) -> Self {
        Self::with(rig, &caps(), 256)
    }

    pub fn with(rig: &mut Rig, caps: &QueuePairCaps, depth: u32) -> Self {
        let completions = Arc::clone(&rig.device).create_completion_queue(depth).unwrap();
        assert!(completions.depth() >= depth);
        let mut queue_pair = Arc::clone(&rig.device).create_queue_pair(&completions.handle(), caps).unwrap();
        assert!(queue_pair.caps().send_depth >= caps.send_depth && queue_pair.caps().max_sge >= caps.max_sge);
        let (counterpart, address) = rig.peer.queue_pair();
        queue_pair.connect(&address, &path()).unwrap();
        rig.peer.connect(counterpart, &queue_pair.address());
        assert_eq!(queue_pair.path(), rig.path);
        Self { completions, queue_pair, counterpart }
    }

    pub fn post(&mut self, batch: &Batch<'_>) -> Posted {
        self.queue_pair.post(batch)
    }

    /// Posts a batch and takes it for granted that all of it is accepted.
    pub fn post_all(&mut self, batch: &Batch<'_>) {
        let posted = self.post(batch);
        assert_eq!(posted, Posted::all(batch));
    }

    /// The next `count` completions, sleeping on the descriptor whenever the queue says that it may.
    pub fn wait(&mut self, count: usize) -> Vec<Completion> {
        let deadline = Instant::now() + PATIENCE;
        let mut found = Vec::new();
        while found.len() < count {
            let mut out = vec![Completion::default(); count - found.len()];
            let new = self.completions.poll(&mut out).unwrap();
            found.extend_from_slice(&out[..new]);
            assert!(Instant::now() < deadline, "only {found:?} of {count} completions");
            if new == 0 && self.completions.arm().unwrap() {
                wait_readable(self.completions.fd().as_raw_fd(), deadline);
                self.completions.acknowledge().unwrap();
            }
        }
        found
    }

    /// Polls for a while and takes it for granted that nothing comes.
    pub fn expect_none(&mut self) {
        let until = Instant::now() + Duration::from_millis(10);
        while Instant::now() < until {
            let mut out = [Completion::default(); 4];
            assert_eq!(self.completions.poll(&mut out).unwrap(), 0, "{out:?}");
        }
    }
}

fn wait_readable(fd: i32, deadline: Instant) {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
    // SAFETY: one pollfd, alive for the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, left) };
    assert!(ready > 0, "no wake-up although the completion queue said that it would give one");
}

/// A request over the one entry `entries[first]`.
pub fn request(remote_address: u64, rkey: u32, first: u32) -> WorkRequest {
    WorkRequest { remote_address, rkey, first_sge: first, origin: 0, sge_count: 1, inline: false }
}

/// WRITEs, each signaled, with ids from `first_id` on.
pub fn writes<'a>(first_id: u64, requests: &'a [WorkRequest], entries: &'a [Sge]) -> Batch<'a> {
    Batch { opcode: Opcode::Write, first_id, signal_every: 1, requests, entries, one_each: false }
}

/// The same of READs.
pub fn reads<'a>(first_id: u64, requests: &'a [WorkRequest], entries: &'a [Sge]) -> Batch<'a> {
    Batch { opcode: Opcode::Read, ..writes(first_id, requests, entries) }
}
