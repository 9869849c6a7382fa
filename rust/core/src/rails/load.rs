//! The load of a rail as a plan sees it.

/// What is under way somewhere, and how fast it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes that were started and have not ended, posted or waiting.
    pub bytes: u64,
    /// Bytes per second; 0 counts as 1.
    pub rate: u64,
}

impl Flow {
    /// Nanoseconds until what is under way has ended.
    #[inline]
    fn drain(&self) -> u64 {
        nanos(self.bytes, self.rate)
    }
}

/// Nanoseconds for so many bytes at so many bytes per second.
#[inline]
pub(super) fn nanos(bytes: u64, rate: u64) -> u64 {
    (bytes as f64 * 1e9 / rate.max(1) as f64) as u64
}

/// The load of one rail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailLoad {
    /// Its state is `Up`.
    pub up: bool,
    /// Requests that its lanes may still post: depth less outstanding, of all its lanes.
    pub credits: u32,
    /// Nanoseconds from posting to completion of a request that finds nothing before it and has no bytes, and until what is under
    /// way has ended.
    pub ready: u64,
    /// Bytes per second.
    pub rate: u64,
}

impl RailLoad {
    /// The load of a rail that is `Up`: `nic` is what all connections have under way on the local NIC, `rail` what this connection
    /// has on this rail. The slower of both counts: the NIC may be busy with other peers, and the peer with other senders.
    #[inline]
    pub fn up(nic: Flow, rail: Flow, latency: u64, credits: u32) -> Self {
        Self {
            up: true,
            credits,
            ready: latency.saturating_add(nic.drain().max(rail.drain())),
            rate: nic.rate.min(rail.rate),
        }
    }

    /// When so many bytes would have ended, in nanoseconds from now.
    #[inline]
    pub fn finish(&self, bytes: u64) -> u64 {
        self.ready.saturating_add(nanos(bytes, self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_nic_and_rail_counts() {
        let nic = Flow { bytes: 50_000_000, rate: 50_000_000_000 };
        let idle = Flow { bytes: 0, rate: 50_000_000_000 };
        let contended = Flow { bytes: 10_000_000, rate: 2_000_000_000 };
        assert_eq!(RailLoad::up(nic, idle, 3_000, 1).ready, 1_003_000);
        assert_eq!(RailLoad::up(nic, contended, 3_000, 1).ready, 5_003_000);
        assert_eq!(RailLoad::up(nic, contended, 0, 1).finish(2_000_000), 6_000_000);
        assert!(
            RailLoad::up(Flow::default(), Flow::default(), 0, 0).finish(u64::MAX) > 0,
            "no rate is no panic"
        );
    }
}
