//! Objects that are destroyed while in use, and connections that are opened and closed.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::transfer::{Status, TransferId};

use crate::chaos::arena::Far;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Settings, Way};
use crate::chaos::round::{self, FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::{share, share_of_slow, standins, watchdog};
use crate::support;

const DESTRUCTIONS: u64 = 3920;
const CONNECTS: u64 = 1000;

fn ways() -> &'static [Way] {
    match crate::chaos::over_verbs() {
        true => &[Way::Verbs],
        false => &[Way::InProcess, Way::Tcp],
    }
}

/// Requests take long enough to be in flight when something goes.
const BUSY: &Settings<'static> =
    &[("FLAGCX_P2P_FAULTS", "delay=us:300"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "2000")];

/// The same over stand-ins, which know nothing of those faults.
const BUSY_FOR: Duration = Duration::from_micros(300);

/// What goes while transfers are in flight.
#[derive(Clone, Copy, Debug)]
enum Teardown {
    CloseHere,
    CloseThere,
    DeregisterNear,
    DeregisterFar,
    CloseClient,
    CloseServer,
}

pub fn destroy_busy(seed: u64, tally: &mut Tally) {
    use Teardown::{CloseClient, CloseHere, CloseServer, CloseThere, DeregisterFar, DeregisterNear};
    let mut random = Random::new(seed);
    // Each first once, and each pair in both orders.
    let teardowns = [CloseHere, CloseThere, DeregisterNear, DeregisterFar, CloseClient, CloseServer];
    let orders: Vec<_> =
        teardowns.iter().flat_map(|first| teardowns.map(|second| [*first, second])).collect();
    for turn in 0..share_of_slow(DESTRUCTIONS) as usize / 2 {
        let way = ways()[turn % ways().len()];
        destroy(way, orders[turn % orders.len()], FAMILIES[turn % FAMILIES.len()], &mut random, tally);
    }
}

fn destroy(way: Way, teardowns: [Teardown; 2], family: Family, random: &mut Random, tally: &mut Tally) {
    watchdog::step("destroying what is busy");
    let rig = Rig::new(way, BUSY);
    standins::delay(BUSY_FOR);
    let mut round = Round::prepare(&rig.here, &rig.arena, family, random);
    round.submit(None, tally);
    let begin = Instant::now();
    for teardown in teardowns {
        tear_down(&rig, teardown, random);
        tally.fault(family, 1);
    }
    let near_is_ours =
        teardowns.iter().any(|teardown| matches!(teardown, Teardown::DeregisterNear | Teardown::CloseClient));
    let before = near_is_ours.then(|| rig.arena.near.content());
    round.finish(tally);
    tally.detection.push(begin.elapsed());
    if before.is_some_and(|before| before != rig.arena.near.content()) {
        // Deregistered memory was still written to.
        tally.damaged += 1;
    }
    let again = Instant::now();
    drop(round);
    after_the_end(&rig.here);
    drop(rig);
    if tally.recovery.len() < 50 {
        // The next pair is not disturbed by what became of this one.
        let next = Rig::new(way, &[]);
        assert!(round::run(&next, Family::Write, random, tally));
        tally.recovery.push(again.elapsed());
    }
}

fn tear_down(rig: &Rig, teardown: Teardown, random: &mut Random) {
    if random.below(2) == 0 {
        std::thread::sleep(Duration::from_micros(random.below(400)));
    }
    match teardown {
        Teardown::CloseHere => rig.here.close(),
        Teardown::CloseThere => rig.there.as_ref().unwrap().close(),
        Teardown::DeregisterNear => {
            rig.client.deregister(rig.arena.near.region());
        }
        Teardown::DeregisterFar => {
            if let (Far::Here(far), Some(server)) = (&rig.arena.far, &rig.server) {
                server.deregister(far.region());
            }
        }
        Teardown::CloseClient => rig.client.close(),
        Teardown::CloseServer => rig.server.as_ref().unwrap().close(),
    }
}

/// Ids of a destroyed engine are unknown and harmless.
fn after_the_end(connection: &Connection) {
    for id in [1, 77, u64::MAX] {
        assert!(!matches!(connection.status(TransferId(id)), Status::Pending));
        assert!(!connection.cancel(TransferId(id)));
    }
}

/// Connects and closes, from either side, with and without a transfer in between.
pub fn reconnect(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    for way in ways() {
        let mut rig = Rig::new(*way, &[]);
        let server = rig.server.clone().unwrap();
        for turn in 0..(share(CONNECTS) as usize).div_ceil(ways().len()) {
            watchdog::step("connecting and closing");
            // A rail is not made over a NIC that is silent.
            standins::heal();
            let begin = Instant::now();
            let (here, there) = support::connect(&rig.client, &server);
            rig.go_on_with(here);
            rig.there = Some(there);
            if turn % 2 == 0 {
                assert!(round::run(&rig, FAMILIES[turn / 2 % FAMILIES.len()], &mut random, tally));
            }
            tally.recovery.push(begin.elapsed());
            let begin = Instant::now();
            if turn % 3 == 0 {
                rig.there.as_ref().unwrap().close();
                support::eventually("the other end notices", || !rig.here.is_usable());
                tally.detection.push(begin.elapsed());
            } else if turn % 3 == 1 {
                rig.here.close();
            }
            tally.faults += 1;
        }
    }
}
