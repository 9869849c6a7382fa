//! The handshake: two engines agree on lanes and exchange what they need to know of each other.
//!
//! ```text
//! initiator                                       responder
//!   bootstrap socket: preamble, handle ─────────▶
//!     ◀───────────────────────── handle of this session's lane listener
//!   [with a key: both prove that they know it before handles carry addresses]
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
pub use openings::Openings;
pub use raw::{RawListener, RawPeer, initiate_raw};
pub use respond::respond;
pub(crate) use respond::respond_with;

/// What is known of the peer when lanes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCapabilities {
    /// Whether the peer is an engine of this kind.
    pub ours: bool,
    /// What its lanes can do: [`LaneCapabilities::ORIGINAL`] unless it says more.
    pub lanes: LaneCapabilities,
}

/// What the handshake asks of the engine: queue pairs. When the handshake fails, the engine drops them.
pub trait LaneSetup {
    /// Lanes wanted, 1 to [`super::wire::MAX_LANES`].
    fn offer(&self) -> u32;
    /// What our lanes can do; announced to the peer.
    fn capabilities(&self) -> LaneCapabilities;
    /// Creates `agreed` queue pairs in INIT and answers their addresses. Called once.
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

/// What [`LaneSetup`] does, which may have to wait.
pub type LaneFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, FabricError>> + 'a>>;

/// What our side brings along.
#[derive(Clone, Copy)]
pub struct LocalSide<'a> {
    /// Our GPU index.
    pub gpu_index: i32,
    /// Port of our notification receiver, 0 for none.
    pub notify_port: u16,
    /// The caller says that the peer is in this process. Believed only if the peer proves to be.
    pub same_process: bool,
    /// Our address: told to the peer, compared for locality; [`respond()`] listens on it for the lane socket.
    pub address: IpAddr,
    /// What the peer is told instead: that of a forwarder before us.
    pub advertise: Option<IpAddr>,
    /// Bits, largest notification, incarnation. The handshake fills in `nonce`, `process`, `host`, `identity` and the bits AUTH
    /// and ADVERTISED itself.
    pub features: Features,
    /// The regions to announce, asked for when they are sent.
    pub regions: &'a dyn Fn() -> Vec<RegionEntry>,
    /// Changes how transfers are cut, and answers how they are cut then: for clients of the runtime control.
    pub slices: &'a dyn Fn(SliceSettings) -> SliceSettings,
}

impl LocalSide<'_> {
    /// Whether both sides tell each other how their regions change.
    fn announces_changes(&self, peer: Option<&Features>) -> bool {
        let bits = Features::CHANNEL | Features::REGIONS;
        self.features.has(bits) && peer.is_some_and(|peer| peer.has(bits))
    }
}

impl fmt::Debug for LocalSide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSide").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Bounds of a handshake, and who may connect.
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
    /// The key that peers must know.
    pub auth: Option<AuthKey>,
    /// With a key: let original engines in all the same.
    pub allow_original: bool,
    /// Clients of other hosts may use the runtime control too, where no key is set.
    pub runtime_control: bool,
    /// What peers want to be asked first.
    pub openings: Openings,
    /// Where the peer's host is entered once its lane socket is there, so before it is told our notification port.
    pub connected_hosts: ConnectedHosts,
    /// Ends the handshake early.
    pub abort: Option<Abort>,
}

impl Limits {
    /// As the configuration says, with sets of connected hosts and of openings of its own; reads the key file.
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

    /// Whether each peer must prove to know a key.
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
    /// It is in this process: the caller said so, and it proved to be. Then there is no notification socket.
    pub same_process: bool,
    /// The regions that it announced.
    pub regions: Vec<RegionEntry>,
    /// It has proven the key. Not so without one, and not an original engine, which may be let in beside a key.
    pub proven: bool,
    /// What it says about itself; `None` for an original engine.
    pub features: Option<Features>,
    /// What its lanes can do.
    pub capabilities: PeerCapabilities,
    /// Lanes agreed.
    pub lanes: u32,
    /// Our way to send it notifications; `None` when it offers none, or could not be reached there.
    pub notify: Option<Stream>,
    /// The lane socket. It stays open: its end is the peer's end, and between engines of this kind it is the
    /// [`super::Channel`].
    pub channel: Stream,
    /// Keeps the places of its host's notification sockets for as long as it lives.
    pub connected_host: ConnectedHost,
}

/// Which side of the handshake we are. In each exchange the initiator speaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Initiator,
    Responder,
}

/// The same host, another port.
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

/// A socket that outlives the handshake: no longer ended by its switch, but watched by the kernel.
fn long_lived(mut stream: Stream, limits: &Limits) -> Stream {
    stream.release_permit();
    stream.set_abort(None);
    if let Err(error) = stream.set_keepalive(limits.keepalive) {
        tracing::debug!("no keepalive towards {}: {error}", stream.peer());
    }
    stream
}

#[cfg(test)]
mod tests;
