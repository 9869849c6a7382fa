//! A worker as others see it: its lock, while copies go on and while callers go to sleep.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fabric::{
    Access, Backing, CompletionQueue, Device, MemoryRange, MemoryRegion, Opcode, PathOptions, QueueHandle,
    QueuePair, QueuePairCaps, SoftwareOptions, software,
};
use crate::pool::{
    Backlog, LaneKey, LaneSetup, LaneStatus, PartOwner, PoolOptions, RequestList, Submission, Worker,
    WorkerPool,
};
use crate::topology::CpuSet;
use crate::transfer::{CheckedIov, Cutter, SlicePolicy, TimeLimit, TransferRecord};

fn options() -> PoolOptions {
    PoolOptions {
        workers: 1,
        submission_queues: 1,
        queue_depth: 1,
        cq_depth: 16,
        max_posted: 16,
        max_list: 16,
        poll_batch: 16,
        spin: Duration::ZERO,
        cpus: CpuSet::default(),
    }
}

/// A connected queue pair of `pool` as a lane of its worker, and the other end, which only answers.
fn lane(pool: &WorkerPool, far: &dyn CompletionQueue, worker: usize) -> (LaneKey, Box<dyn QueuePair>) {
    let setup = LaneSetup { status: Arc::new(LaneStatus::new(None)), heals: false };
    lane_with(pool, far, worker, setup)
}

fn lane_with(
    pool: &WorkerPool,
    far: &dyn CompletionQueue,
    worker: usize,
    setup: LaneSetup,
) -> (LaneKey, Box<dyn QueuePair>) {
    let caps = QueuePairCaps { send_depth: 4, max_sge: 1, max_inline: 0 };
    let create = |queue: &QueueHandle| Arc::clone(pool.device()).create_queue_pair(queue, &caps).unwrap();
    let worker = &pool.workers()[worker];
    let (mut near, mut far) = (create(worker.queue_handle()), create(&far.handle()));
    let deadline = Instant::now() + Duration::from_secs(10);
    let path = PathOptions { rd_atomic_initiator: 1, rd_atomic_responder: 1, deadline };
    near.connect(&far.address(), &path).unwrap();
    far.connect(&near.address(), &path).unwrap();
    (worker.with_state(|state| state.add_lane(near, setup)).unwrap(), far)
}

/// Memory that is registered, and what writes its first half over its second one, part by part.
struct Halves {
    memory: Box<[u8; 128]>,
    lkey: u32,
    _region: Arc<dyn MemoryRegion>,
}

impl Halves {
    fn new(device: &Arc<dyn Device>) -> Self {
        let memory = Box::new([1_u8; 128]);
        let range = MemoryRange {
            address: memory.as_ptr() as u64,
            length: 128,
            access: Access::FULL,
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Unknown,
            announced: true,
        };
        let region = device.register(&range).unwrap();
        Self { lkey: region.lkey(), memory, _region: region }
    }

    fn fill(&self, list: &mut RequestList) {
        let (local, lkey) = (self.memory.as_ptr() as u64, self.lkey);
        let chunk =
            CheckedIov { local, remote: local + 64, length: 64, lkey, rkey: lkey, readable: true, iov: 0 };
        Cutter::new(list, SlicePolicy::new(1 << 20, 0, 1 << 30, 1, 0), Opcode::Write, 1)
            .push(&chunk)
            .unwrap();
    }

