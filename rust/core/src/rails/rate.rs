//! The rate of a rail, from what its lanes count.

use super::{MILLISECOND, RailCounts};

/// Measures the bytes per second that a rail, or a NIC, ends while it has enough to do.
///
/// It looks at counters from time to time and costs a transfer nothing. The time in which the rail may have been idle says nothing
/// of what it could do, and does not count.
#[derive(Clone, Debug)]
pub struct RateMeter {
    /// What the port says, in bytes per second.
    speed: u64,
    /// Sums over the recent past: bytes that ended, in how many nanoseconds, by how many completions.
    bytes: u64,
    nanos: u64,
    completions: u64,
    last: Option<Last>,
    /// When the last sum was added.
    measured_at: u64,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: u64,
    counts: RailCounts,
}

/// The sums are halved once they cover as long as this and as many completions: few long requests come in steps.
const HORIZON: u64 = 2 * MILLISECOND;
const COMPLETIONS: u64 = 16;

/// For how long the speed of the port counts as measured at the beginning.
const PRIOR: u64 = MILLISECOND / 4;

/// What was measured is forgotten after so long without another measurement: it was of other circumstances.
const FORGET: u64 = 100 * MILLISECOND;

/// With less under way than the port moves in this time it is the latency that limits, not the rate: 10 us.
const BUSY: u64 = MILLISECOND / 100;

impl RateMeter {
    /// Of a rail with ports of this speed in bytes per second, the slower of both ends.
    pub fn new(speed: u64) -> Self {
        let mut meter =
            Self { speed: speed.max(1), bytes: 0, nanos: 0, completions: 0, last: None, measured_at: 0 };
        meter.forget();
        meter
    }

    /// Looks at the counters of the rail.
    pub fn look(&mut self, now: u64, counts: RailCounts) {
        let busy = counts.bytes_in_flight >= (self.speed as f64 * BUSY as f64 / 1e9) as u64;
        if self.measured_at > 0 && now.saturating_sub(self.measured_at) > FORGET {
            self.forget();
        }
        // Also if nothing is left under way: the time of a transfer that is alone counts, and so do the bytes that it ends with.
        if let Some(last) = self.last
            && (busy || counts.bytes_done > last.counts.bytes_done)
            && now > last.at
        {
            self.add(&last, busy, now, counts);
        }
        self.last = busy.then_some(Last { at: now, counts });
    }

