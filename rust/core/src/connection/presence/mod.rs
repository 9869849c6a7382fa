//! How the end of a peer is noticed where its sockets do not tell.

mod liveness;
mod pinger;

use std::sync::Arc;

use crate::config::Config;
use crate::control::wire::Features;
use crate::process::PeerProcess;

pub use pinger::Pinger;

/// What tells, besides the control connection, that the peer is gone. A process that the peer has forked may hold its
/// sockets, and a host that has lost its power closes none.
#[derive(Clone, Debug)]
pub enum Presence {
    /// Nothing: an original engine, or one of this process.
    Sockets,
    /// Its process can be seen from here. One that is stopped is there.
    Process(Arc<PeerProcess>),
    /// It answers pings.
    Pinged(Arc<Pinger>),
}

impl Presence {
    /// Of a peer with these features.
    pub fn of(config: &Config, features: Option<&Features>) -> Self {
        let Some(features) = features else { return Self::Sockets };
        if let Some(process) = PeerProcess::of_identity(features.identity) {
            return Self::Process(process);
        }
        let asks = features.has(Features::CHANNEL | Features::LIVENESS) && !features.identity.is_own();
        let Some(keepalive) = config.keepalive.filter(|_| asks) else { return Self::Sockets };
        Pinger::of(features.process, keepalive)
            .inspect_err(|error| tracing::warn!("a peer cannot be pinged: {error}"))
            .map_or(Self::Sockets, Self::Pinged)
    }
}
