//! Small transfers of the software fabric, which the calling thread copies: what they promise is what other transfers promise.
#![allow(unsafe_code, reason = "registers memory by address")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod forking_peer;
#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use flagcx_p2p::internals::engine::RegisterOptions;
use flagcx_p2p::internals::fabric::{Access, Opcode};
use flagcx_p2p::internals::observe::{Value, metrics, registry};
use flagcx_p2p::internals::transfer::{
    Iov, LONGEST_DIRECT, Outcome, RemoteRange, Status, SubmitError, TransferId,
};
use forking_peer::{LENGTH, Peer};
use proptest::prelude::*;
use support::children::{expect_success, fork};
use support::{Pair, content, outcome, pattern};

const BYTES: usize = 256 << 10;
const PATHS: [&str; 2] = ["in-process", "cross-memory"];

fn pair(path: &str) -> Pair {
    Pair::with(BYTES, &[("FLAGCX_P2P_PATH", path)])
}

fn counted() -> (u64, u64) {
    let sum = |metric| {
        let snapshot = registry().snapshot();
        let number = |value: &Value| if let Value::Number(number) = value { *number } else { 0 };
        snapshot.of(metric).map(|sample| number(&sample.value)).sum()
    };
    (sum(&metrics::ENDED), sum(&metrics::ENDED_BYTES))
}

#[test]
fn small_transfers_end_in_the_call_and_are_counted() {
    for path in PATHS {
        let pair = pair(path);
        let bytes = pattern(1, BYTES);
        assert!(pair.source.write(0, &bytes));
        let longest = LONGEST_DIRECT;
        for (length, ends) in [(1, true), (longest, true), (longest + 1, false)] {
            let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, length)]).unwrap();
            assert_eq!(id == TransferId::COMPLETE, ends, "{path}, {length} bytes");
            assert_eq!(outcome(&pair.here, id), Outcome::Done);
            assert_eq!(content(&pair.target)[..length as usize], bytes[..length as usize]);
        }
        let id = pair.here.try_submit(Opcode::Read, &[pair.iov(9, 1, 4096)]).unwrap();
        assert_eq!(id, TransferId::COMPLETE);
        let mut read = [0; 4096];
        assert!(pair.source.read(9, &mut read));
        assert_eq!(read, bytes[1..4097]);
        let (transfers, moved) = counted();
        assert!(transfers >= 4 && moved >= 1 + 2 * longest + 1 + 4096, "{transfers} of {moved} bytes");
    }
}

/// What the id of such a transfer answers, however it is asked about.
#[test]
fn the_id_of_a_transfer_that_ended_in_the_call_is_known_everywhere() {
    let pair = pair("in-process");
    let iov = [pair.iov(0, 0, 64)];
    let id = pair.here.submit(Opcode::Write, &iov).unwrap();
    assert_eq!(id, TransferId::COMPLETE);
    assert_eq!(pair.here.status(id), Status::Ended(Outcome::Done));
    assert_eq!(pair.here.wait(id, support::LIMIT), Status::Ended(Outcome::Done));
    assert!(pair.here.has_ended(id) && pair.here.cancel(id));
    let mut ended = [None];
    assert_eq!(pair.here.test_batch(&[id], &mut ended), 1);
    assert_eq!(ended, [Some(Status::Ended(Outcome::Done))]);
    assert_eq!(pair.here.submit_and_wait(Opcode::Write, &iov), Ok(()));
    let transfer = pair.here.transfer(Opcode::Read, &iov).unwrap();
    assert_eq!(futures_lite::future::block_on(transfer), Outcome::Done);
    // A queue tells its transfers apart by their ids.
    let queue = pair.client.ended().unwrap();
    let [one, other] = [0; 2].map(|_| pair.here.try_submit_to(&queue, Opcode::Write, &iov).unwrap());
    assert!(one != other && one != TransferId::COMPLETE && other != TransferId::COMPLETE);
    let mut taken = Vec::new();
    support::eventually("both have ended", || {
        queue.take_ended(&mut taken);
        taken.len() == 2
    });
}

/// What is not plainly possible is told as it would be of a large transfer.
/// The thread that forks counts where no other does. In the child it goes on without that place, and no two threads get the same.
#[test]
fn a_child_of_a_thread_that_copies_counts_each_copy() {
    const COPIES: u64 = 20_000;
    let copy = |pair: &Pair| {
        let iov = pair.iov(0, 0, 8);
        (0..COPIES)
            .for_each(|_| assert_eq!(pair.here.submit(Opcode::Write, &[iov]), Ok(TransferId::COMPLETE)));
    };
    let inherited = pair("in-process");
    copy(&inherited);
    let child = fork(|| {
        let own = pair("in-process");
        let before = counted().0;
        for _ in 0..3 {
            std::thread::scope(|scope| {
                (0..2).for_each(|_| drop(scope.spawn(|| copy(&own))));
                copy(&own);
            });
        }
        assert_eq!(counted().0 - before, 9 * COPIES);
    });
    expect_success(child);
    let before = counted().0;
    copy(&inherited);
    assert!(counted().0 - before >= COPIES);
}

