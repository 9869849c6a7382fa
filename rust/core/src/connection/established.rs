//! What a handshake brings to a connection.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recovery::RedialParts;
use super::{Connection, PeerInfo, Presence};
use crate::auth::AuthKey;
use crate::control::resume::{OwnAddresses, ResumeListener};
use crate::control::{Channel, ConnectedHost, NotifyRoute, PeerCapabilities};
use crate::memory::{Cursor, RemoteRegions};
use crate::notify::Sender;
use crate::process::ProcessIdentity;

/// What a finished handshake brings to a connection.
#[derive(Debug)]
pub struct Established {
    /// The peer's identity.
    pub peer: PeerInfo,
    /// The peer's regions.
    pub remote: RemoteRegions,
    /// What it has been told of ours, if both sides tell how their regions change.
    pub told: Option<Cursor>,
    /// What its lanes can do.
    pub capabilities: PeerCapabilities,
    /// Whether it rebuilds failed lanes with us.
    pub heals: bool,
    /// Whether both ends make further rails.
    pub rails: bool,
    /// Whether other pairs of NICs take over at both ends where a rail is lost.
    pub other_pairs: bool,
    /// Whether both ends make most lanes of a further rail when it is used.
    pub lanes_on_use: bool,
    /// Whether we connected.
    pub leads: bool,
    /// When the call to connect, or the handshake of the peer, began.
    pub began: Instant,
    /// How its end is noticed.
    pub presence: Presence,
    /// The other process that it has announced, if it has.
    pub process: Option<ProcessIdentity>,
    /// The socket that stays open.
    pub channel: Channel,
    /// How that is made anew, if both ends do it.
    pub redial: Option<EstablishedRedial>,
    /// The way to send notifications.
    pub notify: Option<Sender>,
    /// Keeps the place of the peer's notification socket, if it may have one.
    pub connected_host: Option<ConnectedHost>,
}

/// How a control channel is made anew.
#[derive(Debug)]
pub struct EstablishedRedial {
    /// For how long it may be away.
    pub limit: Duration,
    /// That of its sockets.
    pub keepalive: Option<Duration>,
    /// The key that both ends have proven.
    pub key: Option<AuthKey>,
    /// From where the leader dials.
    pub own: OwnAddresses,
    /// How the notification socket is made anew.
    pub notify: Option<NotifyRoute>,
    /// Where the leader dials; for an end that has accepted the connection.
    pub listener: Option<Arc<ResumeListener>>,
}

impl Connection {
    /// Has the follower listen for the leader, and tells it where.
    pub(super) fn redial_parts(&self, redial: EstablishedRedial) -> RedialParts {
        let EstablishedRedial { limit, keepalive, key, own, notify, listener } = redial;
        if let Some(sender) = &self.notify {
            sender.attach(&self.wakeup);
        }
        let entry = listener.and_then(|listener| {
            let entry = listener.add(key.as_ref(), &self.wakeup).ok()?;
            let local = self.channel.stream()?.local().ip();
            self.channel.queue_offer(&listener.offer(&entry, local));
            self.channel_record.set_resumable();
            Some((entry, listener))
        });
        RedialParts { limit, keepalive, key, own, notify, entry }
    }
}
