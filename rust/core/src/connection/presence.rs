//! How the end of a peer is noticed where its sockets do not tell.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::control::wire::Features;
use crate::process::PeerProcess;

/// What tells, besides the control connection, that the peer is gone. A process that the peer has forked may hold its
/// sockets, and a host that has lost its power closes none.
#[derive(Clone, Debug)]
pub enum Presence {
    /// Nothing: an original engine, or one of this process.
    Sockets,
    /// Its process can be seen from here. One that is stopped is there.
    Process(Arc<PeerProcess>),
    /// It answers pings, and is missed within a third of this time.
    Pinged(Duration),
}

impl Presence {
    /// Of a peer with these features.
    pub fn of(config: &Config, features: Option<&Features>) -> Self {
        let Some(features) = features else { return Self::Sockets };
        if let Some(process) = PeerProcess::of_claim(features.claim) {
            return Self::Process(process);
        }
        let asks = features.has(Features::CHANNEL | Features::LIVENESS) && !features.claim.is_own();
        config.keepalive.filter(|_| asks).map_or(Self::Sockets, Self::Pinged)
    }
}
