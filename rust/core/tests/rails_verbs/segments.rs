//! Memory that each device registers in segments of its own.

use std::time::Duration;

use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::TransferId;

use crate::bench::Bench;
use crate::nics::{ENOUGH, carried, moved};
use crate::support::blocks;
use crate::support::own_time::OwnTime;
use crate::{GUARD, OPCODES, alone};

/// The largest region of the first device, and how much larger that of each further one is: hardly any two segments end at the same place.
const IN_SEGMENTS: [(&str, u64); 2] = [("max_region", 1 << 20), ("region_step", 49 << 12)];

/// Pieces of both buffers, all but the first `shift` bytes of the peer's.
#[derive(Clone, Copy, Debug)]
struct Pieces {
    length: u64,
    shift: u64,
}

impl Pieces {
    /// In one segment of the first device each, in several, and all in one, also where a segment of one end never ends with one of the other.
    const ALL: [Self; 5] = [
        Self { length: 1 << 17, shift: 0 },
        Self { length: 777_777, shift: 0 },
        Self { length: 3_000_001, shift: 5 << 12 },
        Self { length: ENOUGH as u64, shift: 0 },
        Self { length: ENOUGH as u64, shift: 123_457 },
    ];

    /// Starts a transfer of them; answers what is to be in the whole buffer that it writes to.
    fn start(self, bench: &Bench, opcode: Opcode, seed: u64) -> (TransferId, Vec<u8>) {
        let (bytes, mut expected) = (blocks(seed, ENOUGH), vec![GUARD; ENOUGH]);
        let (from, to) = bench.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &expected));
        let (shift, moved) = (self.shift as usize, ENOUGH - self.shift as usize);
        match opcode {
            Opcode::Write => expected[shift..].copy_from_slice(&bytes[..moved]),
            Opcode::Read => expected[..moved].copy_from_slice(&bytes[shift..]),
        }
        let iovs = (0..moved as u64).step_by(self.length as usize);
        let iovs = iovs.map(|at| bench.pair.iov(at, at + self.shift, self.length.min(moved as u64 - at)));
        let id = bench.pair.here.submit(opcode, &iovs.collect::<Vec<_>>()[..]).unwrap();
        (id, expected)
    }
}

/// Each segment has a key of its own on each device, and ends elsewhere.
#[test]
fn regions_in_segments_go_over_all_rails() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &IN_SEGMENTS, 8);
    let segments = |buffer: &RegisteredBuffer, engine: &Engine| {
        engine.find_region(buffer.address(), 1).unwrap().segment_count()
    };
    assert!(segments(&bench.pair.source, &bench.pair.client) >= 32);
    assert!(segments(&bench.pair.target, &bench.pair.server) >= 32);
    for pieces in Pieces::ALL {
        for opcode in OPCODES {
            let before = carried(&bench.pair.here);
            let unused = || {
                let now = carried(&bench.pair.here);
                now.iter().zip(&before).filter(|(now, before)| now == before).count()
            };
            let mut seed = 0;
            // Which ones a transfer takes depends on rates that were measured.
            while seed == 0 || unused() > 0 {
                assert!(
                    seed < 40,
                    "{pieces:?}, {opcode:?}: a rail carries nothing: {:#?}",
                    bench.pair.here.rails()
                );
                bench.finish(opcode, &pieces.start(&bench, opcode, seed), &format!("{pieces:?} {opcode:?}"));
                seed += 1;
            }
        }
    }
}

/// Requests that are in one segment on the device that fails are in several on the others, here and at the peer.
#[test]
fn what_crosses_segments_on_another_device_moves_there() {
    let _alone = alone();
    let bench = Bench::watchful(&IN_SEGMENTS);
    for (rail, pieces, opcode) in [
        (7, Pieces::ALL[3], Opcode::Write),
        (7, Pieces::ALL[4], Opcode::Read),
        (4, Pieces::ALL[4], Opcode::Write),
        (0, Pieces::ALL[2], Opcode::Write),
        (0, Pieces::ALL[3], Opcode::Read),
    ] {
        let what = format!("rail {rail}, {pieces:?}, {opcode:?}");
        let before = moved(&bench.pair.here);
        let time = OwnTime::start();
        // Until the plan has given it something.
        for seed in 0.. {
            bench.standin.set("silent_devices", 1 << bench.device(rail));
            bench.finish(opcode, &pieces.start(&bench, opcode, seed), &what);
            let has_moved = moved(&bench.pair.here) > before;
            assert!(bench.ends(opcode).1.write(0, &vec![GUARD; ENOUGH]));
            bench.standin.set("silent_devices", 0);
            bench.expect_return(rail);
            if has_moved {
                break;
            }
            assert!(!time.exceeds(Duration::from_secs(10)), "{what}: {:#?}", bench.pair.here.rails());
        }
    }
    bench.expect_all();
}
