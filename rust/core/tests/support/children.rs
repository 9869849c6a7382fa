//! Children of `fork` in tests.
#![allow(unsafe_code, reason = "forks")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::DeviceList;
use flagcx_p2p::internals::transfer::{Opcode, Outcome};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::{LIMIT, Pair, config, content, outcome, pattern};

const BYTES: usize = 5000;

/// Runs `child` in a child process, which ends with status 0 unless it panics.
pub fn fork(child: impl FnOnce()) -> Pid {
    // SAFETY: the child uses what the engine promises to work in one, and of the standard library what has no locks that
    // other threads hold.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: touches no memory.
            unsafe { libc::alarm(150) };
            let ended = catch_unwind(AssertUnwindSafe(child));
            // SAFETY: ends the process, and runs nothing of the parent's.
            unsafe { libc::_exit(i32::from(ended.is_err())) }
        }
        pid => Pid::from_raw(pid).unwrap(),
    }
}

/// Waits for the end of a child, which must be a good one.
pub fn expect_success(pid: Pid) {
    // Devices of an emulated machine take seconds to open.
    let verbs = std::env::var("FLAGCX_P2P_FABRIC").is_ok_and(|fabric| fabric == "verbs");
    let limit = LIMIT * if verbs { 6 } else { 1 };
    let begun = Instant::now();
    loop {
        match waitpid(Some(pid), WaitOptions::NOHANG).unwrap() {
            Some((_, status)) => return assert_eq!(status.exit_status(), Some(0), "the child: {status:?}"),
            None if begun.elapsed() > limit => {
                let _ = kill_process(pid, Signal::KILL);
                panic!("the child has not ended after {limit:?}");
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Whether two engines of this process move bytes between them.
pub fn expect_pair_works(settings: &[(&str, &str)], devices: Option<Arc<DeviceList>>) {
    let open = || {
        let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
        Engine::open(config(settings), options).unwrap()
    };
    let pair = Pair::between(open(), open(), BYTES);
    assert!(pair.source.write(0, &pattern(4, BYTES)));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, BYTES as u64)]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert_eq!(content(&pair.target), pattern(4, BYTES));
}
