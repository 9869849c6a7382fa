//! Libraries are not loaded while the process forks: the loader's tables are then half changed in the child, where the next
//! `dlopen` ends by a signal. Only the loads of this library are kept apart from forks; those of the program are its own.
#![allow(unsafe_code, reason = "a lock of the C library, which is held across fork")]

use std::cell::UnsafeCell;

/// Not one of Rust's, which cannot be taken in one function and released in another.
struct Lock(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: only the functions of the C library touch it, but for the child of a fork, which has one thread.
unsafe impl Sync for Lock {}

/// Taken twice by a thread that forks while it loads: in a constructor of the library.
const UNLOCKED: libc::pthread_mutex_t = libc::PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
/// Seconds that a fork waits for a load, which takes milliseconds.
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

/// For `pthread_atfork`, in the thread that forks: waits for loads, and keeps others from beginning.
///
/// Not for ever: a load waits for the loader's own lock, and the thread that has it may be the one that forks, or wait for it
/// (glibc before 2.36 registers handlers under a lock that a fork holds).
pub(super) extern "C" fn before_fork() {
    let mut until = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a mutex that is never destroyed, and a time of this function.
    unsafe {
        let _ = libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut until);
        until.tv_sec += LONGEST_LOAD;
        let _ = libc::pthread_mutex_timedlock(LOADING.0.get(), &raw const until);
    }
}

/// In the parent, once the child is there.
pub(super) extern "C" fn after_fork() {
    // SAFETY: as above; without a lock of this thread's it is refused.
    let _ = unsafe { libc::pthread_mutex_unlock(LOADING.0.get()) };
}

/// In the child, whose thread has another id than the one that took the lock.
pub(super) fn renew_in_child() {
    // SAFETY: no other thread of the child is there.
    unsafe { *LOADING.0.get() = UNLOCKED };
}
