//! Forks of a process with transfers under way, and actions of its children.
#![allow(unsafe_code, reason = "forks, and drops in the child what is not its own")]

use std::time::Instant;

use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};

use crate::chaos::buffer::Buffer;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way, length, settings_for, ways};
use crate::chaos::round::{FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::{over_verbs, share_of_slow, watchdog};
use crate::support::children::{expect_pair_works, expect_success, fork};
use crate::support::{config, outcome};

/// Forks in all.
pub const FORKS: u64 = 1400;

/// What a child does.
#[derive(Clone, Copy, Debug)]
enum ChildAction {
    Ends,
    Exits,
    Drops,
    Closes,
    Forks,
    BeginsAnew,
}

const DEEDS: [ChildAction; 6] = [
    ChildAction::Ends,
    ChildAction::Exits,
    ChildAction::Drops,
    ChildAction::Closes,
    ChildAction::Forks,
    ChildAction::BeginsAnew,
];

/// A fault is a fork while a round of transfers is under way; the round is done as if there had been none.
pub fn fork_children(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let ways =
        if over_verbs() { ways() } else { &[Way::InProcess, Way::CrossMemory, Way::TcpBetweenProcesses] };
    let each = share_of_slow(FORKS).div_ceil((ways.len() * FAMILIES.len()) as u64);
    for way in ways {
        let rig = Rig::new(*way, &[]);
        for family in FAMILIES {
            for _ in 0..each {
                fork_within_a_round(*way, &rig, family, &mut random, tally);
            }
        }
    }
}

fn fork_within_a_round(way: Way, rig: &Rig, family: Family, random: &mut Random, tally: &mut Tally) {
    let action = *random.pick(&DEEDS);
    let begin = Instant::now();
    let mut round = Round::prepare(&rig.here, &rig.arena, family, random);
    round.submit(None, tally);
    let child = fork(|| act(action, way, rig));
    round.finish(tally);
    assert!(round.all_done(), "{action:?} in a child of {way:?} disturbs a transfer");
    watchdog::step("the end of a forked child");
    expect_success(child);
    tally.recovery.push(begin.elapsed());
    tally.fault(family, 1);
}

/// In the child.
fn act(action: ChildAction, way: Way, rig: &Rig) {
    match action {
        ChildAction::Ends => {}
        // SAFETY: ends the process.
        ChildAction::Exits => unsafe { libc::exit(0) },
        ChildAction::Drops => drop_copy(rig),
        ChildAction::Closes => {
            rig.here.close();
            rig.client.close();
            drop_copy(rig);
        }
        ChildAction::Forks => expect_success(fork(|| {
            refuse(rig);
            begin_anew(way, rig);
        })),
        ChildAction::BeginsAnew => {
            refuse(rig);
            begin_anew(way, rig);
            refuse(rig);
        }
    }
}

fn drop_copy(rig: &Rig) {
    // SAFETY: in a child, which does not use the originals any more.
    drop(unsafe { (std::ptr::read(&raw const rig.here), std::ptr::read(&raw const rig.client)) });
    // SAFETY: as above.
    drop(unsafe { std::ptr::read(&raw const rig.arena) });
}

fn refuse(rig: &Rig) {
    let region = Some(rig.arena.near.region());
    let iov = Iov { local: rig.arena.near.address(), length: 64, region, remote: RemoteRange::default() };
    let refusal = rig.here.submit(Opcode::Write, &[iov]).unwrap_err();
    assert!(refusal.to_string().contains("forked from process"), "{refusal}");
    assert!(rig.client.here().is_err());
    assert!(!rig.here.is_usable());
}

/// An engine of the child's own moves bytes: from the peer, or between two of them.
fn begin_anew(way: Way, rig: &Rig) {
    let settings = settings_for(way, &[]);
    let Some(peer) = &rig.peer else { return expect_pair_works(&settings, None) };
    let engine = Engine::open(config(&settings), EngineOptions::default()).unwrap();
    let buffer = Buffer::new(&engine, length());
    let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
    let remote = here.describe_remote(peer.address, length() as u32).unwrap();
    let iov = Iov { local: buffer.address(), length: length() as u64, region: Some(buffer.region()), remote };
    assert_eq!(outcome(&here, here.submit(Opcode::Read, &[iov]).unwrap()), Outcome::Done);
}
