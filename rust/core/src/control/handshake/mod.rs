//! The handshake: two engines agree on lanes and exchange addresses, features and region tables.
//!
//! ```text
//! initiator                                       responder
//!   bootstrap socket: preamble, handle ─────────▶
//!     ◀───────────────────────── handle of this session's lane listener
//!   [with a key: both prove it before handles carry addresses]
//!   lane socket: preamble [, seal] ─────────────▶
//!     lane counts, lane records, both connect their lanes, ready
//!   bootstrap socket: control meta; each side connects to the other's notification receiver;
//!     region counts, region tables
//!   bootstrap socket closed; the lane socket stays open
//! ```
//! FlagCX's next version exchanges hellos before the handles: see `opening`. Every read is bounded in size and time, and
//! every error names the peer, the step and what was expected.

mod authenticate;
mod candidates;
mod dialogue;

mod error;
mod initiate;
mod lane_listener;
mod lanes;
mod locality;
mod notify_link;
mod opening;
mod openings;
mod psk;
mod raw;
mod respond;
mod runtime_control;
mod tables;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use super::wire::{Features, Handle, LaneCapabilities, RegionEntry, SliceSettings};
use super::{Abort, AllowList, ConnectedHost, ConnectedHosts, Stream};
use crate::auth::AuthKey;
use crate::config::{Config, ConfigError};
use crate::events::Waiter;
use crate::fabric::{FabricError, QpAddress};

pub use error::{HandshakeError, Reason, Step};
pub use initiate::initiate;
pub use notify_link::NotifyRoute;
pub use openings::Openings;
pub use raw::{RawListener, RawPeer, initiate_raw};
pub use respond::respond;
pub(crate) use respond::respond_with;

/// The capabilities of the peer, known when lanes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCapabilities {
    /// Whether the peer is an engine of this kind.
    pub ours: bool,
    /// The capabilities of its lanes: [`LaneCapabilities::ORIGINAL`] unless it announces more.
    pub lanes: LaneCapabilities,
}

/// The queue pairs that the engine provides for a handshake. When the handshake fails, the engine drops them.
pub trait LaneSetup {
    /// Lanes wanted, 1 to [`super::wire::MAX_LANES`].
    fn offer(&self) -> u32;
    /// The capabilities of our lanes, announced to the peer.
    fn capabilities(&self) -> LaneCapabilities;
    /// Creates `agreed` queue pairs in INIT and returns their addresses. Called once.
    fn create<'a>(&'a mut self, agreed: u32, waiter: &'a Waiter) -> LaneFuture<'a, Vec<QpAddress>>;
    /// Connects queue pair i to `peers[i]`. Link layers have been compared already. Called once.
    fn connect<'a>(
        &'a mut self,
        peers: &'a [QpAddress],
        peer: PeerCapabilities,
        deadline: Instant,
        waiter: &'a Waiter,
    ) -> LaneFuture<'a, ()>;
}

/// The result of a [`LaneSetup`] call, which may have to wait.
pub type LaneFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, FabricError>> + 'a>>;

/// The local side of a handshake.
#[derive(Clone, Copy)]
pub struct LocalSide<'a> {
    /// Our GPU index.
    pub gpu_index: i32,
    /// Port of our notification receiver, 0 for none.
    pub notify_port: u16,
    /// The caller states that the peer is in this process. Verified by the peer's process token.
    pub same_process: bool,
    /// Our address: announced to the peer, compared for locality; [`respond()`] listens on it for the lane socket.
    pub address: IpAddr,
    /// The address announced instead of it: that of a forwarder in front of this host.
    pub advertise: Option<IpAddr>,
    /// Bits, largest notification, incarnation. The handshake fills in `nonce`, `process`, `host`, `identity` and the bits AUTH
    /// and ADVERTISED itself.
    pub features: Features,
    /// The regions to announce; called when they are sent.
    pub regions: &'a dyn Fn() -> Vec<RegionEntry>,
    /// Applies slice settings and returns the ones in effect: for clients of the runtime control.
    pub slices: &'a dyn Fn(SliceSettings) -> SliceSettings,
}

impl LocalSide<'_> {
    /// What entries of the region tables say beyond those of the original, on both sides.
    fn region_extras(&self, peer: Option<&Features>) -> tables::RegionExtras {
        let both = |bits| self.features.has(bits) && peer.is_some_and(|peer| peer.has(bits));
        let changes = Features::CHANNEL | Features::REGIONS;
        tables::RegionExtras {
            named: both(changes),
            segments: both(changes | Features::SEGMENTS),
            gpu_flushes: both(changes | Features::GPU_FLUSH),
        }
    }
}