#[test]
fn what_is_refused_or_fails_is_told_as_ever() {
    for path in PATHS {
        let pair = pair(path);
        let good = pair.iov(0, 0, 4096);
        let submit = |opcode, iov: Iov| pair.here.submit(opcode, &[iov]);
        let at = |address| RemoteRange { address, ..good.remote };
        let end = pair.target.address() + BYTES as u64;
        let refused = [
            Iov { local: 0x1000, ..good },
            Iov { local: 0x1000, region: None, ..good },
            Iov { remote: at(end - 4095), ..good },
            Iov { length: 4097, ..good },
        ];
        for (index, iov) in refused.into_iter().enumerate() {
            let error = submit(Opcode::Write, iov).unwrap_err();
            let is_local = matches!(error, SubmitError::Local { .. });
            assert!(is_local == (index < 2) && (is_local || matches!(error, SubmitError::Remote { .. })));
        }
        assert_eq!(pair.here.submit(Opcode::Write, &[][..]), Err(SubmitError::Empty));
        // Read-only memory, at either end.
        let constant = vec![7_u8; 8192];
        let read_only = |engine: &flagcx_p2p::internals::engine::Engine| {
            let address = constant.as_ptr().expose_provenance() as u64;
            let options = RegisterOptions { access: Access::READ_ONLY, ..RegisterOptions::default() };
            // SAFETY: mapped until it is deregistered below.
            (address, unsafe { engine.register(address, 8192, options) }.unwrap())
        };
        let ((local, here), (address, there)) = (read_only(&pair.client), read_only(&pair.server));
        let local = Iov { local, region: Some(here), ..good };
        assert!(matches!(submit(Opcode::Read, local), Err(SubmitError::Local { .. })));
        assert_eq!(submit(Opcode::Write, local), Ok(TransferId::COMPLETE));
        let remote = pair.here.describe_remote(address, 4096).unwrap();
        assert!(matches!(submit(Opcode::Write, Iov { remote, ..good }), Err(SubmitError::Remote { .. })));
        assert_eq!(submit(Opcode::Read, Iov { remote, ..good }), Ok(TransferId::COMPLETE));
        assert!(pair.client.deregister(here) && pair.server.deregister(there));
        assert!(matches!(submit(Opcode::Write, local), Err(SubmitError::Local { .. })));
        // The peer may not have been told yet; then the fabric finds that the key is gone.
        let gone = submit(Opcode::Read, Iov { remote, ..good });
        let ended = gone.map(|id| outcome(&pair.here, id));
        assert!(matches!(ended, Err(SubmitError::Remote { .. }) | Ok(Outcome::Failed(_))), "{ended:?}");
        // A key that no region has, which breaks the lane: small transfers go on.
        let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
        let id = submit(Opcode::Write, wrong).unwrap();
        assert!(matches!(outcome(&pair.here, id), Outcome::Failed(_)));
        support::eventually("the lane is back, with its direct copies", || {
            submit(Opcode::Write, good).is_ok_and(|id| {
                assert_eq!(outcome(&pair.here, id), Outcome::Done);
                id == TransferId::COMPLETE
            })
        });
        pair.here.close();
        assert!(matches!(submit(Opcode::Write, good), Err(SubmitError::Down { .. })));
    }
}

#[test]
fn injected_faults_meet_small_transfers_too() {
    let pair = Pair::with(4096, &[("FLAGCX_P2P_FAULTS", "fail=every:2:remote-operation")]);
    let outcomes: Vec<_> = (0..4)
        .map(|_| outcome(&pair.here, pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)]).unwrap()))
        .collect();
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_))), "{outcomes:?}");
}

