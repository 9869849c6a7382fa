//! What the process holds: descriptors, the engine's threads, the fabric's shared tables, memory.

use std::time::{Duration, Instant};

use super::standins;

/// How long threads and sockets may take to go after the last reference has.
const PATIENCE: Duration = Duration::from_secs(10);

/// Memory that allocator and thread stacks may keep, in KiB: more is taken for a leak. The thread sanitizer keeps several
/// times that for itself.
const SLACK: i64 = if cfg!(thread_sanitizer) { 512 << 10 } else { 64 << 10 };

#[derive(Clone, Debug)]
pub struct ProcessResources {
    descriptors: i64,
    threads: i64,
    tables: i64,
    memory: i64,
    verbs: i64,
}

/// What is left over. Zero is as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    pub descriptors: i64,
    pub threads: i64,
    pub tables: i64,
    /// KiB beyond what an allocator may keep.
    pub memory: i64,
    /// Queue pairs, regions and so on, of the kernel or of stand-ins.
    pub verbs: i64,
}

impl ProcessResources {
    pub fn take() -> Self {
        give_back();
        let lines = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = lines("/proc/self/status");
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) as i64,
            threads: engine_threads() as i64,
            tables: lines("/proc/self/maps").lines().filter(|line| line.contains("flagcx-p2p-")).count()
                as i64,
            verbs: verbs_objects(),
            memory: resident.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0),
        }
    }

    /// What there is now and was not then; waits a while for what is on its way out.
    pub fn leaks(&self) -> Leaks {
        let start = Instant::now();
        loop {
            let now = Self::take();
            let leaks = Leaks {
                descriptors: (now.descriptors - self.descriptors).max(0),
                threads: (now.threads - self.threads).max(0),
                tables: (now.tables - self.tables).max(0),
                memory: (now.memory - self.memory - SLACK).max(0),
                verbs: (now.verbs - self.verbs).max(0),
            };
            if leaks == Leaks::default() || start.elapsed() > PATIENCE {
                return leaks;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Has the allocator give back what it keeps for later.
#[allow(unsafe_code, reason = "calls the C library's allocator")]
fn give_back() {
    // SAFETY: has no precondition.
    unsafe { libc::malloc_trim(0) };
}

/// What is alive on devices of verbs. The kernel says that for all processes: `0: rxe0: pd 1 cq 1 qp 1 cm_id 0 mr 0 ctx 0 srq 0`.
fn verbs_objects() -> i64 {
    match (super::over_verbs(), standins::of_run()) {
        (false, _) => return 0,
        (true, true) => return standins::objects(),
        (true, false) => {}
    }
    let output = std::process::Command::new("rdma").args(["resource", "show"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let counts =
        |line: &str| line.split_whitespace().skip(2).filter_map(|word| word.parse::<i64>().ok()).sum::<i64>();
    text.lines().map(counts).sum()
}

/// Threads that the library has named; the test harness has others.
fn engine_threads() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.starts_with("p2p-") || name.starts_with("fcx-"))
        .count()
}
