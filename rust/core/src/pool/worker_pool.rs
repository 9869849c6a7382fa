//! The pool of a device: its workers and their threads, found by device so that all engines share it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::copy_clock::CopyTimes;
use super::early_ends::EarlyEnds;
use super::shared_worker::Worker;
use super::slow_clock::slow_since;
use super::spare_lists::SpareLists;
use super::worker::{WorkerLimits, WorkerState};
use super::worker_bits::{COPY_WORKER, WORKERS_PER_POOL};
use super::{PoolError, quick_clock, thread};
use crate::fabric::Device;
use crate::fabric::gpu::GpuCompletionQueue;
use crate::fork::PerProcess;
use crate::observe::{self, Histogram, HistogramSnapshot, WorkerCounters};
use crate::topology::{self, CpuSet};

/// Sizes of a pool. All totals are the NIC's and are split evenly over its workers.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Workers, 1 to [`WORKERS_PER_POOL`].
    pub workers: usize,
    /// Submission queues, dealt to the workers, at least one each.
    pub submission_queues: usize,
    /// Transfers that may wait in one submission queue.
    pub queue_depth: usize,
    /// Completion queue entries.
    pub cq_depth: u32,
    /// Requests posted and not retired.
    pub max_posted: u32,
    /// Longest list of one post.
    pub max_list: usize,
    /// Completions per poll.
    pub poll_batch: usize,
    /// How long a worker's thread polls without progress before it sleeps.
    pub spin: Duration,
    /// CPUs to run on, for the threads' affinity; empty leaves them where they are.
    pub cpus: CpuSet,
}

/// Copies that may be outstanding on all copy streams of a pool together.
const COPIES: u32 = 4096;

/// The workers of one device.
#[derive(Debug)]
pub struct WorkerPool {
    device: Arc<dyn Device>,
    workers: Vec<Arc<Worker>>,
    counters: Vec<Arc<WorkerCounters>>,
    /// Sampled latencies of direct copies, which no worker counts.
    direct_latency: Mutex<Histogram>,
    /// Times of slow transfers of which no worker had the last part: direct copies, and what no lane took.
    slow_latency: Mutex<Histogram>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    spare_lists: Arc<SpareLists>,
    early_ends: Arc<EarlyEnds>,
    options: PoolOptions,
    /// Moves what GPUs copy, for all connections; made when the first one needs it.
    copy_worker: OnceCell<Arc<Worker>>,
}

/// Pools by the address of their device, which lives as long as the pool does. Each place has a lock of its own: a slow device
/// that is opened keeps only those waiting that want the same one.
type Pools = Mutex<HashMap<usize, Arc<Mutex<Weak<WorkerPool>>>>>;
static POOLS: PerProcess<Pools> = PerProcess::new(Pools::default);