    /// A transfer of one part, submitted.
    fn submit(&self, worker: &Worker, lane: LaneKey) -> (&'static TransferRecord, Backlog) {
        let task = TransferRecord::lasting();
        task.start(1, TimeLimit::NEVER);
        let mut list = RequestList::default();
        self.fill(&mut list);
        let part = Submission { lane, owner: task, list, first: true, begun: 0 };
        (task, worker.submit(part, 0).unwrap())
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The thread may wake by itself: it looks four times a second. Not each time within 10 ms.
#[test]
fn a_submission_wakes_no_thread_before_it_is_to() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let pool = WorkerPool::new(Arc::clone(&device), &options()).unwrap();
    let worker = &pool.workers()[0];
    let far = Arc::clone(&device).create_completion_queue(16).unwrap();
    let (lane, _other) = lane(&pool, &*far, 0);
    let halves = Halves::new(&device);
    let slept = (0..10).filter(|_| {
        let (task, backlog) = halves.submit(worker, lane);
        std::thread::sleep(Duration::from_millis(10));
        let slept = !task.is_ended();
        worker.wake_for(backlog);
        wait_until("it was not woken", || task.is_ended());
        // It naps as long as callers come, and is not woken by them then.
        std::thread::sleep(Duration::from_millis(20));
        slept
    });
    assert!(slept.count() > 0, "each submission has woken it");
}

#[test]
fn what_is_shared_wakes_the_threads_of_all_its_workers() {
    const WORKERS: usize = 4;
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let options = PoolOptions { workers: WORKERS, cq_depth: 64, max_posted: 64, ..options() };
    let pool = WorkerPool::new(Arc::clone(&device), &options).unwrap();
    let far = Arc::clone(&device).create_completion_queue(16).unwrap();
    let lanes: Vec<_> = (0..WORKERS).map(|number| lane(&pool, &*far, number)).collect();
    let halves = Halves::new(&device);
    for _ in 0..20 {
        let (tasks, workers): (Vec<_>, Vec<_>) = pool
            .workers()
            .iter()
            .zip(&lanes)
            .map(|(worker, (key, _))| {
                let (task, backlog) = halves.submit(worker, *key);
                (task, (Arc::clone(worker), backlog))
            })
            .unzip();
        Worker::share(workers.into_iter());
        wait_until("some part was not moved", || tasks.iter().all(|task| task.is_ended()));
        wait_until("some thread does not share", || pool.workers().iter().all(|worker| worker.shares()));
    }
}

/// Each copy of this device takes [`COPY`]. Those of two lanes go on at the same time, and neither keeps control work
/// waiting.
#[test]
fn a_copy_of_one_lane_delays_neither_control_work_nor_another_lane() {
    const COPY: Duration = Duration::from_millis(800);
    let faults = format!("hold=us:{}", COPY.as_micros());
    let device = software::open(&SoftwareOptions { faults, ..SoftwareOptions::default() }).unwrap().remove(0);
    let pool = WorkerPool::new(Arc::clone(&device), &options()).unwrap();
    let worker = &pool.workers()[0];
    let far = Arc::clone(&device).create_completion_queue(16).unwrap();
    let lanes = [lane(&pool, &*far, 0), lane(&pool, &*far, 0)];
    let halves = Halves::new(&device);
    let begun = Instant::now();
    let records = lanes.each_ref().map(|(key, _)| {
        let record = TransferRecord::lasting();
        record.start(1, TimeLimit::NEVER);
        let mut part = worker.try_begin(*key).unwrap();
        let (list, _) = part.acquire().unwrap();
        halves.fill(list);
        part.start(record, true);
        record
    });
    std::thread::scope(|scope| {
        for record in records {
            scope.spawn(move || {
                while !record.is_ended() {
                    let _ = worker.drive_as_caller();
                }
            });
        }
        let mut longest = Duration::ZERO;
        while records.iter().any(|record| !record.is_ended()) {
            let asked = Instant::now();
            worker.with_state(|_| {});
            longest = longest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= COPY, "no copy was delayed");
        assert!(longest < COPY / 4, "control work waited for {longest:?}");
        assert!(begun.elapsed() < COPY * 7 / 4, "one lane waited for the other: {:?}", begun.elapsed());
    });
}

/// A thread that goes to sleep while another one has the lock for long is back in time.
#[test]
fn going_to_sleep_takes_no_longer_than_the_sleep_may() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let pool = WorkerPool::new(device, &options()).unwrap();
    let worker = &pool.workers()[0];
    let record = TransferRecord::lasting();
    record.start(1, TimeLimit::NEVER);
    let held = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            worker.with_state(|_| {
                held.wait();
                std::thread::sleep(Duration::from_secs(1));
            });
        });
        held.wait();
        let begun = Instant::now();
        drop(worker.thread_drives(record, begun + Duration::from_millis(20)));
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    });
    record.end_part();
}

/// No caller drives, and the thread is parked: it looks by itself four times a second, and not each time within 200 ms.
#[test]
fn a_probe_is_answered_without_a_caller() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let pool = WorkerPool::new(Arc::clone(&device), &options()).unwrap();
    let far = Arc::clone(&device).create_completion_queue(16).unwrap();
    let status = Arc::new(LaneStatus::new(None));
    let setup = LaneSetup { status: Arc::clone(&status), heals: true };
    let (lane, _other) = lane_with(&pool, &*far, 0, setup);
    let halves = Halves::new(&device);
    let soon = (1..=10).filter(|number| {
        std::thread::sleep(Duration::from_millis(20));
        let posted = Instant::now();
        pool.workers()[0].post_probe(lane, *number, (halves.memory.as_ptr() as u64, halves.lkey)).unwrap();
        wait_until("it is not answered", || status.probe_answered() == *number);
        posted.elapsed() < Duration::from_millis(200)
    });
    assert!(soon.count() > 0, "the thread was not woken");
    assert_eq!((status.requests(), *halves.memory), ((0, 0), [1; 128]));
}

/// A caller sleeps until a transfer has ended of which the part moves to a worker that the caller does not know.
#[test]
fn a_caller_is_woken_when_a_part_ends_that_has_moved() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let pool = WorkerPool::new(Arc::clone(&device), &PoolOptions { workers: 2, ..options() }).unwrap();
    let far = Arc::clone(&device).create_completion_queue(16).unwrap();
    let setup = || LaneSetup { status: Arc::new(LaneStatus::new(None)), heals: true };
    let (from, _there) = lane_with(&pool, &*far, 0, setup());
    let (to, _other) = lane_with(&pool, &*far, 1, setup());
    let (halves, workers) = (Halves::new(&device), pool.workers());
    workers[0].with_state(|state| state.break_lane(from, "test"));
    let (task, _) = halves.submit(&workers[0], from);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let until = Instant::now() + Duration::from_secs(10);
            let driving = workers[0].thread_drives(task, until);
            let woken = task.sleep_until_ended(until);
            drop(driving);
            woken && began.elapsed() < Duration::from_secs(9)
        });
        let parts = workers[0].with_state(|state| state.take_parts(from, None));
        assert_eq!(parts.len(), 1);
        assert!(workers[1].put_parts(to, parts, 1).is_empty());
        assert!(sleeper.join().unwrap(), "it was not woken");
    });
}
