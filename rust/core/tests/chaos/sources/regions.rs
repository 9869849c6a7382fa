//! Regions of the peer that come and go under the transfers that use them.

use std::time::Instant;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, Status, TransferId};

use crate::chaos::arena::{Far, GUARD};
use crate::chaos::buffer::Buffer;
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way, length};
use crate::chaos::round::{self, FAMILIES, Family};
use crate::chaos::tally::Tally;
use crate::chaos::{over_verbs, share, watchdog};
use crate::support;

/// Regions that come or go, in all.
const CHANGES: u64 = 3500;

/// Each turn: the peer's buffer goes, others come and go meanwhile, and it comes again, at the same address or another one.
/// A look-up finds it soon; the key that it had writes nothing.
pub fn come_and_go(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let ways: &[_] = match over_verbs() {
        true => &[Way::Verbs],
        false => &[Way::InProcess, Way::Tcp],
    };
    for way in ways {
        let mut rig = Rig::new(*way, &[]);
        for turn in 0..share(CHANGES).div_ceil(ways.len() as u64).next_multiple_of(FAMILIES.len() as u64) {
            let family = FAMILIES[turn as usize % FAMILIES.len()];
            renew(&mut rig, family, &mut random, tally);
        }
    }
}

fn renew(rig: &mut Rig, family: Family, random: &mut Random, tally: &mut Tally) {
    watchdog::step("regions come and go");
    let server = rig.server.clone().unwrap();
    let old = rig.here.describe_remote(rig.arena.far.address(), length() as u32);
    let begin = Instant::now();
    // Taken back while a transfer to it may be under way.
    let racing = old.and_then(|remote| start(rig, remote));
    let after = (random.below(2) == 0).then(|| Buffer::new(&server, length()));
    let nowhere = Far::There { pid: 0, address: 0, length: 0 };
    drop(std::mem::replace(&mut rig.arena.far, nowhere));
    // If it is registered after the old one was deregistered, mostly at the same address.
    rig.arena.far = Far::Here(after.unwrap_or_else(|| Buffer::new(&server, length())));
    if let Some(id) = racing {
        match rig.here.wait(id, support::LIMIT) {
            Status::Ended(outcome) => tally.outcome(&outcome),
            Status::Pending | Status::Unknown => tally.hangs += 1,
        }
    }
    let others: Vec<Buffer> = (0..random.below(4)).map(|_| Buffer::new(&server, 64)).collect();
    // The key of a deregistered region: refused, or failed, and nothing is written.
    assert!(rig.arena.fill_far(&vec![GUARD; length()]));
    if let Some(remote) = old {
        let gone = RemoteRange { address: rig.arena.far.address(), ..remote };
        match start(rig, gone).map(|id| rig.here.wait(id, support::LIMIT)) {
            None => tally.refused += 1,
            Some(Status::Ended(Outcome::Done)) => tally.false_successes += 1,
            Some(Status::Ended(outcome)) => tally.outcome(&outcome),
            Some(Status::Pending | Status::Unknown) => tally.hangs += 1,
        }
        tally.detection.push(begin.elapsed());
    }
    let Far::Here(far) = &rig.arena.far else { return };
    tally.damaged += u64::from(far.content().iter().any(|byte| *byte != GUARD));
    drop(others);
    // What interrupted transfers did to the lanes is over.
    rig.settle();
    let again = Instant::now();
    // A look-up may still find the former one until the change arrives: then this fails, and nothing is written.
    while !round::run(rig, family, random, tally) {
        assert!(again.elapsed() < support::LIMIT, "the region that has come is not found");
    }
    tally.recovery.push(again.elapsed());
    tally.fault(family, 1);
}

/// Writes to the range; `None` if that is refused.
fn start(rig: &Rig, remote: RemoteRange) -> Option<TransferId> {
    let iov = Iov { local: rig.arena.near.address(), length: length() as u64, region: None, remote };
    rig.here.submit(Opcode::Write, &[iov][..]).ok()
}
