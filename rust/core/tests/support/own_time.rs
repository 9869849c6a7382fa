//! Time that a test has had the machine for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often a thread of it looks whether it runs.
const TICK: Duration = Duration::from_millis(2);

/// The threads of the test itself may keep that one from running for less than this.
const STALL: Duration = Duration::from_millis(20);

/// Of all time at most so much is left out, so that what never happens is noticed on any machine.
const LEFT_OUT: f64 = 0.9;

/// Begins when it is made. What the processors do for other programs is left out, and so are times in which the machine does not run at all:
/// so a bound on it holds on a machine that is busy, and on a quiet one it is as strict as one on [`Instant::elapsed`].
pub struct OwnTime {
    begin: Instant,
    others: Duration,
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
        std::thread::spawn(move || {
            while !ticking.over.load(Ordering::Relaxed) {
                let begin = Instant::now();
                std::thread::sleep(TICK);
                let late = begin.elapsed().saturating_sub(TICK);
                if late >= STALL {
                    ticking.nanos.fetch_add(late.as_nanos() as u64, Ordering::Relaxed);
                }
            }
        });
        Self { begin: Instant::now(), others: busy_with_others(), stalls }
    }

    /// The time since the beginning, without what was not ours.
    pub fn elapsed(&self) -> Duration {
        let all = self.begin.elapsed();
        let lost = busy_with_others().saturating_sub(self.others) + self.stalled();
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

/// Processor time of all programs but this one and its children so far, and what the host took; zero where the kernel does not say.
fn busy_with_others() -> Duration {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // proc(5): user, nice, system, idle, iowait, irq, softirq, steal.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum();
    Duration::from_millis(busy.saturating_sub(ticks_of_family()) * 10)
}

/// Ticks, a hundredth of a second each, of this process and of those that it has started.
fn ticks_of_family() -> u64 {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    stats
        .filter_map(|stat| {
            let pid: u32 = stat.split(' ').next()?.parse().ok()?;
            let rest: Vec<u64> =
                stat.rsplit(')').next()?.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            // Behind the name, a space and the state: its parent, and from the 12th on its times and those of its children that have ended.
            let is_of_us = pid == own || *rest.get(2)? == u64::from(own);
            is_of_us.then(|| rest.get(12..16).map_or(0, |times| times.iter().sum()))
        })
        .sum()
}
