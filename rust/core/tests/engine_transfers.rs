//! Two engines move data, and refuse invalid requests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, Status, SubmitError, TransferId};
use support::{Pair, content, outcome, pattern};

#[test]
fn is_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Engine>();
    check::<flagcx_p2p::internals::connection::Connection>();
}

#[test]
fn a_write_and_a_read_move_exactly_their_window() {
    const LENGTH: usize = 1 << 20;
    let pair = Pair::new(LENGTH);
    let (ours, theirs) = (pattern(1, LENGTH), pattern(2, LENGTH));
    assert!(pair.source.write(0, &ours) && pair.target.write(0, &theirs));

    let id = pair.here.submit(Opcode::Write, &[pair.iov(1000, 3000, 50_000)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    let mut expected = theirs;
    expected[3000..53_000].copy_from_slice(&ours[1000..51_000]);
    assert!(content(&pair.target) == expected, "only the window may change");
    assert!(content(&pair.source) == ours, "a write leaves its source alone");

    let id = pair.here.submit(Opcode::Read, &[pair.iov(200_001, 7, 400_000)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    let mut mirror = ours;
    mirror[200_001..600_001].copy_from_slice(&expected[7..400_007]);
    assert!(content(&pair.source) == mirror);
    assert!(content(&pair.target) == expected);
}

#[test]
fn both_ends_may_start_transfers() {
    let pair = Pair::new(8192);
    let bytes = pattern(3, 8192);
    assert!(pair.target.write(0, &bytes));
    let remote = pair.there.describe_remote(pair.source.address(), 8192).unwrap();
    let iov = Iov { local: pair.target.address(), length: 8192, region: None, remote };
    let id = pair.there.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(&pair.there, id), Outcome::Done);
    assert!(content(&pair.source) == bytes);
}

#[test]
fn vectors_of_any_length_arrive_whole() {
    const LENGTH: usize = 4 << 20;
    let pair = Pair::new(LENGTH);
    for (count, gap) in [(1, 0), (2, 64), (63, 0), (64, 64), (65, 1), (1000, 0), (1000, 7), (4096, 24)] {
        let ours = pattern(count, LENGTH);
        assert!(pair.source.write(0, &ours) && pair.target.write(0, &vec![0; LENGTH]));
        let step = LENGTH as u64 / count;
        // Scattered on the far side: the pieces arrive in reverse order.
        let iovs: Vec<Iov> =
            (0..count).map(|i| pair.iov(i * step, (count - 1 - i) * step, step.min(1000) - gap)).collect();
        let id = pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
        let mut expected = vec![0; LENGTH];
        for i in 0..count as usize {
            let (step, length) = (step as usize, (step.min(1000) - gap) as usize);
            let to = (count as usize - 1 - i) * step;
            expected[to..to + length].copy_from_slice(&ours[i * step..i * step + length]);
        }
        assert!(content(&pair.target) == expected, "{count} pieces");
    }
}

#[test]
fn a_long_iov_is_striped_over_the_lanes_and_arrives_whole() {
    const LENGTH: usize = 16 << 20;
    let pair = Pair::new(LENGTH);
    let ours = pattern(5, LENGTH);
    assert!(pair.source.write(0, &ours));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(content(&pair.target) == ours);
}

#[test]
fn an_empty_piece_is_done_and_an_empty_transfer_is_refused() {
    let pair = Pair::new(4096);
    assert_eq!(pair.here.submit(Opcode::Write, &[] as &[Iov]), Err(SubmitError::Empty));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 0)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
}

#[test]
fn bad_ranges_are_refused_before_anything_moves() {
    let pair = Pair::new(8192);
    assert!(pair.source.write(0, &[7; 8192]));
    let good = pair.iov(0, 0, 4096);
    let desc = |address: u64, size: u32, rkey: u32| RemoteRange { address, size, rkey };
    let bad_local = [
        Iov { region: Some(RegionId(0)), ..good },
        Iov { region: Some(RegionId(u64::MAX)), ..good },
        Iov { region: Some(pair.target.region()), ..good },
        Iov { local: good.local + 8192, ..good },
        Iov { local: u64::MAX, ..good },
        Iov { local: good.local - 1, region: None, ..good },
        Iov { length: 8193, remote: desc(good.remote.address, u32::MAX, good.remote.rkey), ..good },
        Iov { length: 5 << 32, ..good },
    ];
    for bad in bad_local {
        match pair.here.submit(Opcode::Write, &[good, bad][..]) {
            Err(SubmitError::Local { iov: 1, .. }) => {}
            other => panic!("{bad:?}: {other:?}"),
        }
    }
    let bad_remote = [
        desc(good.remote.address, 4095, good.remote.rkey),
        desc(good.remote.address + 4097, 4096, good.remote.rkey),
        desc(u64::MAX - 1, 4096, good.remote.rkey),
        desc(u64::MAX - 1, 4096, 0xdead_beef),
    ];
    for remote in bad_remote {
        match pair.here.submit(Opcode::Write, &[good, Iov { remote, ..good }][..]) {
            Err(SubmitError::Remote { iov: 1, .. }) => {}
            other => panic!("{remote:?}: {other:?}"),
        }
    }
    assert_eq!(content(&pair.target), vec![0; 8192]);
}

#[test]
fn a_wrong_key_fails_the_transfer_and_names_the_piece() {
    let pair = Pair::new(1 << 20);
    let good = pair.iov(0, 0, 100);
    let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
    let id = pair.here.submit(Opcode::Write, &[pair.iov(500, 500, 100), wrong][..]).unwrap();
    let Outcome::Failed(failure) = outcome(&pair.here, id) else { panic!("a wrong key went through") };
    assert_eq!(failure.iov, 1);
    assert_eq!(failure.status, flagcx_p2p::internals::fabric::CompletionStatus::RemoteAccess);
    // The outcome stays readable after the release.
    assert_eq!(pair.here.status(id), Status::Ended(Outcome::Failed(failure)));
}

#[test]
fn a_transfer_that_is_done_cannot_be_cancelled() {
    let pair = Pair::with(4096, &[("FLAGCX_P2P_QPS_PER_CONN", "1")]);
    let write = |at| pair.here.submit(Opcode::Write, &[pair.iov(at, at, 64)][..]).unwrap();
    let (first, second) = (write(0), write(64));
    // One queue pair carries them out in order; the first one was not polled.
    assert_eq!(outcome(&pair.here, second), Outcome::Done);
    assert!(pair.here.cancel(first));
    assert_eq!(pair.here.status(first), Status::Ended(Outcome::Done));
}

#[test]
fn stale_and_unknown_ids_are_harmless() {
    let pair = Pair::new(4096);
    assert_eq!(pair.here.status(TransferId::COMPLETE), Status::Ended(Outcome::Done));
    for id in [1, 0xffff, u64::MAX, 1 << 63] {
        assert_eq!(pair.here.status(TransferId(id)), Status::Unknown);
        assert!(!pair.here.cancel(TransferId(id)));
    }
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    for _ in 0..3 {
        assert_eq!(pair.here.status(id), Status::Ended(Outcome::Done));
    }
}

#[test]
fn test_batch_tells_each_and_counts_all() {
    let pair = Pair::new(1 << 20);
    let good = pair.iov(0, 0, 1000);
    let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
    let mut ids: Vec<TransferId> = (0..20)
        .map(|i| pair.here.submit(Opcode::Write, &[pair.iov(i * 2000, i * 2000, 1000)][..]).unwrap())
        .collect();
    ids.push(TransferId::COMPLETE);
    let mut ended = vec![None; ids.len()];
    support::eventually("a batch ends", || pair.here.test_batch(&ids, &mut ended) == ids.len());
    assert!(ended.iter().all(|status| *status == Some(Status::Ended(Outcome::Done))));
    assert_eq!(pair.here.test_batch(&[], &mut []), 0);

    let bad = pair.here.submit(Opcode::Write, &[wrong][..]).unwrap();
    let mut ended = [None];
    support::eventually("a bad one ends", || pair.here.test_batch(&[bad], &mut ended) == 1);
    assert!(matches!(&ended[0], Some(Status::Ended(Outcome::Failed(_)))));
}

#[test]
fn data_arrives_without_a_poll() {
    let pair = Pair::new(1 << 20);
    let bytes = pattern(9, 1 << 20);
    assert!(pair.source.write(0, &bytes));
    pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 1 << 20)][..]).unwrap();
    support::eventually("data without a poll", || content(&pair.target) == bytes);
}

