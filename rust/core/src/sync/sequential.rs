//! Atomics of which each access is sequentially consistent, for protocols in which each side writes its own word and then reads the
//! other's: one of the two sees the other.
//!
//! A type of their own, so that no access is weaker than the protocol needs. In loom's models they acquire and release, and a
//! sequentially consistent fence follows each write, which is how processors without such instructions carry them out: loom lets a
//! sequentially consistent load see nothing but the latest store, and so would hide what depends on the loads before it.

use super::{AtomicBool, AtomicU32, AtomicU64, Ordering};

macro_rules! sequential {
    ($name:ident, $atomic:ident, $value:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name($atomic);

        impl $name {
            #[inline(always)]
            pub(crate) fn load(&self) -> $value {
                self.0.load(LOAD)
            }

            #[inline(always)]
            pub(crate) fn store(&self, value: $value) {
                self.0.store(value, STORE);
                after_write();
            }
        }
    };
}

sequential!(SequentialBool, AtomicBool, bool, "A flag.");
sequential!(SequentialU32, AtomicU32, u32, "A number.");
sequential!(SequentialU64, AtomicU64, u64, "A longer number.");

impl SequentialBool {
    /// Stores a value, and answers the one before.
    #[inline(always)]
    pub(crate) fn swap(&self, value: bool) -> bool {
        let before = self.0.swap(value, CHANGE);
        after_write();
        before
    }
}

macro_rules! counts {
    ($name:ident) => {
        impl $name {
            #[inline(always)]
            pub(crate) fn increment(&self) {
                self.0.fetch_add(1, CHANGE);
                after_write();
            }

            #[inline(always)]
            pub(crate) fn decrement(&self) {
                self.0.fetch_sub(1, CHANGE);
                after_write();
            }
        }
    };
}

counts!(SequentialU32);
counts!(SequentialU64);

impl SequentialU32 {
    /// The atomic itself, for a word that another protocol uses as well.
    #[inline(always)]
    pub(crate) fn as_atomic(&self) -> &AtomicU32 {
        &self.0
    }
}

const LOAD: Ordering = if cfg!(flagcx_p2p_loom) { Ordering::Acquire } else { Ordering::SeqCst };
const STORE: Ordering = if cfg!(flagcx_p2p_loom) { Ordering::Release } else { Ordering::SeqCst };
const CHANGE: Ordering = if cfg!(flagcx_p2p_loom) { Ordering::AcqRel } else { Ordering::SeqCst };

#[inline(always)]
fn after_write() {
    #[cfg(flagcx_p2p_loom)]
    super::fence(Ordering::SeqCst);
}
