//! The sizes of slices, which may change while transfers are started.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::slice_policy::SlicePolicy;

/// Slice size and fragment limit of an engine. A change counts for transfers that are started after it.
#[derive(Debug)]
pub struct SliceSizes {
    /// The port's limit.
    max_message: u32,
    /// Slice size and fragment limit in bytes, as they were asked for.
    asked: Mutex<(u32, u32)>,
    /// What follows from them: see [`SlicePolicy::sizes`]. Written under the lock of `asked`, read by each thread that
    /// starts a transfer. Relaxed: the one word is all that a reader needs, so it never sees half of a change.
    sizes: AtomicU64,
}

impl SliceSizes {
    /// As [`SlicePolicy::new`] takes them.
    pub fn new(slice_size: u32, fragment_limit: u32, max_message: u32) -> Self {
        let sizes = AtomicU64::new(sizes(slice_size, fragment_limit, max_message));
        Self { max_message, asked: Mutex::new((slice_size, fragment_limit)), sizes }
    }

    /// The longest message of the port.
    pub fn max_message(&self) -> u32 {
        self.max_message
    }

    /// Changes slice size and fragment limit, each unless 0, and answers what they are then.
    pub fn change(&self, slice_size: u32, fragment_limit: u32) -> (u32, u32) {
        let mut asked = self.lock();
        if slice_size != 0 {
            asked.0 = slice_size;
        }
        if fragment_limit != 0 {
            asked.1 = fragment_limit;
        }
        self.sizes.store(sizes(asked.0, asked.1, self.max_message), Ordering::Relaxed);
        *asked
    }

    /// `policy`, with the sizes of now.
    #[inline(always)]
    pub fn apply(&self, policy: &SlicePolicy) -> SlicePolicy {
        policy.with_sizes(self.sizes.load(Ordering::Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, (u32, u32)> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sizes(slice_size: u32, fragment_limit: u32, max_message: u32) -> u64 {
    SlicePolicy::new(slice_size as usize, fragment_limit as usize, max_message, 1, 0).sizes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_keeps_and_the_port_bounds() {
        let sizes = SliceSizes::new(0, 4096, 1 << 20);
        let granted = SlicePolicy::new(0, 0, 1, 3, 64);
        let longest = |sizes: &SliceSizes| {
            let policy = sizes.apply(&granted);
            assert!(policy.fits(3, 64) && !policy.fits(2, 64) && !policy.fits(3, 63));
            (0..40).map(|bits| 1 << bits).take_while(|length| policy.takes_whole(*length)).last()
        };
        assert_eq!((sizes.change(0, 0), longest(&sizes)), ((0, 4096), Some(1 << 20)));
        assert_eq!((sizes.change(65_536, 0), longest(&sizes)), ((65_536, 4096), Some(1 << 16)));
        assert_eq!((sizes.change(0, 1 << 30), longest(&sizes)), ((65_536, 1 << 30), Some(1 << 20)));
        assert_eq!((sizes.change(4096, 1), longest(&sizes)), ((4096, 1), Some(4096)));
    }

    /// The hot path makes of the word what [`SlicePolicy::new`] would.
    #[test]
    fn a_changed_policy_is_the_same_as_a_new_one() {
        for (slice, fragment, limit) in
            [(4096, 100, 1 << 30), (1 << 30, 1 << 30, 1 << 31), (1 << 30, 1, 4096), (8192, 8192, 1 << 20)]
        {
            let sizes = SliceSizes::new(12_345, 0, limit);
            sizes.change(slice, fragment);
            let changed = sizes.apply(&SlicePolicy::new(0, 0, 1 << 30, 4, 64));
            let new = SlicePolicy::new(slice as usize, fragment as usize, limit, 4, 64);
            assert_eq!(format!("{changed:?}"), format!("{new:?}"));
        }
    }
}
