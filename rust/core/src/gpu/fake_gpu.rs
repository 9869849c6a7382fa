//! The GPU behind the runtimes' tests: what it holds, and what goes wrong. `table/tests.rs` plays a host program's callbacks
//! over it, `cuda/tests.rs` the driver's functions.
#![allow(unsafe_code, reason = "plays the C side")]

use std::cell::RefCell;
use std::ffi::c_int;

/// Where its memory seems to be: addresses that no CPU may touch.
pub(super) const GPU: u64 = 0x7f00_0000_0000;
pub(super) const GPU_BYTES: usize = 4096;

/// The GPU of this thread; each test runs on a thread of its own.
#[derive(Debug)]
pub(super) struct FakeGpu {
    pub(super) memory: Vec<u8>,
    /// The GPU or the context that is current for the thread.
    pub(super) current: u64,
    /// What must be current when streams are used, if the test says so.
    pub(super) wanted: Option<u64>,
    /// The call that fails, by name.
    pub(super) fails: &'static str,
    /// Queries that answer "still running".
    pub(super) running: u32,
    /// What queries answer instead, unless 0.
    pub(super) query_fails: c_int,
    /// Streams, events and handles that were made and not destroyed.
    pub(super) live_objects: i32,
}

thread_local! {
    static FAKE: RefCell<FakeGpu> = RefCell::new(FakeGpu {
        memory: vec![0; GPU_BYTES], current: 0, wanted: None, fails: "", running: 0, query_fails: 0, live_objects: 0,
    });
}

pub(super) fn gpu<T>(act: impl FnOnce(&mut FakeGpu) -> T) -> T {
    FAKE.with_borrow_mut(act)
}

/// What a call answers: `failure` if it is the one that fails.
pub(super) fn answer(name: &str, failure: c_int, act: impl FnOnce(&mut FakeGpu) -> c_int) -> c_int {
    gpu(|gpu| if gpu.fails == name { failure } else { act(gpu) })
}

impl FakeGpu {
    /// What an event answers: `still_running` as often as the test wants.
    pub(super) fn query(&mut self, still_running: c_int) -> c_int {
        match self.running {
            _ if self.query_fails != 0 => self.query_fails,
            0 => 0,
            _ => {
                self.running -= 1;
                still_running
            }
        }
    }
}

/// Gives `value` by an out parameter.
pub(super) fn out<T>(to: *mut T, value: T) -> c_int {
    // SAFETY: the runtimes under test give valid out parameters.
    unsafe { to.write(value) };
    0
}
