//! Values of which each process has its own.
#![allow(unsafe_code, reason = "hands out references to what a process keeps for ever")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::ProcessGeneration;

/// A static of which each forked child makes its own instance at first use. The child never accesses the parent's
/// instance, which may be locked or half changed in its copy, but keeps it reachable for leak checkers.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    /// The newest instance. Stored by the thread that made it (Release), read by all (Acquire); never freed.
    held: AtomicPtr<Instance<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Instance<T> {
    generation: ProcessGeneration,
    value: T,
    /// The instance of the parent.
    _former: *const Self,
}

impl<T: Sync> PerProcess<T> {
    /// An instance made by `make` in each process. Two threads may both call `make` at the first use, and one value
    /// is kept. So it must have no other effect: put one-time effects into a `OnceCell` inside.
    pub const fn new(make: fn() -> T) -> Self {
        Self { held: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// The instance of this process. Never blocks.
    #[inline]
    pub fn get(&'static self) -> &'static T {
        let held = self.held.load(Ordering::Acquire);
        // SAFETY: null, or stored by `begin` and never freed.
        match unsafe { held.as_ref() } {
            Some(held) if held.generation.is_current() => &held.value,
            _ => self.begin(),
        }
    }

    #[cold]
    fn begin(&'static self) -> &'static T {
        let generation = ProcessGeneration::current();
        let mut former = self.held.load(Ordering::Acquire);
        let made = Box::into_raw(Box::new(Instance { generation, value: (self.make)(), _former: former }));
        loop {
            // SAFETY: null, or stored below and never freed.
            if let Some(held) = unsafe { former.as_ref() }
                && held.generation.is_current()
            {
                // SAFETY: made above, and nothing has seen it.
                drop(unsafe { Box::from_raw(made) });
                return &held.value;
            }
            match self.held.compare_exchange(former, made, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: never freed from now on.
                Ok(_) => return unsafe { &(*made).value },
                Err(other) => former = other,
            }
        }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn all_threads_of_a_process_get_the_same_one() {
        static COUNT: PerProcess<Mutex<u32>> = PerProcess::new(Mutex::default);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| *COUNT.get().lock().unwrap() += 1);
            }
        });
        assert_eq!(*COUNT.get().lock().unwrap(), 8);
    }
}