/// A million, or as many as `FLAGCX_P2P_TEST_PIECES` says, for a fabric that is emulated.
#[test]
fn a_million_pieces_in_one_call() {
    let pieces = std::env::var("FLAGCX_P2P_TEST_PIECES").map_or(1_000_000, |pieces| pieces.parse().unwrap());
    assert!(pieces >= 65_536, "each place is written once at least");
    let pair = Pair::new(1 << 20);
    let bytes = pattern(11, 1 << 20);
    assert!(pair.source.write(0, &bytes));
    let iovs: Vec<Iov> = (0..pieces).map(|i| pair.iov(i % 65_536 * 16, i % 65_536 * 16, 8)).collect();
    let id = pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    let target = content(&pair.target);
    assert!((0..65_536).all(|i| target[i * 16..i * 16 + 8] == bytes[i * 16..i * 16 + 8]));
}

#[test]
fn many_threads_share_one_connection() {
    let pair = Pair::new(8 << 20);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let pair = &pair;
            scope.spawn(move || {
                let base = thread << 20;
                for round in 0..50u64 {
                    let bytes = pattern(thread * 1000 + round, 4096);
                    assert!(pair.source.write(base as usize, &bytes));
                    let iovs: Vec<Iov> =
                        (0..16).map(|i| pair.iov(base + i * 256, base + i * 512, 256)).collect();
                    let id = pair.here.submit(Opcode::Write, iovs.as_slice()).unwrap();
                    assert_eq!(outcome(&pair.here, id), Outcome::Done);
                    let mut got = vec![0; 8192];
                    assert!(pair.target.read(base as usize, &mut got));
                    for i in 0..16 {
                        assert!(got[i * 512..i * 512 + 256] == bytes[i * 256..i * 256 + 256]);
                    }
                }
            });
        }
    });
}

