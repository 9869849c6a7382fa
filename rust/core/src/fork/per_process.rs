//! What there is one of in a process.
#![allow(unsafe_code, reason = "hands out references to what a process keeps for ever")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::ProcessGeneration;

/// A static of which a forked child has one of its own, made when it is first needed. That of the parent is never touched
/// in the child, whose copy of it may be locked or half changed; it is kept, so that leak checkers still find it.
#[derive(Debug)]
pub struct PerProcess<T: 'static> {
    /// The newest. Stored by the thread that made it (Release), read by all (Acquire); never freed.
    held: AtomicPtr<Instance<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Instance<T> {
    generation: ProcessGeneration,
    value: T,
    /// That of the parent.
    _former: *const Self,
}

impl<T: Sync> PerProcess<T> {
    /// One that `make` makes in each process. Two threads may both call it at the first use; the process keeps one value. So
    /// it must do nothing but make a value: what is done once goes into a `OnceCell` in here.
    pub const fn new(make: fn() -> T) -> Self {
        Self { held: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// That of this process. Waits for nothing.
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
