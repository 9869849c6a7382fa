//! Loading of libraries apart from forks: after a fork during a `dlopen` the loader's tables are half changed in the
//! child, where the next `dlopen` crashes. Covers only the loads of this library, not those of the program.
#![allow(unsafe_code, reason = "a lock of the C library, which is held across fork")]

use std::cell::UnsafeCell;

/// A pthread mutex, because Rust's cannot be locked in one function and unlocked in another.
struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: only functions of the C library access it, except in the child of a fork, which has one thread.
unsafe impl Sync for Lock {}

/// Recursive: a constructor of the loaded library may fork on the loading thread.
const UNLOCKED: libc::pthread_mutex_t = libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
/// Limit in seconds for a fork that waits for a load, which takes milliseconds.
const LONGEST_LOAD: libc::time_t = 1;
static LOADING: Lock = Lock(UnsafeCell::new(UNLOCKED));

/// Runs `load`, which calls `dlopen`, while no thread of this process is inside `fork`.
pub(crate) fn load_apart_from_forks<T>(load: impl FnOnce() -> T) -> T {
    struct Unlock;
    impl Drop for Unlock {
        fn drop(&mut self) {
            after_fork();
        }
    }
    // SAFETY: a mutex that is never destroyed.
    let _ = unsafe { libc::pthread_mutex_lock(LOADING.0.get()) };
    let _unlock = Unlock;
    load()
}

/// For `pthread_atfork`, in the thread that forks: waits for loads, and blocks new ones.
///
/// With a limit: a load waits for the loader's own lock, and the thread that holds it may be the one that forks, or
/// wait for it (glibc before 2.36 registers handlers under a lock that a fork holds).
pub(super) extern "C" fn before_fork() {
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a mutex that is never destroyed, and a time of this function.
    unsafe {
        let _ = libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut until);
        until.tv_sec += LONGEST_LOAD;
        let _ = libc::pthread_mutex_timedlock(LOADING.0.get(), &raw const until);
    }
}

/// In the parent, after the fork.
pub(super) extern "C" fn after_fork() {
    // SAFETY: as above; it fails if this thread does not hold the lock.
    let _ = unsafe { libc::pthread_mutex_unlock(LOADING.0.get()) };
}

/// In the child: its thread has another id than the one that locked the mutex.
pub(super) fn renew_in_child() {
    // SAFETY: the child has no other thread.
    unsafe { *LOADING.0.get() = UNLOCKED };
}
