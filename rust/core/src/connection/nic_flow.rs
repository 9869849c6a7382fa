//! What all connections of an engine have under way on one NIC.

use std::sync::Mutex;

use crate::pool::clock;
use crate::rails::{Flow, MILLISECOND, RailCounts, RateMeter};
use crate::sync::{AtomicU64, Ordering};

/// The flow over one NIC of this host: the tasks of connections look at what its lanes count, from time to time, one for all. So it
/// costs transfers nothing, and connections with one rail count as well.
#[derive(Debug)]
pub(super) struct NicFlow {
    /// Bytes under way at the last look, and the bytes per second that were measured. Written by the thread that looks, which holds
    /// `looks`; read by submitters and by tasks. Each stands alone and is an estimate, so Relaxed.
    bytes: AtomicU64,
    rate: AtomicU64,
    looks: Mutex<Looks>,
}

#[derive(Debug)]
struct Looks {
    meter: RateMeter,
    /// Not before this time, in the pool's clock.
    next_at: u64,
}

/// Between two looks at least.
const INTERVAL: u64 = MILLISECOND / 4;

/// A look takes longer the more lanes there are; looks at all NICs take this part of a processor's time at most: half of what all looks
/// may take, within which they count ([`LookRounds`](crate::events)).
const PART_OF_TIME: u64 = 40;

impl NicFlow {
    /// Of a NIC with a port of this speed, in bytes per second; 0 if it does not say.
    pub(super) fn new(speed: u64) -> Self {
        let meter = RateMeter::new(known_speed(speed));
        Self {
            bytes: AtomicU64::new(0),
            rate: AtomicU64::new(meter.rate()),
            looks: Mutex::new(Looks { meter, next_at: 0 }),
        }
    }

    /// The flow at the last look.
    #[inline]
    pub(super) fn get(&self) -> Flow {
        Flow { bytes: self.bytes.load(Ordering::Relaxed), rate: self.rate.load(Ordering::Relaxed) }
    }

    /// Looks at the counters of all lanes on the NIC, which `count` sums up, unless another look was just now or is under way. `now` is
    /// of the pool's clock; `nics` are looked at in turn.
    pub(super) fn look(&self, now: u64, nics: u32, count: impl FnOnce() -> RailCounts) {
        let Ok(mut looks) = self.looks.try_lock() else { return };
        if now < looks.next_at {
            return;
        }
        let begin = clock::now_ns();
        let counts = count();
        let took = clock::now_ns().saturating_sub(begin);
        looks.next_at = now.saturating_add(took.saturating_mul(PART_OF_TIME * u64::from(nics)).max(INTERVAL));
        looks.meter.look(now, counts);
        self.bytes.store(counts.bytes_in_flight, Ordering::Relaxed);
        self.rate.store(looks.meter.rate(), Ordering::Relaxed);
    }
}

/// The speed that a port is taken to have that does not say it, 100 Gb/s: with none at all nothing would be given to its rails, so they
/// would never be measured.
pub(super) fn known_speed(speed: u64) -> u64 {
    if speed == 0 { 12_500_000_000 } else { speed }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_look_counts_for_all_that_come_soon_after() {
        let flow = NicFlow::new(1_000_000_000);
        assert_eq!(flow.get(), Flow { bytes: 0, rate: 1_000_000_000 });
        let counts = |bytes| RailCounts { bytes_in_flight: bytes, ..RailCounts::default() };
        flow.look(MILLISECOND, 1, || counts(7));
        flow.look(MILLISECOND + INTERVAL / 2, 1, || unreachable!("too soon"));
        assert_eq!(flow.get().bytes, 7);
        // A second later: the first look may have taken long on a busy machine.
        flow.look(1_000 * MILLISECOND, 1, || counts(9));
        assert_eq!(flow.get().bytes, 9);
    }
}
