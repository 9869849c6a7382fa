//! A network that is slow, stalls, loses bytes and cuts connections, between two processes.

use std::time::{Duration, Instant};

use crate::chaos::network::{Network, PEER, Towards};
use crate::chaos::peer::Peer;
use crate::chaos::proxy::Rules;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Settings, Way, settings_for, times_as_long};
use crate::chaos::round::{self, FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::{share_of_slow, watchdog};
use crate::support;

/// Faults in all.
pub const FAULTS: u64 = 1400;
/// After how many of them both sides begin anew: new processes, new engines, new proxies.
const OF_A_NETWORK: u64 = 100;

const SETTINGS: &Settings<'static> =
    &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "60"), ("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "2000")];
/// How long a round may take in which nothing moves: the transfer time-out, 50 ms, and the drain.
const ENDED: Duration = Duration::from_millis(60 + 50 + 2000);
/// How long after the network is whole a transfer is done, on the same connection or on a new one.
const RECOVERED: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Slow,
    SmallSegments,
    Stall(Towards),
    StallAll,
    Cut,
    CutSome,
    Lose(Towards),
    LoseAll,
}

const DISTURBANCES: [Disturbance; 11] = [
    Disturbance::Slow,
    Disturbance::SmallSegments,
    Disturbance::Stall(Towards::Peer),
    Disturbance::Stall(Towards::Here),
    Disturbance::StallAll,
    Disturbance::Cut,
    Disturbance::Cut,
    Disturbance::CutSome,
    Disturbance::Lose(Towards::Peer),
    Disturbance::Lose(Towards::Here),
    Disturbance::LoseAll,
];

/// A fault is a disturbance before or during a round of transfers. It ends in the middle of the round or after it; one that
/// merely slows the network spoils no transfer.
pub fn disturb(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let mut left = share_of_slow(FAULTS).next_multiple_of(FAMILIES.len() as u64);
    while left > 0 {
        watchdog::step("starting a network");
        let network = Network::new(random.next());
        let settings = settings_for(Way::TcpBetweenProcesses, SETTINGS);
        let peer = Peer::start(&network.of_peer(&settings));
        let client = support::engine(&network.of_here(&settings));
        let mut rig = Rig::towards_at(PEER, client, peer);
        for _ in 0..left.min(OF_A_NETWORK) {
            let family = FAMILIES[left as usize % FAMILIES.len()];
            disturb_a_round(&network, &mut rig, family, &mut random, tally);
            left -= 1;
        }
    }
}

fn disturb_a_round(network: &Network, rig: &mut Rig, family: Family, random: &mut Random, tally: &mut Tally) {
    let disturbance = *random.pick(&DISTURBANCES);
    let begins_first = random.below(2) == 0;
    let is_short = random.below(3) > 0;
    let mut round = Round::prepare(&rig.here, &rig.arena, family, random);
    if begins_first {
        apply(disturbance, network, random);
    }
    let begin = Instant::now();
    round.submit(None, tally);
    if !begins_first {
        apply(disturbance, network, random);
    }
    if is_short {
        std::thread::sleep(Duration::from_millis(random.below(20)));
        network.heal();
    }
    round.finish(tally);
    let taken = begin.elapsed();
    let all_done = round.all_done();
    drop(round);
    assert!(taken < ENDED, "{disturbance:?} keeps transfers from their end for {taken:?}");
    let is_slow = matches!(disturbance, Disturbance::Slow | Disturbance::SmallSegments);
    assert!(all_done || !is_slow, "{disturbance:?} spoils a transfer");
    if !all_done {
        tally.detection.push(taken);
    }
    network.heal();
    recover(network, rig, random, tally);
    tally.fault(family, 1);
}

fn apply(disturbance: Disturbance, network: &Network, random: &mut Random) {
    let stalled = Rules { stalled: true, ..Rules::default() };
    let losing = Rules { losing: true, ..Rules::default() };
    match disturbance {
        Disturbance::Slow => network.set_both(Rules {
            delay: Duration::from_millis(random.below(4)),
            rate: Some(8_000_000 * times_as_long() as u64),
            ..Rules::default()
        }),
        Disturbance::SmallSegments => {
            let segment = Some(1 + random.below(64 * times_as_long() as u64) as usize);
            network.set_both(Rules { segment, ..Rules::default() });
        }
        Disturbance::Stall(towards) => network.set(towards, stalled),
        Disturbance::StallAll => network.set_both(stalled),
        Disturbance::Cut => network.cut(),
        Disturbance::CutSome => network.cut_some(random.next()),
        Disturbance::Lose(towards) => network.set(towards, losing),
        Disturbance::LoseAll => network.set_both(losing),
    }
}

/// Until a transfer is done again.
fn recover(network: &Network, rig: &mut Rig, random: &mut Random, tally: &mut Tally) {
    watchdog::step("recovering after a disturbance");
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < RECOVERED, "no transfer is done within {RECOVERED:?}");
        rig.settle();
        if rig.here.is_usable() {
            if round::run(rig, Family::Write, random, tally) {
                break;
            }
            continue;
        }
        // The former connection's bytes do not arrive any more.
        network.cut();
        let port = rig.peer.as_ref().unwrap().port;
        if let Ok(here) = rig.client.connect(PEER, port, 0, false) {
            rig.go_on_with(here);
        }
    }
    tally.recovery.push(begin.elapsed());
}