/// Copies of four threads while the region is taken back, at either end: after that no byte lands.
#[test]
fn no_byte_lands_after_the_memory_was_taken_back() {
    for (path, round) in PATHS.into_iter().flat_map(|path| (0..6).map(move |round| (path, round))) {
        let pair = pair(path);
        let bytes: Vec<_> = (0..BYTES).map(|_| AtomicU8::new(0)).collect();
        let (address, options) = (bytes.as_ptr().expose_provenance() as u64, RegisterOptions::default());
        // SAFETY: mapped until the test has deregistered it, and made of atomics, which any thread may change.
        let register = |engine: &flagcx_p2p::internals::engine::Engine| unsafe {
            engine.register(address, BYTES as u64, options)
        };
        let is_local = round % 2 == 0;
        let owner = if is_local { &pair.client } else { &pair.server };
        let region = register(owner).unwrap();
        let opcode = if is_local { Opcode::Read } else { Opcode::Write };
        let iov = |offset: u64| {
            if is_local {
                return Iov { local: address + offset, region: Some(region), ..pair.iov(0, 0, 4096) };
            }
            let remote = pair.here.describe_remote(address, BYTES as u32).unwrap();
            Iov { remote: RemoteRange { address: address + offset, ..remote }, ..pair.iov(0, 0, 4096) }
        };
        let iovs: Vec<_> = (0..4).map(|thread| [iov(thread * 8192), iov(thread * 8192 + 4096)]).collect();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for iovs in &iovs {
                let (here, done) = (&pair.here, &done);
                scope.spawn(move || {
                    while let Ok(id) = here.submit(opcode, iovs) {
                        if outcome(here, id) != Outcome::Done {
                            break;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            support::eventually("they are at it", || done.load(Ordering::Relaxed) > 200);
            assert!(owner.deregister(region));
            bytes.iter().for_each(|byte| byte.store(0xa5, Ordering::Relaxed));
            std::thread::sleep(std::time::Duration::from_millis(20));
            let changed = bytes.iter().filter(|byte| byte.load(Ordering::Relaxed) != 0xa5).count();
            assert_eq!(changed, 0, "{path}: bytes that came after the memory had been given back");
        });
    }
}

#[test]
fn a_close_waits_for_the_copies_under_way() {
    for path in PATHS {
        let pair = pair(path);
        let iov = [pair.iov(0, 0, 65_536)];
        let (started, closed) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let was_closed = closed.load(Ordering::SeqCst);
                        match pair.here.submit(Opcode::Write, &iov) {
                            Ok(_) => assert!(!was_closed, "{path}: it was closed before the call"),
                            Err(error) => {
                                assert!(matches!(error, SubmitError::Down { .. }), "{error}");
                                break;
                            }
                        }
                        started.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            support::eventually("they are at it", || started.load(Ordering::Relaxed) > 200);
            pair.here.close();
            closed.store(true, Ordering::SeqCst);
        });
    }
}

/// Plays the peer of the test below.
#[test]
fn peer_process() {
    forking_peer::play();
}

#[test]
fn a_peer_that_is_killed_ends_small_transfers_and_its_process_is_left_alone() {
    let settings = [("FLAGCX_P2P_PATH", "cross-memory")];
    let (mut peer, engine) = (Peer::start(&settings), support::engine(&settings));
    let source = engine.allocate(LENGTH).unwrap();
    let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let remote = here.describe_remote(peer.address, LENGTH as u32).unwrap();
    let iov = [Iov { local: source.address(), length: 4096, region: Some(source.region()), remote }];
    for opcode in [Opcode::Write, Opcode::Read] {
        // The first may come before the peer has connected its side.
        support::eventually("a direct copy", || here.submit(opcode, &iov) == Ok(TransferId::COMPLETE));
    }
    peer.kill();
    let begun = Instant::now();
    // Each ends well, fails, or is refused in the end; none hangs.
    while let Ok(id) = here.submit(Opcode::Write, &iov) {
        let _ = outcome(&here, id);
        assert!(begun.elapsed() < support::LIMIT);
    }
    assert!(!here.is_usable());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Pieces of any number and size, adjacent or apart, at any alignment: the bytes are where they belong, and no others.
    #[test]
    fn pieces_of_any_size_arrive(
        pieces in prop::collection::vec((0_u64..9000, 0_u64..64, 0_u64..64), 1..24), write: bool, cross: bool,
    ) {
        let pair = pair(PATHS[usize::from(cross)]);
        let (source, target) = (pattern(1, BYTES), pattern(2, BYTES));
        prop_assert!(pair.source.write(0, &source) && pair.target.write(0, &target));
        let (mut local, mut remote, mut iovs) = (0, 0, Vec::new());
        let (mut here, mut there) = (source, target);
        for (length, gap, far_gap) in pieces {
            (local, remote) = (local + gap, remote + far_gap);
            let iov = pair.iov(local, remote, length);
            let (near, far) = (local as usize.. (local + length) as usize, remote as usize..(remote + length) as usize);
            if write { there[far].copy_from_slice(&here[near]) } else { here[near].copy_from_slice(&there[far]) }
            iovs.push(iov);
            (local, remote) = (local + length, remote + length);
        }
        let id = pair.here.submit(if write { Opcode::Write } else { Opcode::Read }, &iovs[..]).unwrap();
        prop_assert_eq!(outcome(&pair.here, id), Outcome::Done);
        prop_assert_eq!(content(&pair.source), here);
        prop_assert_eq!(content(&pair.target), there);
    }
}
