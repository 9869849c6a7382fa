//! The nine sources.

mod lifetimes;
mod pressure;
mod processes;
mod requests;
mod strangers;

use super::random::Random;
use super::rig::{Rig, ways};
use super::round::{self, Family};
use super::tally::Tally;

/// One source of chaos.
pub struct Source {
    pub name: &'static str,
    /// Faults that one run injects at least.
    pub minimum: u64,
    /// Why it cannot be run over real verbs, if it cannot.
    pub not_over_verbs: Option<&'static str>,
    pub run: fn(u64, &mut Tally),
}

const fn source(name: &'static str, minimum: u64, run: fn(u64, &mut Tally)) -> Source {
    Source { name, minimum, not_over_verbs: None, run }
}

pub const FAILING_REQUESTS: Source = source("every k-th request fails", 3500, requests::fail_every);
pub const REFUSED_POSTS: Source = Source {
    not_over_verbs: Some("needs the software fabric's refusals; credits never let a real send queue fill up"),
    ..source("posts refused at position k", 3500, requests::refuse_posts)
};
pub const KILLED_PEERS: Source = source("peer killed or stopped", 500, processes::kill_and_stop);
pub const DESTRUCTION: Source = source("destroyed while busy", 500, lifetimes::destroy_busy);
pub const RESTARTS: Source = source("peer restarted on its port", 500, processes::restart);
pub const STRANGERS: Source = source("strangers at every listener", 500, strangers::knock);
pub const RECONNECTS: Source = source("1000 times connect and close", 1000, lifetimes::reconnect);
pub const FULL_QUEUE: Source = source("full queue", 500, pressure::full_queue);
pub const SLOW_PEER: Source = Source {
    not_over_verbs: Some("needs the software fabric's slowness"),
    ..source("peer slower by 100x", 500, pressure::slow_peer)
};

pub const ALL: &[Source] = &[
    FAILING_REQUESTS,
    REFUSED_POSTS,
    KILLED_PEERS,
    DESTRUCTION,
    RESTARTS,
    STRANGERS,
    RECONNECTS,
    FULL_QUEUE,
    SLOW_PEER,
];

/// What a process keeps after its first transfer it keeps for good: that is no leak.
pub fn warm_up() {
    let mut tally = Tally::new("warm-up", 0);
    for way in ways() {
        let rig = Rig::new(*way, &[]);
        assert!(round::run(&rig, Family::Write, &mut Random::new(1), &mut tally), "{way:?}: {tally:?}");
    }
}

/// Shows that the harness catches an engine that lies: answers the false successes that it counted.
pub fn lie() -> u64 {
    requests::lie()
}