impl fmt::Debug for LocalSide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSide").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Limits of a handshake, and the clients that may connect.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For the look-up of a name and the TCP connection, over all its addresses.
    pub connect_timeout: Duration,
    /// For everything after the bootstrap connection.
    pub handshake_timeout: Duration,
    /// Idle time after which the kernel checks whether the peer's host still lives.
    pub keepalive: Option<Duration>,
    /// Ports of the lane listener.
    pub ports: Option<(u16, u16)>,
    /// Networks that may connect to the lane listener.
    pub allow: AllowList,
    /// The key that peers must prove.
    pub auth: Option<AuthKey>,
    /// With a key: accept original engines without a proof.
    pub allow_original: bool,
    /// Clients of other hosts may use the runtime control too, where no key is set.
    pub runtime_control: bool,
    /// The openings that peers accept.
    pub openings: Openings,
    /// The set to which the peer's host is added once its lane socket is accepted, so before our notification port is
    /// sent to it.
    pub connected_hosts: ConnectedHosts,
    /// Ends the handshake early.
    pub abort: Option<Abort>,
}

impl Limits {
    /// The limits of a configuration, with new sets of connected hosts and of openings; reads the key file.
    pub fn from_config(config: &Config, abort: Option<Abort>) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            connect_timeout: config.connect_timeout,
            handshake_timeout: config.handshake_timeout,
            keepalive: config.keepalive,
            ports: config.port_range,
            allow: AllowList::new(&config.allow),
            auth: config.auth_key()?,
            allow_original: config.auth_allow_original,
            runtime_control: config.runtime_control,
            openings: Openings::default(),
            connected_hosts: ConnectedHosts::default(),
            abort,
        })
    }

    /// Whether each peer must prove a key.
    fn requires_key(&self) -> bool {
        self.auth.is_some() && !self.allow_original
    }
}

/// A peer after the handshake.
#[derive(Debug)]
pub struct Peer {
    /// Its control listener (after [`initiate()`]), or where its bootstrap socket came from (after [`respond()`]).
    pub control: SocketAddr,
    /// Its address.
    pub ip: IpAddr,
    /// Its GPU index.
    pub gpu_index: i32,
    /// It is on this host.
    pub local: bool,
    /// It is in this process: the caller stated so, and its process token is ours. Then there is no notification
    /// socket.
    pub same_process: bool,
    /// The regions that it announced.
    pub regions: Vec<RegionEntry>,
    /// It has proven the key. False without a key, and for an original engine that is accepted without a proof.
    pub proven: bool,
    /// That key, if it has.
    pub key: Option<AuthKey>,
    /// Its features; `None` for an original engine.
    pub features: Option<Features>,
    /// The capabilities of its lanes.
    pub capabilities: PeerCapabilities,
    /// Lanes agreed.
    pub lanes: u32,
    /// Our socket for notifications to it; `None` when it has no receiver, or it could not be reached.
    pub notify: Option<Stream>,
    /// How that is made anew, if both ends do it.
    pub notify_route: Option<NotifyRoute>,
    /// The lane socket. It stays open: its end is the peer's end, and between engines of this kind it is the
    /// [`super::Channel`].
    pub channel: Stream,
    /// While it exists, notification sockets of the peer's host are not displaced.
    pub connected_host: ConnectedHost,
}

/// The role in the handshake. In each exchange the initiator sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Initiator,
    Responder,
}

/// The address with another port.
fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

fn finish(peer: Peer, limits: &Limits) -> Peer {
    Peer {
        channel: long_lived(peer.channel, limits),
        notify: peer.notify.map(|notify| long_lived(notify, limits)),
        ..peer
    }
}

/// Prepares a socket that outlives the handshake: no longer ended by the handshake's abort, with keepalive probes of
/// the kernel.
fn long_lived(mut stream: Stream, limits: &Limits) -> Stream {
    stream.release_permit();
    stream.set_abort(None);
    if let Err(error) = stream.set_keepalive(limits.keepalive) {
        tracing::debug!("cannot set keepalive on the socket to {}: {error}", stream.peer());
    }
    stream
}

#[cfg(test)]
mod tests;
