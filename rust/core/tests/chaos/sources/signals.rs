//! Signals at every thread of both processes, as a profiler sends them.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{PathKind, Paths};

use crate::chaos::buffer::Memory;
use crate::chaos::peer::STORM_US;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way};
use crate::chaos::round::{self, FAMILIES, Family};
use crate::chaos::storm::Storm;
use crate::chaos::tally::Tally;
use crate::chaos::{share, watchdog};

/// Connects that are interrupted, each with a round of transfers.
const INTERRUPTED: u64 = 3500;

/// Connects and moves bytes while signals arrive. A fault is a connect and a round in which threads of this process have
/// handled some.
pub fn interrupt(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let ways = [(Way::CrossMemory, PathKind::CrossMemory), (Way::TcpBetweenProcesses, PathKind::Tcp)];
    let each = share(INTERRUPTED).div_ceil((ways.len() * FAMILIES.len()) as u64);
    for (way, path) in ways {
        watchdog::step("starting a peer under signals");
        let mut rig = Rig::new(way, &[(STORM_US, "200")]);
        let paths = match (way, Memory::of_run()) {
            // Not forced: the one without signals.
            (Way::CrossMemory, Memory::Allocated) => rig.here.info().paths,
            _ => Paths::both(path),
        };
        let _storm = Storm::begin(Duration::from_micros(200));
        for family in FAMILIES {
            for _ in 0..each {
                connect_and_move(&mut rig, paths, family, &mut random, tally);
            }
        }
    }
}

fn connect_and_move(rig: &mut Rig, paths: Paths, family: Family, random: &mut Random, tally: &mut Tally) {
    watchdog::step("connecting under signals");
    let before = Storm::delivered();
    while Storm::delivered() == before {
        let begin = Instant::now();
        let port = rig.peer.as_ref().unwrap().port;
        rig.go_on_with(rig.client.connect("127.0.0.1", port, 0, false).unwrap());
        tally.recovery.push(begin.elapsed());
        assert_eq!(rig.here.info().paths, paths, "signals change the path");
        assert!(round::run(rig, family, random, tally), "signals disturb a transfer");
    }
    tally.fault(family, 1);
}
