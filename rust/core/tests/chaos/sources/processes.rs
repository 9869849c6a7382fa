//! Peers in other processes that are killed, stopped and restarted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status};
use rustix::process::Signal;

use crate::chaos::arena::{Arena, Far};
use crate::chaos::buffer::Buffer;
use crate::chaos::peer::Peer;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Settings, Way, length, settings_for};
use crate::chaos::round::{self, FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::{over_verbs, ports, share_of_slow, watchdog};
use crate::support;

const KILLS: u64 = 140;
const STOPS: u64 = 3430;
const RESTARTS: u64 = 3580;
/// Of those, of a whole process.
const PROCESS_RESTARTS: u64 = 40;

/// Some transfers do not pass their deadline for seconds, and those towards a stopped peer end soon.
const IMPATIENT: &Settings<'static> = &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "40")];

pub fn kill_and_stop(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let ways: &[_] = match over_verbs() {
        true => &[Way::VerbsBetweenProcesses],
        false => &[Way::CrossMemory, Way::Shared, Way::TcpBetweenProcesses],
    };
    let part = |count: u64| (share_of_slow(count) as usize).div_ceil(ways.len());
    // Dealt to the families without a rest, also where it is a small share.
    let stops = share_of_slow(STOPS).div_ceil((ways.len() * FAMILIES.len()) as u64) as usize * FAMILIES.len();
    for &way in ways {
        let settings = settings_for(way, &[]);
        let client = support::engine(&settings);
        for turn in 0..part(KILLS) {
            kill(&client, &settings, FAMILIES[turn % FAMILIES.len()], &mut random, tally);
        }
        let rig = Rig::new(way, IMPATIENT);
        for turn in 0..stops {
            stop(&rig, FAMILIES[turn % FAMILIES.len()], &mut random, tally);
        }
    }
}

/// Kills the peer at some point of a round. Every transfer ends, soon.
fn kill(
    client: &Arc<Engine>,
    settings: &Settings<'_>,
    family: Family,
    random: &mut Random,
    tally: &mut Tally,
) {
    watchdog::step("starting a peer");
    let begin = Instant::now();
    let rig = Rig::towards(Arc::clone(client), Peer::start(settings));
    assert!(round::run(&rig, Family::Write, random, tally), "a fresh peer works");
    if tally.by_family.contains_key(&family) {
        tally.recovery.push(begin.elapsed());
    }
    let peer = rig.peer.as_ref().unwrap();
    let moment = Duration::from_micros(random.below(1500));
    let fault = Instant::now() + moment;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(moment);
            peer.signal(Signal::KILL);
        });
        while Instant::now() < fault + Duration::from_millis(1) {
            round::run(&rig, family, random, tally);
        }
    });
    watchdog::step("detecting a peer's end");
    support::eventually("the end is detected", || !rig.here.is_usable());
    tally.detection.push(fault.elapsed());
    let iov = [first_piece(&rig.arena, &rig)];
    assert!(
        rig.here.submit(Opcode::Write, &iov[..]).is_err(),
        "a connection to an ended peer accepts no transfer"
    );
    tally.fault(family, 1);
}

fn first_piece(arena: &Arena, rig: &Rig) -> Iov {
    let remote = rig.here.describe_remote(arena.far.address(), 64).unwrap();
    Iov { local: arena.near.address(), length: 64, region: None, remote }
}

/// Stops the peer during a round, and lets it go on later.
fn stop(rig: &Rig, family: Family, random: &mut Random, tally: &mut Tally) {
    let peer = rig.peer.as_ref().unwrap();
    let mut round = Round::prepare(&rig.here, &rig.arena, family, random);
    if random.below(2) == 0 {
        peer.signal(Signal::STOP);
        round.submit(None, tally);
    } else {
        round.submit(None, tally);
        peer.signal(Signal::STOP);
    }
    let start = Instant::now();
    round.finish(tally);
    if !round.all_done() {
        tally.detection.push(start.elapsed());
    }
    peer.signal(Signal::CONT);
    let again = Instant::now();
    rig.settle();
    while !round::run(rig, Family::Write, random, tally) {
        assert!(again.elapsed() < support::LIMIT, "the connection does not recover from a stopped peer");
    }
    tally.recovery.push(again.elapsed());
    tally.fault(family, 1);
}