#[test]
fn registering_counts_owners_and_refuses_invalid_ranges() {
    let pair = Pair::new(4096);
    let memory = vec![0u8; 65_536];
    let (address, length) = (memory.as_ptr() as u64, memory.len() as u64);
    let register = |address, length| {
        // SAFETY: `memory` outlives the registrations below and is not written to.
        #[allow(unsafe_code, reason = "registers a vector of this test")]
        unsafe {
            pair.client.register(address, length, RegisterOptions::default())
        }
    };
    let id = register(address, length).unwrap();
    assert_eq!(register(address, length).unwrap(), id, "the same range is the same region");
    assert!(register(address, length - 1).is_err(), "the same start with another length");
    assert!(register(0, 10).is_err() && register(address, 0).is_err() && register(u64::MAX - 5, 10).is_err());
    assert!(register(0x1000, 4096).is_err(), "not mapped");
    let desc = pair.client.describe(id, address + 10, 100).unwrap();
    assert_eq!((desc.address, desc.size), (address + 10, 100));
    assert!(pair.client.describe(id, address, length + 1).is_err());
    assert!(pair.client.describe(id, address - 1, 2).is_err());
    assert!(pair.server.describe(id, address, 1).is_err(), "another engine's region");
    pair.client.deregister(id);
    assert!(pair.client.describe(id, address, 1).is_ok(), "one owner is left");
    pair.server.deregister(id);
    pair.client.deregister(id);
    assert!(pair.client.describe(id, address, 1).is_err());
    pair.client.deregister(id);
}

#[test]
fn closing_a_busy_connection_ends_its_transfers() {
    let pair = Pair::with(8 << 20, &[("FLAGCX_P2P_FAULTS", "")]);
    let ids: Vec<_> =
        (0..64).map(|_| pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 8 << 20)][..]).unwrap()).collect();
    pair.here.close();
    for id in ids {
        match pair.here.wait(id, Duration::from_secs(5)) {
            Status::Ended(Outcome::Done | Outcome::Cancelled) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)][..]),
        Err(SubmitError::Down { .. })
    ));
}

#[test]
fn sessions_are_cached_and_renewed() {
    let pair = Pair::new(4096);
    pair.server.start_rpc_server().unwrap();
    let session = format!("{}:{}", pair.server.address(), pair.server.rpc_port().unwrap());
    let first = pair.client.session(&session).unwrap();
    let second = pair.client.session(&session).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &second));
    first.close();
    let third = pair.client.session(&session).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&first, &third) && third.is_usable());
    for bad in ["", "no_colon", "host:", ":", "127.0.0.1:notaport", "127.0.0.1:99999", "256.256.256.256:1"] {
        assert!(pair.client.session(bad).is_err(), "{bad}");
    }
}

#[test]
fn accept_ends_when_stopped() {
    let pair = Pair::new(4096);
    let server = pair.server.clone();
    let waiting = std::thread::spawn(move || server.accept().map(drop));
    std::thread::sleep(Duration::from_millis(50));
    pair.server.stop_accept();
    assert!(waiting.join().unwrap().is_err());
    assert!(pair.server.accept().is_err());
    assert!(pair.server.metadata().is_ok(), "metadata outlives accepting");
}

#[test]
fn a_new_region_is_found_by_concurrent_look_ups() {
    let engine = support::engine(&[]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..support::share(2000) {
                    let buffer = engine.allocate(4096).unwrap();
                    assert!(engine.describe(buffer.region(), buffer.address(), 4096).is_ok());
                }
            });
        }
    });
}
