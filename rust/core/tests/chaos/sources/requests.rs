//! Requests that fail, and posts that are refused.

use flagcx_p2p::internals::fabric::software::faults_injected;

use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way, ways};
use crate::chaos::round::{self, FAMILIES};
use crate::chaos::tally::Tally;
use crate::chaos::{over_verbs, share, standins};

/// Faults of each family.
const QUOTA: u64 = 500;

/// A key that no region has.
const NO_KEY: u32 = !0;

/// Interruptions, which are retried, and permanent failures, which are reported.
pub fn fail_every(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    if over_verbs() {
        return refuse_every(&mut random, tally);
    }
    let statuses = ["retry-exceeded", "fatal", "general", "remote-access"];
    let turns = (ways().len() * statuses.len()) as u64;
    for (turn, (way, status)) in
        ways().iter().flat_map(|way| statuses.map(|status| (way, status))).enumerate()
    {
        let k = [3, 7, 2, 11, 5][turn % 5];
        let faults = format!("seed={seed};fail=every:{k}:{status}");
        let rig = Rig::new(*way, &[("FLAGCX_P2P_FAULTS", &faults)]);
        until_quota(&rig, share(QUOTA) * (turn as u64 + 1) / turns, &mut random, tally);
    }
}

/// Where nothing can be injected: every k-th transfer begins with a request that the peer's device refuses.
fn refuse_every(random: &mut Random, tally: &mut Tally) {
    let every = [3, 7, 2, 5];
    for (turn, k) in every.into_iter().enumerate() {
        let quota = share(QUOTA) * (turn as u64 + 1) / every.len() as u64;
        let rig = Rig::new(Way::Verbs, &[]);
        while let Some(family) = FAMILIES.into_iter().find(|family| tally.of_family(*family) < quota) {
            for _ in 1..k {
                assert!(round::run(&rig, family, random, tally), "a failure spoils another transfer");
            }
            assert!(!round::run_with(&rig, family, Some(NO_KEY), random, tally));
            tally.fault(family, 1);
        }
    }
}

/// A refused post is back-pressure: nothing may fail.
pub fn refuse_posts(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let positions = [2, 3, 5, 8];
    let turns = (ways().len() * positions.len()) as u64;
    for (turn, (way, k)) in ways().iter().flat_map(|way| positions.map(|k| (way, k))).enumerate() {
        let faults = format!("seed={seed};refuse=every:{k}");
        let rig = Rig::new(*way, &[("FLAGCX_P2P_FAULTS", &faults)]);
        let failed = tally.failed;
        until_quota(&rig, share(QUOTA) * (turn as u64 + 1) / turns, &mut random, tally);
        assert_eq!(tally.failed, failed, "a refused post is tried again, not reported");
    }
}

/// Rounds through all families in turn until each has met so many faults.
fn until_quota(rig: &Rig, quota: u64, random: &mut Random, tally: &mut Tally) {
    while let Some(family) = FAMILIES.into_iter().find(|family| tally.of_family(*family) < quota) {
        for _ in 0..8 {
            let before = faults_injected();
            round::run(rig, family, random, tally);
            tally.fault(family, faults_injected() - before);
        }
    }
}

/// Every third request is called a success although nothing moved, over stand-ins every one.
pub fn lie() -> u64 {
    let mut tally = Tally::new("lies", 1);
    let mut random = Random::new(1);
    for way in ways() {
        let rig = Rig::new(*way, &[("FLAGCX_P2P_FAULTS", "lie=every:3")]);
        let before = tally.false_successes;
        standins::lie(true);
        for family in FAMILIES.into_iter().cycle().take(21) {
            round::run(&rig, family, &mut random, &mut tally);
        }
        standins::lie(false);
        assert!(tally.false_successes > before, "{way:?}: false successes were not detected");
        assert_eq!((tally.hangs, tally.damaged), (0, 0));
    }
    tally.false_successes
}
