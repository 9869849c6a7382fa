//! What the engine allocates: nothing per slice once it is warm, and little for what waits. Over the stand-in libibverbs.
#![cfg(feature = "verbs")]
#![allow(unsafe_code, reason = "a counting allocator")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod nullverbs;
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, Opcode, verbs};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};
use nullverbs::Standin;
use support::{Pair, config};

/// The system's allocator, counted. Written by every thread, read by the test between its phases: Relaxed.
struct Counted;
static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const PIECE: u64 = 4096;
const BUFFER: usize = 64 << 20;

/// A connection with so many rails.
fn pair(standin: &Standin, rails: usize) -> Pair {
    let most = rails.to_string();
    let config = config(&[
        ("FLAGCX_P2P_BIND", "127.0.0.1"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "0"),
        ("FLAGCX_P2P_RAILS", &most),
    ]);
    let devices = Some(Arc::new(DeviceList::of(verbs::open(&standin.options()).unwrap())));
    let engine = || {
        let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
        Engine::open(Arc::clone(&config), options).unwrap()
    };
    let pair = Pair::between(engine(), engine(), BUFFER);
    support::eventually("all rails are up", || {
        pair.here.add_rails_now();
        pair.here.rails().iter().filter(|rail| rail.status == RailStatus::Up).count() == rails
    });
    // Those of a further rail are made when it is used.
    let iovs = pieces(&pair, 4096);
    support::eventually("all lanes are made", || {
        drive(&pair, &iovs, &mut [TransferId::COMPLETE], 2);
        let lanes: Vec<_> = pair.here.rails().iter().map(|rail| rail.healthy_lanes).collect();
        lanes[1..].iter().all(|further| *further > lanes[0])
    });
    pair
}

/// Pieces that do not touch, so that each is a request.
fn pieces(pair: &Pair, count: u64) -> Vec<Iov> {
    let places = BUFFER as u64 / (PIECE + 64);
    (0..count).map(|n| n % places * (PIECE + 64)).map(|at| pair.iov(at, at, PIECE)).collect()
}

/// `rounds` times: each of `ids` is waited for and begun anew.
fn drive(pair: &Pair, iovs: &[Iov], ids: &mut [TransferId], rounds: usize) {
    for _ in 0..rounds {
        for id in &mut *ids {
            loop {
                match pair.here.status(*id) {
                    Status::Pending => {}
                    Status::Ended(Outcome::Done) => break,
                    other => panic!("{other:?}"),
                }
            }
            *id = pair.here.submit(Opcode::Write, iovs).unwrap();
        }
    }
}

/// Pieces of a transfer, transfers in flight, rounds of them.
const LOADS: [(u64, usize, usize); 5] =
    [(4096, 8, 50), (1024, 1, 50), (64, 1, 500), (1, 8, 2000), (1, 1, 20_000)];

/// How often memory is allocated once all is warm, and in how many slices.
fn allocations(pair: &Pair, count: u64, in_flight: usize, rounds: usize) -> (u64, u64) {
    let iovs = pieces(pair, count);
    let mut ids = vec![TransferId::COMPLETE; in_flight];
    drive(pair, &iovs, &mut ids, 100);
    let before = CALLS.load(Ordering::Relaxed);
    drive(pair, &iovs, &mut ids, rounds);
    let calls = CALLS.load(Ordering::Relaxed) - before;
    drive(pair, &iovs, &mut ids, 1);
    let slices = count * in_flight as u64 * rounds as u64;
    println!("{count} x {in_flight}: {calls} allocations in {slices} slices");
    (calls, slices)
}

/// A transfer over several rails has a few vectors, of its parts; the lists of requests are those of earlier transfers.
fn several_rails_keep_their_lists(pair: &Pair) {
    for (count, in_flight, rounds) in LOADS {
        let (calls, slices) = allocations(pair, count, in_flight, rounds);
        let transfers = (in_flight * rounds) as u64;
        assert!(
            calls < 10 + 8 * transfers,
            "{calls} allocations in {transfers} transfers, {slices} slices of {count} x {in_flight}"
        );
    }
}

/// One test, so that nothing else allocates meanwhile.
#[test]
fn nothing_is_allocated_per_slice_and_little_for_what_waits() {
    let standin = Standin::new(&[("copy", 0), ("devs", 2)]);
    several_rails_keep_their_lists(&pair(&standin, 2));
    let pair = pair(&standin, 1);
    for (count, in_flight, rounds) in LOADS {
        let (calls, slices) = allocations(&pair, count, in_flight, rounds);
        // Now and then two threads meet, and one of them needs a list that is new or has to grow: rare, and not per slice.
        assert!(
            calls < 10 + slices / 10_000,
            "{calls} allocations in {slices} slices of {count} x {in_flight}"
        );
    }

    // Completions that do not come: all of it waits.
    standin.set("delay_ns", 3_000_000_000);
    let iovs = pieces(&pair, 1 << 18);
    let before = BYTES.load(Ordering::Relaxed);
    let ids: Vec<_> = (0..4).map(|_| pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap()).collect();
    let held = (BYTES.load(Ordering::Relaxed) - before) as f64 / (4 << 18) as f64;
    println!("{held:.1} bytes per waiting slice");
    assert!((33.0..200.0).contains(&held), "{held} bytes per waiting slice");
    standin.set("delay_ns", 0);
    for id in ids {
        assert_eq!(support::outcome(&pair.here, id), Outcome::Done);
    }
    let left = BYTES.load(Ordering::Relaxed) - before;
    assert!(left < 64 << 20, "{left} bytes are kept for reuse");
}