    fn add(&mut self, last: &Last, busy: bool, now: u64, counts: RailCounts) {
        let (bytes, nanos) = (counts.bytes_done.saturating_sub(last.counts.bytes_done), now - last.at);
        // What has ended since was under way at the last look already, and something is left: the rail had something to do all the time.
        // Otherwise it may have been idle in between, or since, and its rate is at least this.
        let was_busy = busy && bytes <= last.counts.bytes_in_flight;
        if !was_busy && bytes as f64 / nanos as f64 <= self.bytes as f64 / self.nanos as f64 {
            return;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.nanos += nanos;
        self.completions += counts.completions.saturating_sub(last.counts.completions);
        self.measured_at = now;
        if self.nanos > HORIZON && self.completions > COMPLETIONS {
            (self.bytes, self.nanos, self.completions) =
                (self.bytes / 2, self.nanos / 2, self.completions / 2);
        }
    }

    /// The rail is as new, or comes back: what was measured says nothing of it now.
    pub fn forget(&mut self) {
        self.nanos = PRIOR;
        self.bytes = (self.speed as f64 * PRIOR as f64 / 1e9) as u64;
        self.completions = 0;
        self.last = None;
        self.measured_at = 0;
    }

    /// Bytes per second, at least 1.
    #[inline]
    pub fn rate(&self) -> u64 {
        ((self.bytes as f64 * 1e9 / self.nanos.max(1) as f64) as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPEED: u64 = 50_000_000_000;

    /// Looks every half millisecond at a rail that ends requests of `size` bytes at `rate`.
    fn run(meter: &mut RateMeter, rate: u64, size: u64, from: u64, looks: u64) -> u64 {
        let mut now = from;
        for _ in 0..looks {
            now += MILLISECOND / 2;
            let done = (rate as f64 * now as f64 / 1e9) as u64 / size;
            let counts = RailCounts {
                completions: done,
                bytes_done: done * size,
                in_flight: 1 << 12,
                bytes_in_flight: size << 12,
            };
            meter.look(now, counts);
        }
        now
    }

    #[test]
    fn a_new_rail_has_the_speed_of_its_port() {
        assert_eq!(RateMeter::new(SPEED).rate(), SPEED);
        assert_eq!(RateMeter::new(0).rate(), 1);
    }

    #[test]
    fn what_was_measured_is_forgotten() {
        let mut meter = RateMeter::new(SPEED);
        let now = run(&mut meter, SPEED / 16, 8 << 20, 0, 100);
        assert!(meter.rate() < SPEED / 8, "{}", meter.rate());
        run(&mut meter, SPEED, 8 << 20, now + FORGET, 1);
        assert_eq!(meter.rate(), SPEED);
    }

    #[test]
    fn a_rail_that_is_too_slow_to_be_given_anything_is_tried_again() {
        let mut meter = RateMeter::new(SPEED);
        let now = run(&mut meter, SPEED / 1000, 64 << 10, 0, 100);
        assert!(meter.rate() < SPEED / 100, "{}", meter.rate());
        let idle = RailCounts::default();
        meter.look(now + FORGET / 2, idle);
        assert!(meter.rate() < SPEED / 100);
        meter.look(now + FORGET + 1, idle);
        assert_eq!(meter.rate(), SPEED);
    }

    #[test]
    fn transfers_that_are_alone_are_measured_whole() {
        let (mut meter, mut now, mut done) = (RateMeter::new(SPEED), 0, 0);
        let rate = SPEED / 16;
        for transfer in 1..=20u64 {
            let size = 16 << 20;
            let begin = now;
            let end = begin + (size as f64 * 1e9 / rate as f64) as u64;
            // Idle for a while, and then looked at until it has ended.
            while now < end + 3 * MILLISECOND {
                now += MILLISECOND / 2;
                let ended = now >= end;
                done = if ended { transfer * size } else { done };
                let under_way = if ended { 0 } else { size };
                let counts = RailCounts {
                    completions: done / size,
                    bytes_done: done,
                    in_flight: u64::from(!ended),
                    bytes_in_flight: under_way,
                };
                meter.look(now, counts);
            }
        }
        assert!((rate * 4 / 5..rate * 6 / 5).contains(&meter.rate()), "{} of {rate}", meter.rate());
    }

    #[test]
    fn a_rail_with_little_to_do_is_not_measured() {
        let mut meter = RateMeter::new(SPEED);
        for number in 1..100u64 {
            let counts = RailCounts {
                completions: number,
                bytes_done: number * 4096,
                in_flight: 1,
                bytes_in_flight: 4096,
            };
            meter.look(number * MILLISECOND, counts);
        }
        assert_eq!(meter.rate(), SPEED);
    }

    #[test]
    fn a_rail_that_was_idle_in_between_is_not_taken_for_slow() {
        let mut meter = RateMeter::new(SPEED);
        for number in 1..100u64 {
            // A quarter of what the port moves, and no more than 1 MiB under way at a time.
            let done = number * SPEED / 8_000;
            let counts = RailCounts {
                completions: done >> 20,
                bytes_done: done,
                in_flight: 1,
                bytes_in_flight: 1 << 20,
            };
            meter.look(number * MILLISECOND / 2, counts);
        }
        assert_eq!(meter.rate(), SPEED);
    }

    proptest! {
        /// Whatever the rate and the size of requests, it is found within a tenth in 20 ms.
        #[test]
        fn the_rate_is_found(rate in SPEED / 20..SPEED, size in prop::sample::select(vec![64u64 << 10, 1 << 20, 8 << 20])) {
            let mut meter = RateMeter::new(SPEED);
            let looks = (40 * SPEED / rate).max(40);
            run(&mut meter, rate, size, 0, looks);
            let found = meter.rate() as f64 / rate as f64;
            prop_assert!((0.9..1.1).contains(&found), "{found}");
        }
    }
}
