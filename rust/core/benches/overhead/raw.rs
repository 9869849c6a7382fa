//! The yardstick: the same device without an engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{
    Access, Backing, Batch, Completion, CompletionQueue, Device, MemoryRange, MemoryRegion, Opcode,
    PathOptions, QueuePair, QueuePairCaps, Sge, WorkRequest,
};

use super::{PIECE, POOL, Pair};

/// Requests of one list.
const LIST: usize = 64;
/// Requests that one queue pair may have outstanding.
const DEPTH: usize = 512;

/// Connected queue pairs over the memory of a [`Pair`].
pub(super) struct RawLoop {
    // Queue pairs go before the completion queue does.
    pairs: Vec<RawPair>,
    queue: Box<dyn CompletionQueue>,
    completions: [Completion; LIST],
    requests: Vec<WorkRequest>,
    entries: Vec<Sge>,
    /// Where the next request begins.
    offset: u64,
    source: u64,
    target: u64,
    _regions: [Arc<dyn MemoryRegion>; 2],
}

struct RawPair {
    ours: Box<dyn QueuePair>,
    _theirs: Box<dyn QueuePair>,
    outstanding: usize,
}

impl RawLoop {
    /// One of `pairs` queue pairs.
    pub(super) fn new(device: &Arc<dyn Device>, pair: &Pair, pairs: usize) -> Self {
        let queue = device.clone().create_completion_queue(4096).unwrap();
        let caps = QueuePairCaps { send_depth: DEPTH as u32, max_sge: 1, max_inline: 0 };
        let path = PathOptions {
            rd_atomic_initiator: 1,
            rd_atomic_responder: 1,
            deadline: Instant::now() + Duration::from_secs(5),
        };
        let pairs = (0..pairs)
            .map(|_| {
                let mut ours = device.clone().create_queue_pair(&queue.handle(), &caps).unwrap();
                let mut theirs = device.clone().create_queue_pair(&queue.handle(), &caps).unwrap();
                ours.connect(&theirs.address(), &path).unwrap();
                theirs.connect(&ours.address(), &path).unwrap();
                RawPair { ours, _theirs: theirs, outstanding: 0 }
            })
            .collect();
        let (source, target) = (pair.source.address(), pair.target.address());
        let regions = [source, target].map(|address| {
            let range = MemoryRange {
                address,
                length: POOL as u64,
                access: Access::FULL,
                dma_buf: None,
                file: None,
                cpu_address: None,
                backing: Backing::Unknown,
                announced: true,
            };
            device.register(&range).unwrap()
        });
        let (lkey, rkey) = (regions[0].lkey(), regions[1].rkey());
        let request = |index| WorkRequest {
            remote_address: target,
            rkey,
            first_sge: index as u32,
            origin: 0,
            sge_count: 1,
            inline: false,
        };
        Self {
            pairs,
            queue,
            completions: [Completion::default(); LIST],
            requests: (0..LIST).map(request).collect(),
            entries: vec![Sge { address: source, length: PIECE as u32, lkey }; LIST],
            offset: 0,
            source,
            target,
            _regions: regions,
        }
    }

    /// Posts `count` requests on queue pair `index`, all signaled.
    pub(super) fn post(&mut self, index: usize, count: usize) {
        for (request, entry) in self.requests.iter_mut().zip(&mut self.entries).take(count) {
            entry.address = self.source + self.offset;
            request.remote_address = self.target + self.offset;
            self.offset += PIECE;
            if self.offset + PIECE > POOL as u64 {
                self.offset = 0;
            }
        }
        let batch = Batch {
            opcode: Opcode::Write,
            first_id: (index as u64) << 32,
            signal_every: 1,
            requests: &self.requests[..count],
            entries: &self.entries,
            one_each: true,
        };
        let pair = &mut self.pairs[index];
        assert_eq!(pair.ours.post(&batch).accepted, count);
        pair.outstanding += count;
    }

    /// Takes what has completed, and says how many.
    pub(super) fn poll(&mut self) -> usize {
        let count = self.queue.poll(&mut self.completions).unwrap();
        for completion in &self.completions[..count] {
            self.pairs[(completion.id >> 32) as usize].outstanding -= 1;
        }
        count
    }
}

/// The ceiling, in requests per microsecond: lists over 4 queue pairs, posted and polled by one thread.
pub(super) fn rate(device: &Arc<dyn Device>, pair: &Pair) -> f64 {
    let mut raw = RawLoop::new(device, pair, 4);
    let mut done = 0;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(150) {
        for index in 0..raw.pairs.len() {
            if raw.pairs[index].outstanding + LIST <= DEPTH {
                raw.post(index, LIST);
            }
        }
        loop {
            let count = raw.poll();
            if count == 0 {
                break;
            }
            done += count;
        }
    }
    done as f64 / start.elapsed().as_secs_f64() / 1e6
}
