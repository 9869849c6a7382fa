//! The one place that atomics and locks of lock-free code come from: std, or loom's models under `--cfg loom`.

use std::time::Duration;

#[cfg(loom)]
#[allow(unused_imports, reason = "models use more than the code that they model")]
pub(crate) use loom::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
};

/// Locks; a poisoned lock is taken over, since no code of ours leaves broken state behind a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits on `condition`, at most `timeout` (loom has no time: there it waits until notified).
pub(crate) fn wait<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: Duration,
) -> MutexGuard<'a, T> {
    #[cfg(not(loom))]
    return condition.wait_timeout(guard, timeout).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
    #[cfg(loom)]
    {
        let _ = timeout;
        condition.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
