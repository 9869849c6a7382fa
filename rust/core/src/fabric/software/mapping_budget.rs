//! How much of its peers' memory this process maps, over all its links.
//!
//! A link is bounded as well, see [`super::mappings`]; but there may be many.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::fork::PerProcess;

/// All mappings: a 16th of the 65,530 that `vm.max_map_count` allows by default, of which the program needs some.
const MOST: u64 = 4096;
/// Bytes of address space of all of them: an eighth of the 128 TiB that a process has.
const MOST_BYTES: u64 = 16 << 40;

/// What may be mapped, and what is.
#[derive(Debug)]
pub(super) struct Budget {
    most: u64,
    most_bytes: u64,
    /// Both written by the threads that map and unmap, read by those that map. Relaxed: they are counts that guard no memory.
    count: AtomicU64,
    bytes: AtomicU64,
}

/// The share of one mapping. Dropped once that is unmapped.
#[derive(Debug)]
pub(super) struct Share {
    of: &'static Budget,
    bytes: u64,
}

impl Budget {
    const fn new(most: u64, most_bytes: u64) -> Self {
        Self { most, most_bytes, count: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// That of this process.
    pub(super) fn own() -> &'static Self {
        static OWN: PerProcess<Budget> = PerProcess::new(|| Budget::new(MOST, MOST_BYTES));
        OWN.get()
    }

    /// The share of a mapping of so many bytes; an error says why there is none.
    pub(super) fn acquire(&'static self, bytes: u64) -> Result<Share, String> {
        // One that does not fit takes nothing for any time: others would be refused meanwhile.
        if !take(&self.count, 1, self.most) {
            return Err(format!("this process maps {} regions of its peers already", self.most));
        }
        if !take(&self.bytes, bytes, self.most_bytes) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(format!("this process would map more than {} bytes of its peers", self.most_bytes));
        }
        Ok(Share { of: self, bytes })
    }
}

/// Adds to `taken`, unless that would be more than `most` then.
fn take(taken: &AtomicU64, amount: u64, most: u64) -> bool {
    let add = |taken: u64| taken.checked_add(amount).filter(|all| *all <= most);
    taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.count.fetch_sub(1, Ordering::Relaxed);
        self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_mapped_than_the_process_has_room_for() {
        static FEW: Budget = Budget::new(2, 100);
        let first = FEW.acquire(60).unwrap();
        assert!(FEW.acquire(41).unwrap_err().contains("100 bytes"));
        let second = FEW.acquire(40).unwrap();
        assert!(FEW.acquire(0).unwrap_err().contains("2 regions"));
        drop(first);
        let third = FEW.acquire(60).unwrap();
        assert!(FEW.acquire(u64::MAX - 100).is_err(), "refusals have taken nothing");
        drop((second, third));
        assert_eq!((FEW.count.load(Ordering::Relaxed), FEW.bytes.load(Ordering::Relaxed)), (0, 0));
    }
}
