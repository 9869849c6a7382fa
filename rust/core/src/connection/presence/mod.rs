//! Detection of a peer's end where its sockets do not show it.

mod liveness;
mod pinger;

use std::sync::Arc;

use crate::config::Config;
use crate::control::wire::Features;
use crate::process::PeerProcess;

pub use pinger::Pinger;

/// How the peer's end is detected besides the control connection. A process that the peer has forked may hold its
/// sockets open, and a host without power closes none.
#[derive(Clone, Debug)]
pub enum Presence {
    /// By sockets alone: an original engine, or one of this process.
    Sockets,
    /// By a pidfd: its process is visible from here. A stopped process counts as alive.
    Process(Arc<PeerProcess>),
    /// By pings, which it answers.
    Pinged(Arc<Pinger>),
}

impl Presence {
    /// The detection for a peer with these features.
    pub fn of(config: &Config, features: Option<&Features>) -> Self {
        let Some(features) = features else { return Self::Sockets };
        if let Some(process) = PeerProcess::of_identity(features.identity) {
            return Self::Process(process);
        }
        let asks = features.has(Features::CHANNEL | Features::LIVENESS) && !features.identity.is_own();
        let Some(keepalive) = config.keepalive.filter(|_| asks) else { return Self::Sockets };
        Pinger::of(features.process, keepalive)
            .inspect_err(|error| {
                tracing::warn!("cannot ping a peer, its end is detected by its sockets only: {error}")
            })
            .map_or(Self::Sockets, Self::Pinged)
    }
}
