//! Time that a test has had the machine for itself.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a thread of it looks whether it runs.
const TICK: Duration = Duration::from_millis(2);

/// The threads of the test itself may keep that one from running for less than this.
const STALL: Duration = Duration::from_millis(20);

/// Of all time at most so much is left out, so that what never happens is noticed on any machine.
const LEFT_OUT: f64 = 0.9;

/// The name of the threads that tick: no other thread waits for them.
const TICKING: &str = "own-time";

/// Begins when it is made. What is left out is what has held the threads of this program up: times in which they could have run and another program
/// did, and times in which the machine did not run at all. Where a processor is idle, or where this program waits for something that does not come,
/// that is next to nothing, and a bound on it is as strict as one on [`Instant::elapsed`], whatever the others do. Where the threads have to wait for
/// their turn it is longer by that, up to [`LEFT_OUT`].
pub struct OwnTime {
    begin: Instant,
    at_begin: Processors,
    stalls: Arc<Stalls>,
}

#[derive(Default)]
struct Stalls {
    /// Written by the thread that ticks, read by the test; nothing else depends on it.
    nanos: AtomicU64,
    /// Written by the test, read by the thread that ticks, which ends then.
    over: AtomicBool,
}

impl OwnTime {
    pub fn start() -> Self {
        let stalls = Arc::new(Stalls::default());
        let ticking = Arc::clone(&stalls);
        let ticks = move || {
            while !ticking.over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(TICK);
                let late = begin.elapsed().saturating_sub(TICK);
                if late >= STALL {
                    ticking.nanos.fetch_add(late.as_nanos() as u64, Ordering::Relaxed);
                }
            }
        };
        std::thread::Builder::new().name(TICKING.to_owned()).spawn(ticks).unwrap();
        Self { begin: Instant::now(), at_begin: Processors::now(), stalls }
    }

    /// The time since the beginning, without what was not ours.
    pub fn elapsed(&self) -> Duration {
        let all = self.begin.elapsed();
        let lost = Processors::now().taken_since(&self.at_begin).max(self.stalled());
        all - lost.min(all.mul_f64(LEFT_OUT))
    }

    /// Whether it is `limit` or more. Costs little before that.
    pub fn exceeds(&self, limit: Duration) -> bool {
        self.begin.elapsed() >= limit && self.elapsed() >= limit
    }

    /// For how long nothing ran.
    pub fn stalled(&self) -> Duration {
        Duration::from_nanos(self.stalls.nanos.load(Ordering::Relaxed))
    }
}

impl Drop for OwnTime {
    fn drop(&mut self) {
        self.stalls.over.store(true, Ordering::Relaxed);
    }
}

/// What the processors on which this program may run have done so far; nothing where the kernel does not say.
#[derive(Clone, Debug, Default)]
pub struct Processors {
    pub count: u32,
    /// For all programs but this one and its children, and for the host of a virtual machine.
    pub others: Duration,
    /// Nothing, or waiting for disks.
    pub idle: Duration,
    /// For how long threads of this program and its children have waited for their turn, all together.
    pub awaited: Duration,
}

impl Processors {
    fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let may_use = allowed(&read("/proc/self/status"));
        let (mut count, mut busy, mut idle) = (0, 0, 0);
        for line in read("/proc/stat").lines() {
            let mut fields = line.split_whitespace();
            // The line of all of them has no number behind its name.
            let number = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
            if number.is_some_and(|number: u32| may_use.iter().any(|range| range.contains(&number))) {
                let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
                let sum = |at: &[usize]| at.iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
                // proc(5): user, nice, system, idle, iowait, irq, softirq, steal.
                (count, busy, idle) = (count + 1, busy + sum(&[0, 1, 2, 5, 6, 7]), idle + sum(&[3, 4]));
            }
        }
        let time = |ticks: u64| Duration::from_millis(ticks * 10);
        let (ticks, awaited) = family();
        Self { count, others: time(busy.saturating_sub(ticks)), idle: time(idle), awaited }
    }

    /// By how much others can have held this program up since: their share of the processors while none was idle, and no longer than a
    /// thread of this program has waited for one.
    pub fn taken_since(&self, before: &Self) -> Duration {
        let idle = self.idle.saturating_sub(before.idle);
        let others = self.others.saturating_sub(before.others).saturating_sub(idle);
        (others / self.count.max(1)).min(self.awaited.saturating_sub(before.awaited))
    }
}

/// The ranges of `Cpus_allowed_list`, such as `0-3,7`.
fn allowed(status: &str) -> Vec<RangeInclusive<u32>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    ranges.collect()
}

/// Ticks, a hundredth of a second each, of this process and of those that it has started; and for how long their threads have waited.
fn family() -> (u64, Duration) {
    let own = std::process::id();
    let (mut ticks, mut awaited) = (0, Duration::ZERO);
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let of_it = std::fs::read_to_string(process.path().join("stat")).ok().and_then(|stat| {
            let pid: u32 = stat.split(' ').next()?.parse().ok()?;
            let rest: Vec<u64> =
                stat.rsplit(')').next()?.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            // Behind the name, a space and the state: its parent, and from the 12th on its times and those of its children that have ended.
            let is_of_us = pid == own || *rest.get(2)? == u64::from(own);
            is_of_us.then(|| rest.get(12..16).map_or(0, |times| times.iter().sum::<u64>()))
        });
        if let Some(of_it) = of_it {
            ticks += of_it;
            awaited += awaited_by_threads(&process.path());
        }
    }
    (ticks, awaited)
}

fn awaited_by_threads(process: &Path) -> Duration {
    let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let each = threads.filter_map(|thread| {
        let read = |name| std::fs::read_to_string(thread.path().join(name)).ok();
        // Nanoseconds on a processor, and on the queue of one.
        let nanos = read("schedstat")?.split(' ').nth(1)?.parse().ok()?;
        (read("comm")?.trim() != TICKING).then(|| Duration::from_nanos(nanos))
    });
    each.sum()
}
