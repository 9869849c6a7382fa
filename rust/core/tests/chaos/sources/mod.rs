//! The sixteen sources.

mod channels;
mod forks;
mod lifetimes;
mod memory;
mod networks;
mod pressure;
mod processes;
mod rail_ends;
mod rails;
mod regions;
mod requests;
mod signals;
mod unrelated_clients;

use super::random::Random;
use super::rig::{Rig, ways};
use super::round::{self, FAMILIES, Family};
use super::tally::Tally;
use super::{over_verbs, standins};

/// One source of chaos.
pub struct Source {
    pub name: &'static str,
    /// Faults that a whole run injects at least, dealt evenly to the API families if there are several.
    pub minimum: u64,
    /// Each fault takes long; see [`super::share_of_slow`].
    pub slow: bool,
    /// One in so many faults is injected where nothing is set.
    pub divisor: u64,
    /// Its connections have one rail where others have several, or use none but the first: they have a single lane, or end too soon.
    pub one_rail: bool,
    /// Why it cannot be run over verbs of the kernel, if it cannot.
    pub not_over_verbs: Option<&'static str>,
    /// Why it cannot be run over stand-ins of NICs, if it cannot.
    pub not_over_standins: Option<&'static str>,
    pub run: fn(u64, &mut Tally),
}

impl Source {
    /// Why it cannot be run over the devices of this run, if it cannot.
    pub fn absent(&self) -> Option<&'static str> {
        match (over_verbs(), standins::of_run()) {
            (false, _) => None,
            (true, true) => self.not_over_standins,
            (true, false) => self.not_over_verbs,
        }
    }
}

/// A source that uses all API families, at least 500 times each; [`super::share`] says how many of them.
const fn of_families(name: &'static str, run: fn(u64, &mut Tally)) -> Source {
    source(name, 500 * FAMILIES.len() as u64, run)
}

const fn source(name: &'static str, minimum: u64, run: fn(u64, &mut Tally)) -> Source {
    Source {
        name,
        minimum,
        slow: false,
        divisor: 10,
        one_rail: false,
        not_over_verbs: None,
        not_over_standins: None,
        run,
    }
}

/// A source that needs the software fabric, for this reason.
const fn of_software(reason: &'static str, source: Source) -> Source {
    Source { not_over_verbs: Some(reason), not_over_standins: Some(reason), ..source }
}

/// A source that starts other processes.
const fn of_processes(source: Source) -> Source {
    Source { not_over_standins: Some("their NICs exist in one process"), ..source }
}

pub const FAILING_REQUESTS: Source = of_families("every k-th request fails", requests::fail_every);
pub const REFUSED_POSTS: Source = of_software(
    "needs the software fabric's refusals; credits never let a real send queue fill up",
    of_families("posts refused at position k", requests::refuse_posts),
);
pub const KILLED_PEERS: Source =
    of_processes(Source { slow: true, ..of_families("peer killed or stopped", processes::kill_and_stop) });
pub const DESTRUCTION: Source =
    Source { slow: true, ..of_families("destroyed while busy", lifetimes::destroy_busy) };
pub const RESTARTS: Source = of_processes(Source {
    slow: true,
    one_rail: true,
    ..of_families("peer restarted on its port", processes::restart)
});
pub const UNRELATED_CLIENTS: Source =
    source("unrelated clients at every listener", 500, unrelated_clients::connect_unrelated);
pub const RECONNECTS: Source = source("1000 times connect and close", 1000, lifetimes::reconnect);
pub const FULL_QUEUE: Source = Source { one_rail: true, ..source("full queue", 500, pressure::full_queue) };
pub const SLOW_PEER: Source = of_software(
    "needs the software fabric's slowness",
    of_families("peer slower by 100x", pressure::slow_peer),
);
pub const REGIONS: Source = of_families("regions come and go", regions::come_and_go);
pub const SIGNALS: Source = of_software(
    "looks at the paths of the software fabric",
    of_families("signals at every thread", signals::interrupt),
);

pub const MEMORY: Source = of_software(
    "a device has pinned its memory, which does not go away for it",
    of_families("memory vanishes", memory::vanish),
);

pub const FORKS: Source =
    of_processes(Source { slow: true, ..source("forks", forks::FORKS, forks::fork_children) });

pub const NETWORKS: Source = of_software(
    "stands between the sockets of the software fabric",
    Source { slow: true, ..source("network between processes", networks::FAULTS, networks::disturb) },
);

pub const RAILS: Source = Source {
    divisor: rails::DIVISOR,
    not_over_verbs: Some("needs NICs that fail one by one when they are told to"),
    ..of_families("rails die", rails::die)
};

pub const CHANNELS: Source = of_software(
    "stands between the sockets of two ends, and needs software NICs that fail one by one",
    of_families("control channel dies", channels::die),
);

pub const ALL: &[Source] = &[
    FAILING_REQUESTS,
    REFUSED_POSTS,
    KILLED_PEERS,
    DESTRUCTION,
    RESTARTS,
    UNRELATED_CLIENTS,
    RECONNECTS,
    FULL_QUEUE,
    SLOW_PEER,
    REGIONS,
    SIGNALS,
    MEMORY,
    FORKS,
    NETWORKS,
    RAILS,
    CHANNELS,
];

/// What a process keeps after its first transfer it keeps for good: that is no leak.
pub fn warm_up() {
    let mut tally = Tally::new("warm-up", 0);
    for way in ways() {
        let rig = Rig::new(*way, &[]);
        assert!(round::run(&rig, Family::Write, &mut Random::new(1), &mut tally), "{way:?}: {tally:?}");
    }
}

/// Shows that the harness detects false successes: returns how many it counted.
pub fn lie() -> u64 {
    requests::lie()
}
