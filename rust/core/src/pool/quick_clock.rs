//! The pool's clock, read in a third of the time: by the processor's counter, which is one instruction.
//!
//! How long a tick of the counter is, comes from a comparison with the clock over the first 0.1 s. Until then, and where the counter is of no
//! use, the clock itself is read.
#![allow(unsafe_code, reason = "reads the processor's counter")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use once_cell::sync::OnceCell;

use super::clock;
use crate::fork::PerProcess;

/// Over how long counter and clock are compared: an error of a microsecond of either is a hundred-thousandth of it.
const COMPARED_OVER: u64 = 100_000_000;

static LINE: Line = Line { rate: AtomicU64::new(0), offset: AtomicU64::new(0) };

/// How nanoseconds follow from ticks.
#[derive(Debug)]
struct Line {
    /// Nanoseconds of 2^32 ticks; 0 while that is not known. Stored once, behind `offset` (Release), and loaded before it (Acquire).
    rate: AtomicU64,
    /// What is added to the nanoseconds of the counter, modulo 2^64. Relaxed, for `rate` publishes it.
    offset: AtomicU64,
}

/// As [`clock::now_ns`], to a microsecond or so.
#[inline(always)]
pub(super) fn now_ns() -> u64 {
    #[cfg(test)]
    if let Some(played) = played::now() {
        return played;
    }
    match LINE.rate.load(Ordering::Acquire) {
        0 => compare(),
        rate => Rate(rate).nanoseconds(counter()).wrapping_add(LINE.offset.load(Ordering::Relaxed)),
    }
}

impl Line {
    /// From now on these two count, unless another thread was first: the rate of one reading with the offset of another is wrong by
    /// seconds, for the counter has run since the machine was started. `is_taken`: swapped by all, Relaxed, for only which thread is
    /// the first one matters; of a process, so that it is clear in a child that is forked between the two stores.
    fn publish(&self, rate: Rate, offset: u64, is_taken: &AtomicBool) {
        if !is_taken.swap(true, Ordering::Relaxed) {
            self.offset.store(offset, Ordering::Relaxed);
            self.rate.store(rate.0, Ordering::Release);
        }
    }
}

/// Reads the clock while the rate is not known, and finds it out.
#[cold]
fn compare() -> u64 {
    static IS_TAKEN: PerProcess<AtomicBool> = PerProcess::new(|| AtomicBool::new(false));
    let now = clock::now_ns();
    if let Some(begin) = begin()
        && now.saturating_sub(begin.nanoseconds) >= COMPARED_OVER
        && let reading = Reading::take()
        && let Some(rate) = Rate::between(begin, &reading)
    {
        let offset = reading.nanoseconds.wrapping_sub(rate.nanoseconds(reading.ticks));
        LINE.publish(rate, offset, IS_TAKEN.get());
    }
    now
}

/// The first reading; `None` where the counter is of no use.
fn begin() -> Option<&'static Reading> {
    static BEGIN: PerProcess<OnceCell<Option<Reading>>> = PerProcess::new(OnceCell::new);
    let find = || (counter_is_steady() && counter_is_quick()).then(Reading::take);
    BEGIN.get().get_or_init(find).as_ref()
}

/// The counter and the clock at the same time.
#[derive(Clone, Copy, Debug)]
struct Reading {
    nanoseconds: u64,
    ticks: u64,
}

impl Reading {
    /// Of some readings the one that took the shortest: the thread may lose its processor between counter and clock.
    fn take() -> Self {
        let tries = (0..5).map(|_| {
            let (ticks, nanoseconds) = (counter(), clock::now_ns());
            (counter().saturating_sub(ticks), Self { nanoseconds, ticks })
        });
        tries.min_by_key(|(took, _)| *took).map_or(Self { nanoseconds: 0, ticks: 0 }, |(_, reading)| reading)
    }
}

/// Nanoseconds of 2^32 ticks.
#[derive(Clone, Copy, Debug)]
struct Rate(u64);

