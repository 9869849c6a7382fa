//! Makes system calls of this process fail, for good, as a sandbox does.
#![allow(unsafe_code, reason = "installs a filter of system calls")]

use std::io;

/// From now on each of `calls` answers `errno`, in every thread of this process and in the processes that it starts.
pub fn deny(calls: &[&str], errno: i32) {
    install(calls, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// From now on each of `calls` raises SIGSYS in the calling thread, except where the call comes from `exempt`.
pub fn trap(calls: &[&str], exempt: std::ops::Range<u64>) {
    let (low, high) = (exempt.start as u32, exempt.end as u32);
    assert_eq!(exempt.start >> 32, exempt.end >> 32);
    let mut filter = vec![
        load(INSTRUCTION_POINTER + 4),
        jump(libc::BPF_JEQ, (exempt.start >> 32) as u32, 0, 4),
        load(INSTRUCTION_POINTER),
        jump(libc::BPF_JGE, low, 0, 2),
        jump(libc::BPF_JGE, high, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    filter.extend(of_calls(calls, libc::SECCOMP_RET_TRAP));
    set(&filter);
}

fn install(calls: &[&str], verdict: u32) {
    set(&of_calls(calls, verdict));
}

/// Offsets in `struct seccomp_data`, little-endian.
const NUMBER: u32 = 0;
const INSTRUCTION_POINTER: u32 = 8;

fn of_calls(calls: &[&str], verdict: u32) -> Vec<libc::sock_filter> {
    let mut filter = vec![load(NUMBER)];
    for number in calls.iter().map(|call| number(call)) {
        filter.push(jump(libc::BPF_JEQ, number, 0, 1));
        filter.push(answer(verdict));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    filter
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump(test: u32, value: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, value, then, otherwise)
}

fn answer(verdict: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, verdict, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn set(filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: numbers only.
    let promised = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(promised, 0, "{}", io::Error::last_os_error());
    // SAFETY: the program is valid for the call, which copies it.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    assert_eq!(installed, 0, "no filter: {}", io::Error::last_os_error());
}

fn number(call: &str) -> u32 {
    let number = match call {
        "accept4" => libc::SYS_accept4,
        "connect" => libc::SYS_connect,
        "epoll_create1" => libc::SYS_epoll_create1,
        "eventfd2" => libc::SYS_eventfd2,
        "epoll_pwait" => libc::SYS_epoll_pwait,
        "ftruncate" => libc::SYS_ftruncate,
        "getrandom" => libc::SYS_getrandom,
        "memfd_create" => libc::SYS_memfd_create,
        "mincore" => libc::SYS_mincore,
        "openat" => libc::SYS_openat,
        "pidfd_open" => libc::SYS_pidfd_open,
        #[cfg(target_arch = "x86_64")]
        "poll" => libc::SYS_poll,
        "ppoll" => libc::SYS_ppoll,
        "process_vm_readv" => libc::SYS_process_vm_readv,
        "process_vm_writev" => libc::SYS_process_vm_writev,
        "read" => libc::SYS_read,
        "recvfrom" => libc::SYS_recvfrom,
        "recvmsg" => libc::SYS_recvmsg,
        "sendmsg" => libc::SYS_sendmsg,
        "sendto" => libc::SYS_sendto,
        "timerfd_create" => libc::SYS_timerfd_create,
        "timerfd_settime" => libc::SYS_timerfd_settime,
        other => panic!("no number for {other}"),
    };
    number as u32
}
