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
    /// It needs faults that only the software fabric can inject.
    pub software_only: bool,
    pub run: fn(u64, &mut Tally),
}

const fn source(name: &'static str, minimum: u64, software_only: bool, run: fn(u64, &mut Tally)) -> Source {
    Source { name, minimum, software_only, run }
}

pub const FAILING_REQUESTS: Source = source("every k-th request fails", 3500, true, requests::fail_every);
pub const REFUSED_POSTS: Source = source("posts refused at position k", 3500, true, requests::refuse_posts);
pub const KILLED_PEERS: Source = source("peer killed or stopped", 500, true, processes::kill_and_stop);
pub const DESTRUCTION: Source = source("destroyed while busy", 500, false, lifetimes::destroy_busy);
pub const RESTARTS: Source = source("peer restarted on its port", 500, true, processes::restart);
pub const STRANGERS: Source = source("strangers at every listener", 500, false, strangers::knock);
pub const RECONNECTS: Source = source("1000 times connect and close", 1000, false, lifetimes::reconnect);
pub const FULL_QUEUE: Source = source("full queue", 500, true, pressure::full_queue);
pub const SLOW_PEER: Source = source("peer slower by 100x", 500, true, pressure::slow_peer);

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
