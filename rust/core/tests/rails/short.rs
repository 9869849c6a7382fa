//! Short transfers, which follow the last plan for their buffer and what the lane knows of the memory.

use std::time::Duration;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::memory::{MIB, Memory, iov, remote};
use crate::nics::{carried, make_rails_with, up};
use crate::rail_pair::{LENGTH, RailPair};
use crate::support::own_time::OwnTime;
use crate::support::{content, eventually, outcome};

/// Two rails, of which the second one alone is up.
fn on_the_second_rail(settings: &[(&str, &str)]) -> RailPair {
    let pair = RailPair::with([2, 2], None, [settings, settings]);
    // A short time-out may not be enough for so much on a busy machine.
    let ends = [Outcome::Done, Outcome::TimedOut];
    make_rails_with(&pair.here, &pair.source, pair.target.address(), 2, &ends);
    pair.near.set_port(0, false);
    eventually("the second rail is alone", || matches!(&up(&pair.here)[..], [rail] if rail.rail == 1));
    pair
}

/// A transfer of one piece, or of three that lie apart.
fn pieces(pair: &RailPair, at: u64, length: u64, count: u64) -> Vec<Iov> {
    (0..count).map(|piece| pair.iov(at + 2 * piece * length, at + 2 * piece * length, length)).collect()
}

#[test]
fn every_byte_of_short_transfers_arrives_over_a_further_rail() {
    let _alone = alone();
    let pair = on_the_second_rail(&[]);
    for opcode in [Opcode::Write, Opcode::Read] {
        let bytes = pair.fill(opcode, 7);
        let before = carried(&pair.here);
        let (mut expected, mut moved) = (content(pair.ends(opcode).1), 0);
        for number in 0..3_000_u64 {
            let (length, count) =
                ([1, 100, 4096, 40 << 10][number as usize % 4], [1, 1, 3][number as usize % 3]);
            let at = number.wrapping_mul(0x9e37_79b9) % (LENGTH as u64 - 6 * length);
            let iovs = pieces(&pair, at, length, count);
            assert_eq!(outcome(&pair.here, pair.submit(opcode, &iovs)), Outcome::Done, "{opcode:?} {number}");
            for piece in 0..count {
                let range = (at + 2 * piece * length) as usize..(at + (2 * piece + 1) * length) as usize;
                expected[range.clone()].copy_from_slice(&bytes[range]);
                moved += length;
            }
        }
        assert!(content(pair.ends(opcode).1) == expected, "{opcode:?}: other bytes");
        let shares: Vec<_> =
            carried(&pair.here).iter().zip(&before).map(|(now, before)| now - before).collect();
        assert_eq!(shares, [0, moved], "{opcode:?}");
    }
}

/// What a lane knows of memory at an address is forgotten with the region, at both ends.
#[test]
fn short_transfers_over_a_further_rail_reach_no_region_that_is_gone() {
    let _alone = alone();
    // What finds no key of the second rail waits for the first one, which is down.
    const TIMEOUT: Duration = Duration::from_millis(300);
    let pair = on_the_second_rail(&[("FLAGCX_P2P_XFER_TIMEOUT_MS", "300")]);
    let source = Memory::of(8, MIB / 4);
    let mut local = source.register(&pair.client, true);
    for round in 0..20 {
        let target = Memory::new(MIB / 4);
        let region = target.register(&pair.server, true);
        let there = remote(&pair, &target);
        let write = |local| pair.here.submit(Opcode::Write, &[iov(&source, local, there)][..]);
        // The second rail may not know the region yet: it fails, or times out.
        let time = OwnTime::start();
        while outcome(&pair.here, write(local).unwrap()) != Outcome::Done {
            assert!(!time.exceeds(Duration::from_secs(5)), "round {round}");
        }
        let mut done = 0;
        for _ in 0..8 {
            let time = OwnTime::start();
            let ended = outcome(&pair.here, write(local).unwrap());
            // Any transfer times out where a machine holds it up for so long; one that waits for a key is held up by nothing.
            let is_late = ended == Outcome::TimedOut && !time.exceeds(TIMEOUT / 2);
            assert!(ended == Outcome::Done || is_late, "round {round}: {ended:?}");
            done += usize::from(ended == Outcome::Done);
        }
        assert!(done > 0, "round {round}");
        assert!(target.bytes() == source.bytes(), "round {round}");
        if round % 2 == 0 {
            assert!(pair.client.deregister(local), "round {round}");
            assert!(write(local).is_err(), "round {round}: a region of this end that is gone was used");
            local = source.register(&pair.client, true);
        }
        assert!(pair.server.deregister(region), "round {round}");
        if let Ok(id) = write(local) {
            assert_ne!(
                outcome(&pair.here, id),
                Outcome::Done,
                "round {round}: memory that is gone was written"
            );
        }
        eventually("the lanes of the second rail are back", || {
            pair.here.rails().get(1).is_some_and(|rail| rail.healthy_lanes == rail.lanes)
        });
    }
    pair.client.close();
    pair.server.close();
}

/// The rails go down in turn: each transfer ends well, and its bytes are those of its own.
#[test]
fn short_transfers_outlive_rails() {
    let _alone = alone();
    let pair = RailPair::with_rails(2, 2, 2);
    let bytes = pair.fill(Opcode::Write, 9);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2_u64 {
            let (pair, done) = (&pair, &done);
            scope.spawn(move || {
                let half = LENGTH as u64 / 2;
                let mut at = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) || at < half {
                    let place = thread * half + at % half;
                    let id = pair.submit(Opcode::Write, &[pair.iov(place, place, 32 << 10)]);
                    assert_eq!(outcome(&pair.here, id), Outcome::Done, "{:#?}", pair.here.rails());
                    at += 32 << 10;
                }
            });
        }
        for round in 0..6 {
            let nic = round % 2;
            pair.near.set_port(nic, false);
            std::thread::sleep(Duration::from_millis(30));
            pair.near.set_port(nic, true);
            eventually("both rails are up", || up(&pair.here).len() == 2);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(content(&pair.target) == bytes);
    let carried = carried(&pair.here);
    assert!(carried.iter().all(|bytes| *bytes > 0), "{carried:?}");
}
