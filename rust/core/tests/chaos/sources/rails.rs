//! Rails that die, one or several at a time, in the middle of transfers: eight NICs at each end.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::PathKind;

use crate::chaos::nics::{ENOUGH, Nics, carried, make_rails, moved, up};
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Settings};
use crate::chaos::round::{FAMILIES, Family, Round};
use crate::chaos::tally::Tally;
use crate::chaos::watchdog;
use crate::support::share_or;

/// Faults of each family.
const QUOTA: u64 = 500;

/// One in so many faults is injected where nothing is set: several engines with eight NICs each take seconds.
pub const DIVISOR: u64 = 50;

/// NICs of each end, and rails between them.
const COUNT: u64 = 8;

/// Bytes of each buffer: a transfer has up to a quarter, and half of that at least, and so takes several rails.
const LENGTH: usize = 4 << 20;

/// How late flushed WRITEs arrive: into a later round, or into this one's guards.
const LATE: Duration = Duration::from_millis(2);

/// A round that takes longer is shown with what was struck.
const NOTABLE: Duration = Duration::from_millis(500);

/// After how many faults a connection gives way to a new one.
const OF_A_RIG: u64 = 35;

const SETTINGS: &Settings<'static> =
    &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "8000"), ("FLAGCX_P2P_WORKERS_PER_POOL", "2")];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Completes nothing.
    Silent,
    /// Takes milliseconds for each request.
    Slow,
    /// Every so many requests fail.
    Failing,
    /// Its queue pairs fail once.
    Broken,
    /// Its port goes down.
    Port,
}

const FAULTS: [Fault; 5] = [Fault::Silent, Fault::Slow, Fault::Failing, Fault::Broken, Fault::Port];

/// A turn: before or during a round, one to seven NICs of one end fail, each in its way; they come back in the middle of the round
/// or after it. As one NIC works on, and all are back soon, every transfer is done.
pub fn die(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let faults = share_or(QUOTA, DIVISOR) * FAMILIES.len() as u64;
    let paths = [None, Some(PathKind::Tcp)];
    for turn in 0..faults.div_ceil(OF_A_RIG) {
        watchdog::step("making rails");
        let rig = RailRig::new(paths[turn as usize % paths.len()]);
        for fault in turn * OF_A_RIG..faults.min((turn + 1) * OF_A_RIG) {
            rig.strike_a_round(FAMILIES[fault as usize % FAMILIES.len()], &mut random, tally);
        }
        rig.lose_one(&mut random, tally);
    }
}

struct RailRig {
    near: Nics,
    far: Nics,
    rig: Rig,
}

impl RailRig {
    fn new(path: Option<PathKind>) -> Self {
        let (near, far) = (Nics::on_path(COUNT as u32, path), Nics::on_path(COUNT as u32, path));
        let rig = Rig::between(near.engine(SETTINGS), far.engine(SETTINGS), LENGTH);
        let server = rig.server.clone().unwrap();
        let (source, target) = (rig.client.allocate(ENOUGH).unwrap(), server.allocate(ENOUGH).unwrap());
        make_rails(&rig.here, &source, target.address(), COUNT as usize);
        Self { near, far, rig }
    }

    fn strike_a_round(&self, family: Family, random: &mut Random, tally: &mut Tally) {
        let (begins_first, is_short) = (random.below(2) == 0, random.below(2) == 0);
        let mut round = Round::prepare_large(&self.rig.here, &self.rig.arena, family, random);
        (0..COUNT as usize).for_each(|nic| self.near.switches(nic).set_late(LATE));
        let mut struck = if begins_first { self.strike(random) } else { String::new() };
        let begin = Instant::now();
        round.submit(None, tally);
        if !begins_first {
            struck = self.strike(random);
        }
        if is_short {
            std::thread::sleep(Duration::from_micros(random.below(15_000)));
            self.heal();
        }
        round.finish(tally);
        let (all_done, ends) = (round.all_done(), round.ends());
        drop(round);
        let taken = begin.elapsed();
        self.rig.note(all_done, begin, tally);
        tally.recovery.push(taken);
        if taken > NOTABLE {
            println!(
                "{family:?} took {taken:?}: {struck}, before it {begins_first}, short {is_short}: {:#?}",
                self.rig.here.rails()
            );
        }
        assert!(
            all_done,
            "rails that fail spoil a transfer ({family:?}, {struck}, before it {begins_first}, short {is_short}): {ends}, {:?}: {:#?}",
            begin.elapsed(),
            self.rig.here.rails()
        );
        self.heal();
        tally.fault(family, 1);
    }

    /// One to seven NICs of one end fail; which ones, and how.
    fn strike(&self, random: &mut Random) -> String {
        let is_near = random.below(2) == 0;
        let nics = if is_near { &self.near } else { &self.far };
        let mut struck = format!("{} end:", if is_near { "this" } else { "the other" });
        let (first, count) = (random.below(COUNT), 1 + random.below(COUNT - 1));
        for nic in (first..first + count).map(|nic| (nic % COUNT) as usize) {
            let (switches, fault) = (nics.switches(nic), *random.pick(&FAULTS));
            struck += &format!(" {nic} {fault:?}");
            match fault {
                Fault::Silent => switches.set_silent(true),
                Fault::Slow => switches.set_delay(Duration::from_millis(1 + random.below(5))),
                Fault::Failing => switches.set_failing(1 + random.below(3)),
                Fault::Broken => nics.devices[nic].break_queue_pairs(),
                Fault::Port => nics.set_port(nic, false),
            }
        }
        struck
    }

    fn heal(&self) {
        self.near.heal();
        self.far.heal();
    }

    /// All rails come back; then a device is lost for good, and the others go on without it.
    fn lose_one(&self, random: &mut Random, tally: &mut Tally) {
        watchdog::step("waiting for all rails");
        crate::support::eventually("all rails are up", || up(&self.rig.here).len() == COUNT as usize);
        let rails = self.rig.here.rails();
        let used = carried(&self.rig.here).iter().filter(|bytes| **bytes > 0).count();
        assert!(
            used > 1 && moved(&self.rig.here) > 0,
            "rails were not used, or no part has moved: {rails:#?}"
        );
        let nics = if random.below(2) == 0 { &self.near } else { &self.far };
        let nic = random.below(COUNT) as usize;
        let mut round = Round::prepare_large(&self.rig.here, &self.rig.arena, Family::TestBatch, random);
        nics.switches(nic).set_silent(true);
        round.submit(None, tally);
        nics.lose(nic);
        round.finish(tally);
        assert!(round.all_done(), "a lost device spoils a transfer: {:#?}", self.rig.here.rails());
    }
}
