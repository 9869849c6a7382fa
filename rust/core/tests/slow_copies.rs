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

/// How many copies are held up on each path that must be counted, and for how long.
const HOLDS: u64 = 30;
const HELD: Duration = Duration::from_millis(3);

/// Fewer copies than that after a slow one, each is timed: 8,192, and some that are made while a signal is under way.
const TIMED: u64 = 7000;

/// Tests that compare the count before and after, one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Times that the thread was held up so far.
static HELD_UP: AtomicU64 = AtomicU64::new(0);

/// Of these, how often in the C library: in a copy, for the rest of a call is code of this program.
static IN_COPY: AtomicU64 = AtomicU64::new(0);

/// Where the code of the C library begins and ends.
static LIBRARY: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

#[test]
fn each_copy_that_is_held_up_soon_after_another_is_counted() {
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
        for pause in [80, 1, 1, 1].into_iter().cycle() {
            let since = made.load(Ordering::Acquire);
            std::thread::sleep(Duration::from_millis(pause));
            let (before, in_copy) = (HELD_UP.load(Ordering::Acquire), IN_COPY.load(Ordering::Acquire));
            signal(thread.load(Ordering::Acquire));
            support::eventually("it goes on", || HELD_UP.load(Ordering::Acquire) > before);
            let is_in_copy = IN_COPY.load(Ordering::Acquire) > in_copy;
            required += u64::from(is_in_copy && held > 0 && made.load(Ordering::Acquire) - since < TIMED);
            held += 1;
            assert!(held < 20 * HOLDS, "{path}: few signals find the thread in a copy");
            if required == HOLDS {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        copying.join().unwrap();
        made.load(Ordering::Relaxed)
    });
    let counted = slow() - before;
    println!(
        "{path}: {counted} slow ones of {copies}, {held} held up, {required} of them in a copy that is timed"
    );
    assert!(counted >= required * 8 / 10, "{path}: {counted} of {required}");
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

extern "C" fn hold(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands it to a handler that is installed with SA_SIGINFO.
    let at = interrupted_at(unsafe { &*context.cast::<libc::ucontext_t>() });
    let [begin, end] = LIBRARY.each_ref().map(|bound| bound.load(Ordering::Relaxed));
    IN_COPY.fetch_add(u64::from((begin..end).contains(&at)), Ordering::Release);
    let time = libc::timespec { tv_sec: 0, tv_nsec: HELD.as_nanos() as i64 };
    // SAFETY: the time is whole; a handler may call this.
    unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
    HELD_UP.fetch_add(1, Ordering::Release);
}

/// The instruction at which the thread was interrupted.
fn interrupted_at(context: &libc::ucontext_t) -> u64 {
    #[cfg(target_arch = "x86_64")]
    return context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64;
    #[cfg(target_arch = "aarch64")]
    return context.uc_mcontext.pc;
}

/// Finds the code of the C library: the mapping with its memcpy.
fn find_library() {
    // SAFETY: the name ends with a zero; the answer is only compared.
    let copy = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"memcpy".as_ptr()) } as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let bounds = maps.lines().filter_map(|line| line.split_once(' ')?.0.split_once('-'));
    let mut bounds = bounds.map(|(begin, end)| [begin, end].map(|at| u64::from_str_radix(at, 16).unwrap()));
    let found = bounds.find(|[begin, end]| (*begin..*end).contains(&copy)).expect("memcpy is mapped");
    LIBRARY.iter().zip(found).for_each(|(bound, at)| bound.store(at, Ordering::Relaxed));
}

fn install_handler() {
    find_library();
    // SAFETY: all zeroes is an action with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = hold;
    (action.sa_sigaction, action.sa_flags) = (handler as libc::sighandler_t, libc::SA_SIGINFO);
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
