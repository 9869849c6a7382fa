//! Time that a test has had the machine for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use procfs::process::{Process, Stat, all_processes};
use procfs::{CpuTime, CurrentSI, KernelStats};

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
        let may_use =
            Process::myself().and_then(|own| own.status()).ok().and_then(|own| own.cpus_allowed_list);
        let may_use = may_use.unwrap_or_default();
        let is_ours = |number: u32| may_use.iter().any(|(first, last)| (*first..=*last).contains(&number));
        let all = KernelStats::current().map(|stats| stats.cpu_time).unwrap_or_default();
        let ours: Vec<_> = (0..).zip(&all).filter(|(number, _)| is_ours(*number)).map(|(_, of)| of).collect();
        let (own, awaited) = family();
        Self {
            count: ours.len() as u32,
            others: ours.iter().map(|of| busy(of)).sum::<Duration>().saturating_sub(own),
            idle: ours.iter().map(|of| of.idle_duration() + of.iowait_duration().unwrap_or_default()).sum(),
            awaited,
        }
    }

    /// By how much others can have held this program up since: their share of the processors while none was idle, and no longer than a
    /// thread of this program has waited for one.
    pub fn taken_since(&self, before: &Self) -> Duration {
        let idle = self.idle.saturating_sub(before.idle);
        let others = self.others.saturating_sub(before.others).saturating_sub(idle);
        (others / self.count.max(1)).min(self.awaited.saturating_sub(before.awaited))
    }
}

/// For programs, the kernel, and the host of a virtual machine.
fn busy(of: &CpuTime) -> Duration {
    let rest = [of.irq_duration(), of.softirq_duration(), of.steal_duration()];
    of.user_duration()
        + of.nice_duration()
        + of.system_duration()
        + rest.into_iter().flatten().sum::<Duration>()
}

/// Processor time of this process and of those that it has started, and for how long their threads have waited for a processor.
fn family() -> (Duration, Duration) {
    let own = std::process::id() as i32;
    let of_us = all_processes().into_iter().flatten().filter_map(|process| {
        let process = process.ok()?;
        let stat = process.stat().ok()?;
        (stat.pid == own || stat.ppid == own).then(|| (time_of(&stat), awaited_by_threads(&process)))
    });
    of_us.fold(Default::default(), |(time, awaited), (of, more)| (time + of, awaited + more))
}

/// With that of children that have ended.
fn time_of(stat: &Stat) -> Duration {
    let ticks = stat.utime + stat.stime + (stat.cutime + stat.cstime).unsigned_abs();
    Duration::from_millis(ticks * 1000 / procfs::ticks_per_second())
}

fn awaited_by_threads(process: &Process) -> Duration {
    let threads = process.tasks().into_iter().flatten().flatten();
    let others = threads.filter(|thread| thread.stat().is_ok_and(|stat| stat.comm != TICKING));
    others.filter_map(|thread| Some(Duration::from_nanos(thread.schedstat().ok()?.run_delay))).sum()
}
