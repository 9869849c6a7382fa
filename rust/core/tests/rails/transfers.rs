//! Bytes of transfers of all shapes.

use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::nics::{PATIENT, carried, up};
use crate::rail_pair::{LENGTH, RailPair};
use crate::support::{content, outcome};

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];

/// Moves the pieces as one transfer and compares all of both buffers. Pieces do not overlap.
fn check(pair: &RailPair, opcode: Opcode, seed: u64, pieces: &[(u64, u64, u64)]) {
    let bytes = pair.fill(opcode, seed);
    let (from, to) = pair.ends(opcode);
    let mut expected = content(to);
    for &(local, remote, length) in pieces {
        let (source, target) = if opcode == Opcode::Write { (local, remote) } else { (remote, local) };
        let (source, target, length) = (source as usize, target as usize, length as usize);
        expected[target..target + length].copy_from_slice(&bytes[source..source + length]);
    }
    let iovs: Vec<Iov> =
        pieces.iter().map(|&(local, remote, length)| pair.iov(local, remote, length)).collect();
    let ended = outcome(&pair.here, pair.submit(opcode, &iovs));
    assert_eq!(ended, Outcome::Done, "{opcode:?}");
    assert!(content(from) == bytes, "{opcode:?} {seed}: the source has changed");
    assert!(content(to) == expected, "{opcode:?} {seed}: other bytes, or others than those of the transfer");
}

fn every_shape(pair: &RailPair) {
    const KIB: u64 = 1 << 10;
    let mut seed = 100;
    for opcode in OPCODES {
        for length in [0, 1, 7, 4096, 64 * KIB + 1, 512 * KIB - 1, 512 * KIB, (4 << 20) + 3] {
            seed += 1;
            check(pair, opcode, seed, &[(13, 5, length)]);
        }
        // A batch of many small pieces, in another order at the other end.
        let small: Vec<_> = (0..1024).map(|at| (at * 5000, (1023 - at) * 6000, 4096)).collect();
        check(pair, opcode, seed + 1, &small);
        // Pieces of all sizes.
        let mixed: Vec<_> = (0..24).map(|at| (at << 18, (23 - at) << 18, 1 + (1 << (at % 18)))).collect();
        check(pair, opcode, seed + 2, &mixed);
        seed += 3;
    }
}

#[test]
fn every_byte_of_every_shape_arrives_over_two_rails_and_over_eight() {
    let _alone = alone();
    for (nics, path) in [(2, None), (8, None), (2, Some(PathKind::Tcp))] {
        let pair = RailPair::of_length(8 << 20, [nics, nics], path, [&[PATIENT], &[PATIENT]]);
        pair.make_rails(nics as usize);
        every_shape(&pair);
        assert_eq!(up(&pair.here).len(), nics as usize, "{:#?}", pair.here.rails());
    }
}

#[test]
fn every_byte_of_large_transfers_arrives() {
    let _alone = alone();
    let pair = RailPair::of_length(64 << 20, [8, 8], None, [&[], &[]]);
    pair.make_rails(8);
    for (seed, opcode) in OPCODES.into_iter().enumerate() {
        for length in [16 << 20, (32 << 20) - 17, 64 << 20] {
            check(&pair, opcode, seed as u64, &[(0, 0, length)]);
        }
    }
}

/// Also while rails are being made.
#[test]
fn every_byte_arrives_from_the_first_transfer_on() {
    let _alone = alone();
    let pair = RailPair::new(8, 8);
    for (seed, opcode) in OPCODES.into_iter().cycle().take(20).enumerate() {
        pair.check_all(opcode, seed as u64);
    }
}

#[test]
fn each_of_eight_rails_carries_some_of_a_large_transfer() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    for opcode in OPCODES {
        let before = carried(&pair.here);
        let mut transfers = 0;
        let shares = loop {
            pair.check_all(opcode, transfers);
            transfers += 1;
            let now = carried(&pair.here);
            let shares: Vec<_> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
            // Which ones a transfer takes depends on rates that were measured.
            if shares.iter().all(|share| *share > 0) {
                break shares;
            }
            assert!(transfers < 40, "{opcode:?}: {shares:?}, {:#?}", pair.here.rails());
        };
        println!("{opcode:?}: bytes of the rails in {transfers} transfers: {shares:?}");
        assert_eq!(shares.len(), 8);
        assert_eq!(shares.iter().sum::<u64>(), transfers * LENGTH as u64, "each byte goes over one rail");
    }
}

#[test]
fn a_small_transfer_takes_one_rail() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    for length in [1, 4096, 256 << 10] {
        let before = carried(&pair.here);
        let ended = outcome(&pair.here, pair.submit(Opcode::Write, &[pair.iov(0, 0, length)]));
        assert_eq!(ended, Outcome::Done);
        let used: Vec<_> = carried(&pair.here)
            .iter()
            .zip(before)
            .map(|(now, before)| now - before)
            .filter(|share| *share > 0)
            .collect();
        assert_eq!(used, [length]);
    }
}

/// Several threads submit to one connection, each with bytes of its own, in both directions.
#[test]
fn many_threads_share_the_rails() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    const PART: u64 = 4 << 20;
    let bytes = pair.fill(Opcode::Write, 5);
    std::thread::scope(|scope| {
        for part in 0..LENGTH as u64 / PART {
            let pair = &pair;
            scope.spawn(move || {
                for _ in 0..10 {
                    let id = pair.submit(Opcode::Write, &[pair.iov(part * PART, part * PART, PART)]);
                    assert_eq!(outcome(&pair.here, id), Outcome::Done);
                }
            });
        }
    });
    assert!(content(&pair.target) == bytes);
}