/// The peer comes back on the same port, as another engine or another process; sessions find it.
pub fn restart(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let (inside, outside) = match over_verbs() {
        true => (Way::Verbs, Way::VerbsBetweenProcesses),
        false => (Way::InProcess, Way::CrossMemory),
    };
    let client = support::engine(&settings_for(inside, &[]));
    restart_engines(&client, inside, &mut random, tally);
    let client = support::engine(&settings_for(outside, &[]));
    let ports = ports::free_range(&mut random);
    let mut settings = settings_for(outside, &[]);
    settings.push(("FLAGCX_P2P_PORT_RANGE", &ports));
    for turn in 0..share_of_slow(PROCESS_RESTARTS) as usize {
        watchdog::step("restarting a peer process");
        let peer = Peer::start(&settings);
        let far = Far::There { pid: peer.pid(), address: peer.address, length: length() };
        let session = format!("127.0.0.1:{}", peer.port);
        meet(&client, &session, far, FAMILIES[turn % FAMILIES.len()], &mut random, tally);
        if turn % 2 == 0 {
            peer.signal(Signal::KILL);
        }
    }
}

fn restart_engines(client: &Arc<Engine>, way: Way, random: &mut Random, tally: &mut Tally) {
    let ports = ports::free_range(random);
    let mut settings = settings_for(way, &[]);
    settings.push(("FLAGCX_P2P_PORT_RANGE", &ports));
    let mut old = None;
    for turn in 0..share_of_slow(RESTARTS - PROCESS_RESTARTS) as usize {
        watchdog::step("restarting an engine");
        let server = support::engine(&settings);
        let far = Buffer::new(&server, length());
        server.start_rpc_server().unwrap();
        let session = format!("127.0.0.1:{}", server.rpc_port().unwrap());
        let key = meet(client, &session, Far::Here(far), FAMILIES[turn % FAMILIES.len()], random, tally);
        // The former engine's key opens nothing, even where the new one's memory is at the same place.
        assert_ne!(old.replace(key), Some(key), "a key of the former engine");
        if turn % 2 == 0 {
            server.close();
        }
    }
}

/// Reaches the peer by session and moves something. Answers the key of its buffer.
fn meet(
    client: &Arc<Engine>,
    session: &str,
    far: Far,
    family: Family,
    random: &mut Random,
    tally: &mut Tally,
) -> u32 {
    let begin = Instant::now();
    let near = Buffer::new(client, length());
    let arena = Arena::new(near, far);
    let mut last = String::new();
    let key = loop {
        assert!(begin.elapsed() < support::LIMIT, "the peer is not found again: {last}");
        // Right after a restart the cached connection may not have noticed yet: its transfers then fail.
        let key_of_far =
            |connection: &Connection| connection.remote_key(arena.far.address(), length() as u64);
        match client.session(session).map(|connection| (key_of_far(&connection), connection)) {
            Ok((Some(key), connection)) => {
                support::make_rails(&connection);
                let mut round = Round::prepare(&connection, &arena, family, random);
                round.submit(None, tally);
                round.finish(tally);
                if round.all_done() {
                    break key;
                }
            }
            Ok((None, connection)) => {
                // Still the former peer's: using it ends in a failure, never in another process's memory.
                last = "connected to the former peer".to_owned();
                let known = connection.describe_remote(arena.far.address(), 64);
                if let Some(remote) = known {
                    let iov = Iov { local: arena.near.address(), length: 64, region: None, remote };
                    if let Ok(id) = connection.submit(Opcode::Write, &[iov][..]) {
                        let status = connection.wait(id, support::LIMIT);
                        tally.false_successes += u64::from(status == Status::Ended(Outcome::Done));
                    }
                }
                tally.detection.push(begin.elapsed());
            }
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    tally.recovery.push(begin.elapsed());
    tally.fault(family, 1);
    key
}
