//! Interrupts system calls for certain, where signals only do so by chance: every other call answers EINTR.
#![allow(unsafe_code, reason = "carries out system calls in a signal handler")]
#![cfg(target_arch = "x86_64")]

use std::arch::global_asm;
use std::sync::atomic::{AtomicU64, Ordering};

use super::seccomp;

/// Calls that were answered so.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

/// What signals can interrupt, of the calls that this engine makes, and more: a call that answers EINTR on one system and
/// never on another. Not `write`: those to an eventfd, which never wait, are other libraries' as well, and they rely on that.
const CALLS: &[&str] = &[
    "accept4",
    "connect",
    "epoll_pwait",
    "ftruncate",
    "getrandom",
    "memfd_create",
    "mincore",
    "openat",
    "pidfd_open",
    "poll",
    "ppoll",
    "process_vm_readv",
    "process_vm_writev",
    "read",
    "recvfrom",
    "recvmsg",
    "sendmsg",
    "sendto",
    "timerfd_settime",
];

/// From now on about every other of these calls of this process is interrupted: nothing was done, except that a `connect`
/// goes on in the kernel, as it does.
pub fn begin() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::ucontext_t) = answer;
    // SAFETY: all zeroes is an action with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: the handler reads and writes what the kernel hands it, and makes one system call.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) }, 0);
    let (from, to) = (test_system_call as *const () as u64, test_system_call_end as *const () as u64);
    seccomp::trap(CALLS, from..to);
}

/// How many calls were interrupted so far.
pub fn count() -> u64 {
    INTERRUPTED.load(Ordering::Relaxed)
}

extern "C" fn answer(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands the handler the registers of the thread that made the call.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let of = |register: libc::c_int| registers[register as usize];
    let number = of(libc::REG_RAX);
    let arguments =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9].map(of);
    let call = || {
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the very call that the thread has made.
        unsafe { test_system_call(number, a, b, c, d, e, f) }
    };
    let result = if is_interrupted() {
        INTERRUPTED.fetch_add(1, Ordering::Relaxed);
        if number == libc::SYS_connect {
            call();
        }
        i64::from(-libc::EINTR)
    } else {
        call()
    };
    registers[libc::REG_RAX as usize] = result;
}

/// True for about half of the calls, in no order that a loop could fall into step with.
fn is_interrupted() -> bool {
    static STATE: AtomicU64 = AtomicU64::new(1);
    let turn = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    (turn ^ turn >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 == 1
}

unsafe extern "C" {
    /// A system call from a known place: number and six arguments.
    fn test_system_call(number: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> i64;
    fn test_system_call_end();
}

global_asm!(
    ".globl test_system_call",
    "test_system_call:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    "ret",
    ".globl test_system_call_end",
    "test_system_call_end:",
    "ret",
);
