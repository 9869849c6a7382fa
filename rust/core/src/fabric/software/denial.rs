//! System calls that a sandbox forbids: which errors say so, which directions of a copy are concerned, and one line in the
//! log for each.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use crate::fabric::{FabricError, Opcode};
use crate::fork::PerProcess;
use crate::observe::report;

/// Whether the system forbids a call, or does not have it, rather than fails to do what was asked.
pub(super) fn is_denial(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::ACCESS | Errno::NOSYS)
}

/// Says once in this process that `call` is denied for `reason`, and what comes of it.
pub(super) fn tell(call: &'static str, reason: &str, consequence: &str) {
    static TOLD: PerProcess<Mutex<BTreeSet<(&'static str, String)>>> = PerProcess::new(Mutex::default);
    if TOLD.get().lock().unwrap_or_else(PoisonError::into_inner).insert((call, reason.to_owned())) {
        report!(warn, PathDenied, "{call} is denied ({reason}): {consequence}. {}", advice(call));
    }
}

fn advice(call: &str) -> &'static str {
    match call {
        "process_vm_readv" | "process_vm_writev" | "process_vm_readv/writev" => {
            "Allow it in the container's seccomp profile, run both processes as the same user, and see \
             kernel.yama.ptrace_scope"
        }
        _ => "Allow it in the container's seccomp profile",
    }
}

/// `operation` on `device` has failed, and nothing replaces it.
pub(super) fn failure(operation: &'static str, device: &str, error: &io::Error) -> FabricError {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let failure = FabricError::call(operation, device, errno);
    match is_denial(Errno::from_raw_os_error(errno)) {
        true => failure.with_hint(NEEDED),
        false => failure,
    }
}

const NEEDED: &str = "a sandbox denies a system call: allow epoll_create1, eventfd2, getrandom and timerfd_create in its \
                      seccomp profile";

/// The call that carries requests of `opcode` between two processes.
pub(super) fn call_of(opcode: Opcode) -> &'static str {
    match opcode {
        Opcode::Read => "process_vm_readv",
        Opcode::Write => "process_vm_writev",
    }
}

/// The directions of a link that its kernel denies.
#[derive(Debug, Default)]
pub(super) struct Denied {
    /// A bit for each direction. Set by the thread that connects or by one that polls, and never cleared; read by those that
    /// poll. Relaxed: nothing else goes with it, and a thread that does not see it yet is denied by the kernel itself.
    directions: AtomicU8,
}

impl Denied {
    /// From now on requests of `opcode` take another path.
    pub(super) fn deny(&self, opcode: Opcode) {
        self.directions.fetch_or(bit(opcode), Ordering::Relaxed);
    }

    /// Whether requests of `opcode` take another path.
    pub(super) fn is_denied(&self, opcode: Opcode) -> bool {
        self.directions.load(Ordering::Relaxed) & bit(opcode) != 0
    }

    /// Whether a direction is denied.
    pub(super) fn any(&self) -> bool {
        self.directions.load(Ordering::Relaxed) != 0
    }
}

fn bit(opcode: Opcode) -> u8 {
    match opcode {
        Opcode::Read => 1,
        Opcode::Write => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_is_denied_alone() {
        let denied = Denied::default();
        assert!(!denied.any());
        denied.deny(Opcode::Write);
        assert!(denied.any() && denied.is_denied(Opcode::Write) && !denied.is_denied(Opcode::Read));
        denied.deny(Opcode::Read);
        assert!(denied.is_denied(Opcode::Read));
    }
}
