//! Signals at every thread of this process, as a profiler sends them.
#![allow(unsafe_code, reason = "installs a signal handler and sends signals to threads")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Signals that the handler has seen, in all threads.
static DELIVERED: AtomicU64 = AtomicU64::new(0);

/// Sends SIGPROF to each thread of the process, over and over, until it is dropped. The handler is installed without
/// SA_RESTART: calls that can be interrupted are.
pub struct Storm {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storm {
    /// Each thread gets a signal about every `interval`.
    pub fn begin(interval: Duration) -> Self {
        install_handler();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                strike_all();
                std::thread::sleep(interval);
            }
        });
        Self { over, thread: Some(thread) }
    }

    /// Signals that were handled in this process so far.
    pub fn delivered() -> u64 {
        DELIVERED.load(Ordering::Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

extern "C" fn count(_signal: libc::c_int) {
    DELIVERED.fetch_add(1, Ordering::Relaxed);
}

fn install_handler() {
    // SAFETY: all zeroes is an action without flags (no SA_RESTART) and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the action is whole, and its handler does nothing but add to an atomic.
    assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()) }, 0);
}

fn strike_all() {
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let thread: Option<i32> = task.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = thread.filter(|thread| *thread != own) {
            // SAFETY: a signal with a handler; for a thread that has ended the call only fails.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGPROF) };
        }
    }
}
