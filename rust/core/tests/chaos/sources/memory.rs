//! Memory that goes away while it is registered, under the transfers that use it.
#![allow(unsafe_code, reason = "registers memory by address")]

use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};

use crate::chaos::buffer::{Buffer, Memory};
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way, length};
use crate::chaos::round::{FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::{share, watchdog};
use crate::support;
use crate::support::vanishing::{How, PAGE, Vanishing};

/// Times that memory goes, in all.
const TIMES: u64 = 3500;

/// Each turn: a transfer with memory that goes before it begins or while it is under way, in the middle of a round of others.
/// It fails, or is done if it was quicker; the others are done in any case.
pub fn vanish(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let ways = [Way::InProcess, Way::CrossMemory, Way::Tcp];
    for way in ways {
        let rig = Rig::new(way, &[]);
        let spare = Buffer::new(&rig.client, length());
        for turn in 0..share(TIMES).div_ceil(ways.len() as u64).next_multiple_of(FAMILIES.len() as u64) {
            let family = FAMILIES[turn as usize % FAMILIES.len()];
            let vanishing = VanishingTransfer::new(&rig, way, &mut random);
            vanishing.run(&rig, &spare, family, &mut random, tally);
            tally.fault(family, 1);
        }
    }
}

/// A transfer with memory that goes.
struct VanishingTransfer {
    memory: Vanishing,
    owner: Arc<Engine>,
    region: RegionId,
    /// Whether it is this side's.
    near: bool,
    /// Whether it goes before the transfer begins.
    before: bool,
    /// Nothing of it stays.
    whole: bool,
}

impl VanishingTransfer {
    fn new(rig: &Rig, way: Way, random: &mut Random) -> Self {
        // In process, and between processes that map their memory, copies to and from memory of no file are plain instructions: only
        // the program itself could take it away, which promised not to, and its access would be a signal as any other use of memory
        // that was unmapped. A file can be cut by any program that has it open, so the kernel copies there, and that is tested.
        let is_kept = way == Way::InProcess || Memory::of_run() == Memory::Allocated;
        let hows: &[How] = match is_kept {
            true => &[How::Truncated, How::TruncatedPrivate],
            false => &[How::Truncated, How::TruncatedPrivate, How::Unmapped, How::Protected],
        };
        let whole = random.below(2) == 0;
        let from = if whole { 0 } else { (1 + random.below(7) as usize) * PAGE };
        let memory = Vanishing::new(*random.pick(hows), length(), from).unwrap();
        let far = rig.server.as_ref().filter(|_| random.below(2) == 0);
        let (near, owner) = (far.is_none(), Arc::clone(far.unwrap_or(&rig.client)));
        // SAFETY: what happens to the memory is what this tests; no reference into it exists.
        let region =
            unsafe { owner.register(memory.address(), length() as u64, RegisterOptions::default()) }.unwrap();
        Self { memory, owner, region, near, before: random.below(2) == 0, whole }
    }

    fn run(self, rig: &Rig, spare: &Buffer, family: Family, random: &mut Random, tally: &mut Tally) {
        watchdog::step("memory vanishes");
        let mut round = Round::prepare(&rig.here, &rig.arena, family, random);
        assert!(spare.fill(&vec![0; length()]));
        if self.before {
            self.memory.vanish();
        }
        let begin = Instant::now();
        // What is under way in the arena is not to be written over, so only what surely writes nothing goes there.
        let writes = random.below(2) == 0 && (!self.near || (self.before && self.whole));
        let opcode = if writes { Opcode::Write } else { Opcode::Read };
        let id = self.start(rig, spare, opcode);
        round.submit(None, tally);
        if !self.before {
            self.memory.vanish();
        }
        match rig.here.wait(id, support::LIMIT) {
            Status::Ended(outcome) => {
                tally.outcome(&outcome);
                let done = outcome == Outcome::Done;
                let false_successes = done && (self.before || !self.is_true(spare, opcode));
                tally.false_successes += u64::from(false_successes);
            }
            Status::Pending | Status::Unknown => tally.hangs += 1,
        }
        tally.detection.push(begin.elapsed());
        let known = Instant::now();
        round.finish(tally);
        assert!(round.all_done(), "it spoils another transfer");
        rig.settle();
        tally.recovery.push(known.elapsed());
        assert!(self.owner.deregister(self.region));
    }

    fn start(&self, rig: &Rig, spare: &Buffer, opcode: Opcode) -> TransferId {
        let (local, remote) = match self.near {
            true => (self.memory.address(), rig.arena.far.address()),
            false => (spare.address(), self.memory.address()),
        };
        let remote = rig.here.describe_remote(remote, length() as u32).unwrap();
        let iov = Iov { local, length: length() as u64, region: None, remote };
        rig.here.submit(opcode, &[iov][..]).unwrap()
    }

    /// Whether a transfer reported as done is done, where that can be checked.
    fn is_true(&self, spare: &Buffer, opcode: Opcode) -> bool {
        let seen = !self.near && opcode == Opcode::Read;
        !seen || spare.content().iter().all(|byte| *byte == 0x5a)
    }
}
