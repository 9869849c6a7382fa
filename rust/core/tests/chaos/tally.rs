//! What a source has done, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use flagcx_p2p::internals::transfer::Outcome;

use super::process_resources::Leaks;
use super::round::Family;

#[derive(Debug)]
pub struct Tally {
    source: &'static str,
    seed: u64,
    pub wall: Duration,
    /// Faults injected, and how many of them while which API family was in use.
    pub faults: u64,
    pub by_family: BTreeMap<Family, u64>,
    pub done: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    /// Not accepted: refused by the call itself.
    pub refused: u64,
    /// Reported as done, and the peer ended before its memory could be checked.
    pub unseen: u64,
    pub false_successes: u64,
    pub hangs: u64,
    pub damaged: u64,
    pub leaks: Leaks,
    /// From the fault (or the call that met it) to the caller's knowledge.
    pub detection: Vec<Duration>,
    /// From then to the next transfer that was done.
    pub recovery: Vec<Duration>,
}

impl Tally {
    pub fn new(source: &'static str, seed: u64) -> Self {
        Self {
            source,
            seed,
            wall: Duration::ZERO,
            faults: 0,
            by_family: BTreeMap::new(),
            done: 0,
            failed: 0,
            timed_out: 0,
            cancelled: 0,
            refused: 0,
            unseen: 0,
            false_successes: 0,
            hangs: 0,
            damaged: 0,
            leaks: Leaks::default(),
            detection: Vec::new(),
            recovery: Vec::new(),
        }
    }

    pub fn fault(&mut self, family: Family, count: u64) {
        self.faults += count;
        *self.by_family.entry(family).or_default() += count;
    }

    pub fn of_family(&self, family: Family) -> u64 {
        self.by_family.get(&family).copied().unwrap_or(0)
    }

    pub fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Cancelled => self.cancelled += 1,
        }
    }

    /// What must hold. `minimum` faults in all, and for each family that the source uses its part of them.
    pub fn check(&self, minimum: u64) {
        assert_eq!(self.false_successes, 0, "{}: transfers reported as done are not", self.source);
        assert_eq!(self.damaged, 0, "{}: bytes outside the windows changed", self.source);
        assert_eq!(self.hangs, 0, "{}: transfers did not end", self.source);
        assert_eq!(self.leaks, Leaks::default(), "{}: something was left behind", self.source);
        assert!(self.faults >= minimum, "{}: only {} faults", self.source, self.faults);
        let part = minimum / self.by_family.len().max(1) as u64;
        let few = self.by_family.iter().find(|(_, faults)| **faults < part);
        assert!(few.is_none(), "{}: only {few:?} of {part}", self.source);
        assert!(self.done > 0, "{}: nothing was ever done", self.source);
    }

    pub fn header() -> String {
        "| source | faults | per family, least | done | failed | timed out | cancelled | refused | false | hangs | guards | leaks | detection p50 / p99 | recovery p50 / p99 | seed | wall |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
            .to_owned()
    }

    pub fn row(&self) -> String {
        let leaks = self.leaks.descriptors
            + self.leaks.threads
            + self.leaks.tables
            + self.leaks.memory
            + self.leaks.verbs;
        let least = match self.by_family.len() {
            0 | 1 => "-".to_owned(),
            families => format!("{} of {families}", self.by_family.values().min().copied().unwrap_or(0)),
        };
        format!(
            "| {} | {} | {least} | {} | {} | {} | {} | {} | {} | {} | {} | {leaks} | {} | {} | {} | {:.1} s |",
            self.source,
            self.faults,
            self.done,
            self.failed,
            self.timed_out,
            self.cancelled,
            self.refused,
            self.false_successes,
            self.hangs,
            self.damaged,
            percentiles(&self.detection),
            percentiles(&self.recovery),
            self.seed,
            self.wall.as_secs_f64(),
        )
    }

    pub fn absent_row(source: &str, reason: &str) -> String {
        format!("| {source} | not run: {reason} |")
    }
}

fn percentiles(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    match (at(50), at(99)) {
        (Some(median), Some(late)) => format!("{} / {}", milliseconds(*median), milliseconds(*late)),
        _ => "-".to_owned(),
    }
}

fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}
