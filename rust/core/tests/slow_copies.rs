//! Transfers that the calling thread copies: on each path those that take longer than a millisecond are counted as slow, each of the 8,192 after
//! a pause or a slow one, and no other.
#![allow(unsafe_code, reason = "installs a signal handler and sends signals to a thread")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod forking_peer;
#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{Value, metrics, registry};
use flagcx_p2p::internals::transfer::{Iov, LONGEST_DIRECT, TransferId};
use forking_peer::{LENGTH, Peer};
use support::Pair;

/// How often the copying thread of each path is held up while copies are timed, and for how long.
const HOLDS: u64 = 60;
const HELD: Duration = Duration::from_millis(3);

/// At least one of so many times the thread is in a copy, and not in the rest of the call, which no compiler has optimised here: one of 1.5 where copies are
/// quick. If only one copy in 16 was timed, it would be one of 24.
const IN_COPY: u64 = 4;

/// Fewer copies than that after a slow one, each is timed: 8,192, and some that are made while a signal is under way.
const TIMED: u64 = 7000;

/// Tests that compare the count before and after, one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Times that the thread was held up so far.
static HELD_UP: AtomicU64 = AtomicU64::new(0);

#[test]
fn copies_that_are_held_up_soon_after_another_are_counted() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    install_handler();
    // The longest that is copied in the call, so that most signals find the thread in a copy.
    let length = LENGTH as u64;
    assert_eq!(length, LONGEST_DIRECT);
    let pair = Pair::with(LENGTH, &[("FLAGCX_P2P_PATH", "in-process")]);
    hold_up("in-process", &pair.here, pair.iov(0, 0, length));
    for path in ["cross-memory", "shared"] {
        let settings = [("FLAGCX_P2P_PATH", path)];
        let (mut peer, engine) = (Peer::start(&settings), support::engine(&settings));
        let source = engine.allocate(LENGTH).unwrap();
        let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
        let remote = here.describe_remote(peer.address, length as u32).unwrap();
        let iov = Iov { local: source.address(), length, region: Some(source.region()), remote };
        hold_up(path, &here, iov);
        peer.kill();
    }
}

/// Copies without a pause, while another thread now and then holds the copying one up.
fn hold_up(path: &str, here: &Connection, iov: Iov) {
    support::eventually("a direct copy", || here.submit(Opcode::Write, &[iov]) == Ok(TransferId::COMPLETE));
    let (before, over) = (slow(), AtomicBool::new(false));
    let (thread, made) = (AtomicU64::new(0), AtomicU64::new(0));
    let (mut held, mut required) = (0, 0);
    let copies = std::thread::scope(|scope| {
        let copying = scope.spawn(|| {
            thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u64, Ordering::Release);
            while !over.load(Ordering::Relaxed) {
                assert_eq!(here.submit(Opcode::Write, &[iov]), Ok(TransferId::COMPLETE));
                made.fetch_add(1, Ordering::Release);
            }
        });
        support::eventually("it copies", || thread.load(Ordering::Acquire) != 0);
        // After long rows without a pause, when few copies are timed, and shortly after a slow one.
        for pause in [80, 1, 1, 1, 1, 1, 1].into_iter().cycle() {
            let since = made.load(Ordering::Acquire);
            std::thread::sleep(Duration::from_millis(pause));
            let before = HELD_UP.load(Ordering::Acquire);
            signal(thread.load(Ordering::Acquire));
            support::eventually("it goes on", || HELD_UP.load(Ordering::Acquire) > before);
            required += u64::from(held > 0 && made.load(Ordering::Acquire) - since < TIMED);
            held += 1;
            if required == HOLDS {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        copying.join().unwrap();
        made.load(Ordering::Relaxed)
    });
    let counted = slow() - before;
    println!("{path}: {counted} slow ones of {copies}, {held} held up, {required} of them timed");
    assert!(counted >= required / IN_COPY, "{path}: {counted} of {required}");
}

/// A program that makes long rows of copies and pauses between them: what is slow is the program, and no copy.
#[test]
fn a_pause_between_quick_copies_counts_none() {
    const PAUSES: u64 = 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::with(LENGTH, &[("FLAGCX_P2P_PATH", "in-process")]);
    let iov = pair.iov(0, 0, 4096);
    support::eventually("a direct copy", || {
        pair.here.submit(Opcode::Write, &[iov]) == Ok(TransferId::COMPLETE)
    });
    let (before, interrupted) = (slow(), interruptions());
    for _ in 0..PAUSES {
        for _ in 0..20_000 {
            assert_eq!(pair.here.submit(Opcode::Write, &[iov]), Ok(TransferId::COMPLETE));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (counted, interrupted) = (slow() - before, interruptions() - interrupted);
    println!("{counted} slow ones, {interrupted} interruptions, {PAUSES} pauses");
    // A copy that another process interrupts is slow; on a virtual machine also some that nothing in it interrupts.
    assert!(counted <= interrupted + PAUSES / 2, "{counted}, {interrupted} interruptions");
}

/// How often this thread has lost its processor.
fn interruptions() -> u64 {
    // SAFETY: all zeroes is a value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: it lives, and the call only writes it.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_nivcsw as u64
}

fn slow() -> u64 {
    let number = |value: &Value| if let Value::Number(number) = value { *number } else { 0 };
    registry().snapshot().of(&metrics::SLOW).map(|sample| number(&sample.value)).sum()
}

extern "C" fn hold(_signal: libc::c_int) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: HELD.as_nanos() as i64 };
    // SAFETY: the time is whole; a handler may call this.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
    HELD_UP.fetch_add(1, Ordering::Release);
}

fn install_handler() {
    // SAFETY: all zeroes is an action without flags and with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = hold as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the action is whole, and its handler calls only what a handler may.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
}

fn signal(thread: u64) {
    // SAFETY: a signal with a handler, for a thread of this process.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread as i32, libc::SIGUSR1) };
    assert_eq!(answer, 0);
}

/// Plays the peer of the test above.
#[test]
fn peer_process() {
    forking_peer::play();
}
