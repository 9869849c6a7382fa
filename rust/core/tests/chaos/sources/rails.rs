//! Rails that die, one or several at a time, in the middle of transfers: eight NICs at each end.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::PathKind;

use super::rail_ends::{Ends, Fault, SoftwareEnds, StandinEnds};
use crate::chaos::nics::{ENOUGH, carried, make_rails, moved, up};
use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Settings};
use crate::chaos::round::{FAMILIES, Family, Round};
use crate::chaos::standins::{self, COUNT, End};
use crate::chaos::tally::Tally;
use crate::chaos::watchdog;
use crate::support::share_or;

/// Faults of each family.
const QUOTA: u64 = 500;

/// One in so many faults is injected where nothing is set: several engines with eight NICs each take seconds.
pub const DIVISOR: u64 = 50;

/// Bytes of each buffer: a transfer has up to a quarter, and half of that at least, and so takes several rails.
const LENGTH: usize = 4 << 20;

/// A round that takes longer is shown with what was struck.
const NOTABLE: Duration = Duration::from_millis(500);

/// After how many faults a connection gives way to a new one.
const OF_A_RIG: u64 = 35;

const SETTINGS: &Settings<'static> =
    &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "8000"), ("FLAGCX_P2P_WORKERS_PER_POOL", "2")];

/// A turn: before or during a round, one to seven NICs of one end fail, each in its way; they come back in the middle of the round
/// or after it. As one NIC works on, and all are back soon, every transfer is done.
pub fn die(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let faults = share_or(QUOTA, DIVISOR) * FAMILIES.len() as u64;
    let paths = [None, Some(PathKind::Tcp)];
    for turn in 0..faults.div_ceil(OF_A_RIG) {
        watchdog::step("making rails");
        let rig = RailRig::new(match standins::of_run() {
            true => Box::new(StandinEnds::open()),
            false => Box::new(SoftwareEnds::on_path(paths[turn as usize % paths.len()])),
        });
        for fault in turn * OF_A_RIG..faults.min((turn + 1) * OF_A_RIG) {
            rig.strike_a_round(FAMILIES[fault as usize % FAMILIES.len()], &mut random, tally);
        }
        rig.lose_one(&mut random, tally);
        rig.end();
    }
}

struct RailRig {
    ends: Box<dyn Ends>,
    rig: Rig,
}

impl RailRig {
    fn new(ends: Box<dyn Ends>) -> Self {
        let [client, server] = [End::Here, End::There].map(|end| ends.engine(end, SETTINGS));
        let rig = Rig::between(client, server, LENGTH);
        let server = rig.server.clone().unwrap();
        let (source, target) = (rig.client.allocate(ENOUGH).unwrap(), server.allocate(ENOUGH).unwrap());
        make_rails(&rig.here, &source, target.address(), COUNT as usize);
        Self { ends, rig }
    }

    fn end(self) {
        drop(self.rig);
        self.ends.expect_nothing();
    }

    fn strike_a_round(&self, family: Family, random: &mut Random, tally: &mut Tally) {
        let (begins_first, is_short) = (random.below(2) == 0, random.below(2) == 0);
        let mut round = Round::prepare_large(&self.rig.here, &self.rig.arena, family, random);
        self.ends.prepare();
        let mut struck = if begins_first { self.strike(random) } else { String::new() };
        let begin = Instant::now();
        round.submit(None, tally);
        if !begins_first {
            struck = self.strike(random);
        }
        if is_short {
            std::thread::sleep(Duration::from_micros(random.below(15_000)));
            self.ends.heal();
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
        self.ends.heal();
        tally.fault(family, 1);
    }

    /// One to seven NICs of one end fail; which ones, and how.
    fn strike(&self, random: &mut Random) -> String {
        let end = if random.below(2) == 0 { End::Here } else { End::There };
        let mut struck = format!("{end:?}:");
        let (first, count) = (random.below(COUNT), 1 + random.below(COUNT - 1));
        for nic in (first..first + count).map(|nic| (nic % COUNT) as usize) {
            let fault = *random.pick(self.ends.faults(end));
            struck += &format!(" {nic} {fault:?}");
            self.ends.strike(end, nic, fault, random);
        }
        struck
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
        let end = if random.below(2) == 0 { End::Here } else { End::There };
        let nic = random.below(COUNT) as usize;
        let mut round = Round::prepare_large(&self.rig.here, &self.rig.arena, Family::TestBatch, random);
        self.ends.strike(end, nic, Fault::Silent, random);
        round.submit(None, tally);
        self.ends.lose(end, nic);
        round.finish(tally);
        assert!(round.all_done(), "a lost device spoils a transfer: {:#?}", self.rig.here.rails());
    }
}