impl Rate {
    /// `None` if the counter has not moved.
    fn between(begin: &Reading, now: &Reading) -> Option<Self> {
        let nanoseconds = u128::from(now.nanoseconds.saturating_sub(begin.nanoseconds));
        let ticks = u128::from(now.ticks.saturating_sub(begin.ticks));
        let rate = (nanoseconds << 32).checked_div(ticks)?;
        u64::try_from(rate).ok().filter(|rate| *rate > 0).map(Self)
    }

    #[inline(always)]
    fn nanoseconds(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.0)) >> 32) as u64
    }
}

/// Whether the counter goes on at one rate, whatever the processor does, and is the same on all of them.
fn counter_is_steady() -> bool {
    if cfg!(miri) {
        return false;
    }
    if cfg!(target_arch = "x86_64") {
        // The kernel has compared the processors' counters, and does not list one that it does not trust.
        let listed =
            std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/available_clocksource");
        return listed.is_ok_and(|listed| listed.split_whitespace().any(|source| source == "tsc"));
    }
    // The architecture demands it, and Linux needs it.
    cfg!(target_arch = "aarch64")
}

/// Whether it is read in less time than the clock. A hypervisor may carry out each read in the processor's place, and so does the kernel
/// on ARM64 where a processor's counter has an erratum.
fn counter_is_quick() -> bool {
    let time = |read: fn() -> u64| {
        let tries = (0..5).map(|_| {
            let begin = clock::now_ns();
            for _ in 0..16 {
                black_box(read());
            }
            clock::now_ns().saturating_sub(begin)
        });
        tries.min().unwrap_or(u64::MAX)
    };
    time(counter) < time(clock::now_ns)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, which accesses no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn counter() -> u64 {
    let ticks;
    // SAFETY: Linux lets every process read this register; it accesses no memory.
    unsafe {
        std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack, preserves_flags))
    };
    ticks
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline(always)]
fn counter() -> u64 {
    clock::now_ns()
}

/// A clock that a test advances, of a thread.
#[cfg(test)]
pub(crate) mod played {
    use std::cell::Cell;

    thread_local!(static NOW: Cell<Option<u64>> = const { Cell::new(None) });

    pub(super) fn now() -> Option<u64> {
        NOW.get()
    }

    /// From here on it is this time, for this thread.
    pub(crate) fn set(nanoseconds: u64) {
        NOW.set(Some(nanoseconds));
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_clock() {
        for _ in 0..30 {
            let before = clock::now_ns();
            let quick = now_ns();
            let after = clock::now_ns();
            assert!((before - 20_000..=after + 20_000).contains(&quick), "{before} {quick} {after}");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(LINE.rate.load(Ordering::Acquire) != 0 || begin().is_none(), "by the counter at last");
    }

    /// Two threads find the rate out at a time: the offset that counts is that of the same reading.
    #[test]
    fn a_rate_is_never_used_with_the_offset_of_another_reading() {
        let (line, is_taken) =
            (Line { rate: AtomicU64::new(0), offset: AtomicU64::new(0) }, AtomicBool::new(false));
        line.publish(Rate(7), 70, &is_taken);
        line.publish(Rate(8), 80, &is_taken);
        assert_eq!((line.rate.into_inner(), line.offset.into_inner()), (7, 70));
    }

    proptest! {
        /// Whatever the counter's rate and the moment, and though each of the readings was late by up to a microsecond.
        #[test]
        fn times_are_those_of_the_clock(
            ticks_per_second in 1_000_000_u64..6_000_000_000,
            (begin, compared) in (0_u64..1 << 50, COMPARED_OVER..20 * COMPARED_OVER),
            (late_first, late_last) in (0_u64..1000, 0_u64..1000),
            (at, took) in (0_u64..1 << 50, 0_u64..3_000_000),
        ) {
            let counter = |ns: u64| (u128::from(ns) * u128::from(ticks_per_second) / 1_000_000_000) as u64;
            let reading = |ns, late| Reading { nanoseconds: ns + late, ticks: counter(ns) };
            let rate = Rate::between(&reading(begin, late_first), &reading(begin + compared, late_last)).unwrap();
            let measured = rate.nanoseconds(counter(at + took)) - rate.nanoseconds(counter(at));
            prop_assert!(measured.abs_diff(took) < 1100 + took / 10_000, "{took} ns are {measured}");
        }
    }
}