impl WorkerPool {
    /// The pool of `device`, made with `options` if there is none.
    pub fn of_device(device: &Arc<dyn Device>, options: &PoolOptions) -> Result<Arc<Self>, PoolError> {
        let key = Arc::as_ptr(device).cast::<()>() as usize;
        let place = {
            let mut pools = POOLS.get().lock().unwrap_or_else(PoisonError::into_inner);
            // A place that others hold is that of a pool that is being made.
            pools.retain(|_, place| Arc::strong_count(place) > 1 || has_pool(place));
            Arc::clone(pools.entry(key).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = place.upgrade() {
            return Ok(pool);
        }
        let pool = Arc::new(Self::new(Arc::clone(device), options)?);
        *place = Arc::downgrade(&pool);
        observe::registry().add(&pool);
        Ok(pool)
    }

    /// A pool of its own, not shared with engines.
    pub fn new(device: Arc<dyn Device>, options: &PoolOptions) -> Result<Self, PoolError> {
        // Begins to find out how long a tick of the counter is.
        quick_clock::now_ns();
        // More have no bits: see `worker_bits`.
        let count = options.workers.clamp(1, WORKERS_PER_POOL);
        let share = |total: usize| total.div_ceil(count).max(1);
        let needs_polling = device.attributes().capabilities.needs_polling;
        let mut pool = Self {
            device,
            workers: Vec::new(),
            counters: Vec::new(),
            direct_latency: Mutex::default(),
            slow_latency: Mutex::default(),
            threads: Mutex::default(),
            spare_lists: Arc::default(),
            early_ends: EarlyEnds::of_process(),
            options: options.clone(),
            copy_worker: OnceCell::new(),
        };
        for index in 0..count {
            let depth =
                share(options.cq_depth as usize).min(pool.device.attributes().max_cq_depth as usize) as u32;
            let queue = Arc::clone(&pool.device).create_completion_queue(depth)?;
            let limits = WorkerLimits {
                // The completion queue's own share bounds it, so that it can never overrun, flush included.
                posted: (share(options.max_posted as usize) as u32).min(depth),
                list: options.max_list,
                poll: options.poll_batch,
            };
            let counters = Arc::new(WorkerCounters::default());
            let state = WorkerState::new(queue, limits, Arc::clone(&counters), Arc::clone(&pool.early_ends));
            let worker = Arc::new(Worker::new(
                state,
                share(options.submission_queues),
                options.queue_depth,
                needs_polling,
                Arc::clone(&pool.spare_lists),
            )?);
            pool.workers.push(Arc::clone(&worker));
            pool.counters.push(counters);
            pool.start_thread(index, worker, options)?;
        }
        // Of the worker of copy streams, if there ever is one.
        pool.counters.push(Arc::default());
        Ok(pool)
    }

    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The workers.
    pub fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }

    /// The worker of copy streams, and its bit.
    pub fn copy_worker(&self) -> Result<(usize, &Arc<Worker>), PoolError> {
        let worker = self.copy_worker.get_or_try_init(|| self.make_copy_worker(self.workers.len()))?;
        Ok((COPY_WORKER, worker))
    }

    fn make_copy_worker(&self, index: usize) -> Result<Arc<Worker>, PoolError> {
        let options = &self.options;
        let queue = Box::new(GpuCompletionQueue::new(COPIES)?);
        let limits = WorkerLimits { posted: COPIES, list: options.max_list, poll: options.poll_batch };
        let counters = self.counters.get(index).cloned().unwrap_or_default();
        let state = WorkerState::new(queue, limits, counters, Arc::clone(&self.early_ends));
        let lists = Arc::clone(&self.spare_lists);
        let worker = Arc::new(Worker::new(state, 1, options.queue_depth, false, lists)?);
        self.start_thread(index, Arc::clone(&worker), options)?;
        Ok(worker)
    }

    /// A worker by its bit, where this is the pool of the first NIC: its index, or [`COPY_WORKER`].
    #[inline]
    pub fn worker(&self, bit: usize) -> Option<&Arc<Worker>> {
        match self.workers.get(bit) {
            None if bit == COPY_WORKER => self.copy_worker.get(),
            worker => worker,
        }
    }

    /// All workers, that of copy streams included if there is one.
    pub fn all_workers(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.workers.iter().chain(self.copy_worker.get())
    }

    /// Whether the caller runs on the thread of one of them.
    pub fn has_current_thread(&self) -> bool {
        self.all_workers().any(|worker| worker.is_current_thread())
    }

    /// Request lists for reuse.
    pub fn spare_lists(&self) -> &SpareLists {
        &self.spare_lists
    }

    /// The count of transfers that are to end early, for workers to look for their parts.
    pub fn early_ends(&self) -> &EarlyEnds {
        &self.early_ends
    }

    /// What the workers have counted; that of copy streams comes last.
    pub fn counters(&self) -> &[Arc<WorkerCounters>] {
        &self.counters
    }

    /// A direct copy took so long.
    #[cold]
    pub(super) fn note_copy(&self, times: CopyTimes) {
        if let Some(latency) = times.sampled {
            self.direct_latency.lock().unwrap_or_else(PoisonError::into_inner).record(latency);
        }
        if let Some(took) = times.slow {
            self.slow_latency.lock().unwrap_or_else(PoisonError::into_inner).record(took);
        }
    }

    /// The sampled latencies of direct copies.
    pub fn direct_latency(&self) -> HistogramSnapshot {
        self.direct_latency.lock().unwrap_or_else(PoisonError::into_inner).snapshot()
    }

    /// A transfer has ended of which no worker had the last part, and that began then: counts it if it was slow.
    #[cold]
    pub fn note_unplaced(&self, begun: u64) {
        if let Some(took) = slow_since(begun) {
            self.slow_latency.lock().unwrap_or_else(PoisonError::into_inner).record(took);
        }
    }

    /// Times of the slow transfers of all workers, and of those of which none had the last part.
    pub(super) fn slow_latency(&self) -> HistogramSnapshot {
        let mut slow = self.slow_latency.lock().unwrap_or_else(PoisonError::into_inner).snapshot();
        self.counters.iter().for_each(|worker| slow.merge(&worker.slow_latency().snapshot()));
        slow
    }

    fn start_thread(
        &self,
        index: usize,
        worker: Arc<Worker>,
        options: &PoolOptions,
    ) -> Result<(), PoolError> {
        let name = format!("p2p-{}-{index}", self.device.attributes().name);
        let (spin, cpus) = (options.spin, options.cpus.clone());
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                if let Err(error) = topology::pin_current_thread(&cpus) {
                    tracing::warn!("a worker thread runs without CPU affinity: {error}");
                }
                thread::run(&worker, spin);
            })
            .map_err(|error| PoolError::Thread(error.to_string()))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

fn has_pool(place: &Mutex<Weak<WorkerPool>>) -> bool {
    place.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.all_workers().for_each(|worker| worker.stop());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // A job of a worker's thread may drop the last reference: that thread ends by itself.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != std::thread::current().id())
        {
            let _ = thread.join();
        }
        // Copies that nothing can stop: they keep their memory for as long as the process lives.
        let copies =
            self.copy_worker.take().filter(|worker| worker.with_state(|state| state.part_count() > 0));
        copies.into_iter().for_each(std::mem::forget);
    }
}
