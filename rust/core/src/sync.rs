//! Atomics and locks of lock-free code: from std, or loom's models under `--cfg flagcx_p2p_loom`.

use std::time::Duration;

#[cfg(flagcx_p2p_loom)]
#[allow(unused_imports, reason = "models use more than the code that they model")]
pub(crate) use loom::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(flagcx_p2p_loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

#[cfg(flagcx_p2p_loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(flagcx_p2p_loom))]
pub(crate) use std::thread::yield_now;

mod sequential;

pub(crate) use sequential::{SequentialBool, SequentialU32, SequentialU64};

/// A pointer that is replaced while other threads read through it.
#[cfg(not(flagcx_p2p_loom))]
pub(crate) use arc_swap::ArcSwap as Swap;

/// A read guard of [`Swap`].
#[cfg(not(flagcx_p2p_loom))]
pub(crate) type SwapGuard<T> = arc_swap::Guard<std::sync::Arc<T>>;
#[cfg(flagcx_p2p_loom)]
pub(crate) type SwapGuard<T> = Box<std::sync::Arc<T>>;

/// The model of it: loom explores the order of threads, not the library's internals.
#[cfg(flagcx_p2p_loom)]
#[derive(Debug)]
pub(crate) struct Swap<T>(Mutex<std::sync::Arc<T>>);

#[cfg(flagcx_p2p_loom)]
impl<T> Swap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self(Mutex::new(std::sync::Arc::new(value)))
    }

    pub(crate) fn load(&self) -> SwapGuard<T> {
        Box::new(std::sync::Arc::clone(&lock(&self.0)))
    }

    pub(crate) fn store(&self, value: std::sync::Arc<T>) {
        *lock(&self.0) = value;
    }
}

/// A place that is filled once, and then read without a lock.
#[cfg(not(flagcx_p2p_loom))]
pub(crate) use once_cell::sync::OnceCell;

/// The model of it: as in the library, what a thread reads it acquires from the thread that has filled it, and an empty place tells it nothing.
#[cfg(flagcx_p2p_loom)]
#[derive(Debug)]
pub(crate) struct OnceCell<T> {
    is_set: AtomicBool,
    value: once_cell::sync::OnceCell<T>,
}

#[cfg(flagcx_p2p_loom)]
impl<T> OnceCell<T> {
    pub(crate) fn new() -> Self {
        Self { is_set: AtomicBool::new(false), value: once_cell::sync::OnceCell::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if self.is_set.load(Ordering::Acquire) { self.value.get() } else { None }
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.is_set.store(true, Ordering::Release);
        Ok(())
    }
}

/// Locks; a poisoned lock is used anyway, because no code under these locks leaves inconsistent state after a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits on `condition`, at most `timeout` (loom has no time: there it waits until notified).
pub(crate) fn wait<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    #[cfg(not(flagcx_p2p_loom))]
    return condition.wait_timeout(guard, timeout).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
    #[cfg(flagcx_p2p_loom)]
    {
        let _ = timeout;
        condition.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
