//! The latency of a rail's path, without the time that requests wait for each other.

/// The smallest of the last answers to probes: what a probe waited for other requests is in all but the smallest.
#[derive(Clone, Debug, Default)]
pub struct PathLatency {
    /// Nanoseconds; a ring.
    answers: [u32; KEPT],
    seen: u32,
}

const KEPT: usize = 8;

impl PathLatency {
    /// A probe was answered after so many nanoseconds.
    pub fn answered(&mut self, after: u64) {
        if let Some(place) = self.answers.get_mut(self.seen as usize % KEPT) {
            *place = u32::try_from(after).unwrap_or(u32::MAX);
        }
        self.seen = self.seen.wrapping_add(1);
    }

    /// The path may have changed: the next answers count, and what is known is kept until the first of them.
    pub fn begin_anew(&mut self) {
        *self = Self { answers: [u32::try_from(self.nanos()).unwrap_or(u32::MAX); KEPT], seen: 0 };
    }

    /// Whether it has as many answers as it keeps: one alone may have waited for anything.
    pub fn is_sure(&self) -> bool {
        self.seen as usize >= KEPT
    }

    /// Nanoseconds from a request to its completion if nothing waits before it; 0 before the first answer.
    pub fn nanos(&self) -> u64 {
        // The first place is that of the number that was kept, or empty.
        let count = (self.seen as usize).clamp(1, KEPT);
        self.answers.iter().take(count).min().copied().unwrap_or(0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_the_last_eight_counts() {
        let mut latency = PathLatency::default();
        assert_eq!(latency.nanos(), 0);
        latency.answered(3_000);
        (0..7).for_each(|_| latency.answered(50_000));
        assert_eq!(latency.nanos(), 3_000);
        latency.answered(53_000);
        assert_eq!(latency.nanos(), 50_000, "the path has changed");
        latency.answered(u64::MAX);
        assert_eq!(latency.nanos(), 50_000);
        latency.begin_anew();
        assert_eq!((latency.nanos(), latency.is_sure()), (50_000, false), "until the first answer");
        latency.answered(90_000);
        assert_eq!(latency.nanos(), 90_000);
    }
}
