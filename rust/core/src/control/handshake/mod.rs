//! The handshake.
#![allow(missing_docs, reason = "skeleton")]
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::socket::{Abort, Stream};
pub use super::wire::LaneCapabilities;
use super::wire::{Features, RegionEntry};
use crate::fabric::{FabricError, QpAddress};

/// What is known of the peer when lanes are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCapabilities {
    /// Whether the peer is an engine of this kind; (1, 1) towards an original one.
    pub ours: bool,
    pub lanes: LaneCapabilities,
}

/// What the handshake asks of the engine: queue pairs. Dropped by the engine when the handshake fails.
pub trait LaneSetup {
    /// Lanes wanted, 1..=8.
    fn offer(&self) -> u32;
    /// What our lanes can do; announced to the peer.
    fn capabilities(&self) -> LaneCapabilities;
    /// Creates `agreed` queue pairs (INIT) and answers their addresses.
    fn create(&mut self, agreed: u32) -> Result<Vec<QpAddress>, FabricError>;
    /// Connects queue pair i to `peers[i]` (RTS). Link layers have been compared already.
    fn connect(
        &mut self,
        peers: &[QpAddress],
        peer: PeerCapabilities,
        deadline: Instant,
    ) -> Result<(), FabricError>;
}

/// What our side brings along.
#[derive(Clone, Copy)]
pub struct LocalSide<'a> {
    pub gpu_index: i32,
    /// Port of the notification receiver, 0 for none.
    pub notify_port: u16,
    /// The caller says that the peer is in this process (initiator only; verified).
    pub same_process: bool,
    /// Our address: sent to the peer, and compared for locality. `respond` listens on it for the lane socket.
    pub address: IpAddr,
    /// Bits, incarnation, largest notification; `nonce` and `process` are filled in by the handshake.
    pub features: Features,
    /// The regions to announce, asked when they are sent.
    pub regions: &'a dyn Fn() -> Vec<RegionEntry>,
}

/// Bounds and door rules of a handshake.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a refused port is tried.
    pub connect_timeout: Duration,
    /// Everything after the TCP connection.
    pub handshake_timeout: Duration,
    /// Ports of the lane listener.
    pub ports: Option<(u16, u16)>,
    /// Ends the handshake early.
    pub abort: Option<Abort>,
    // auth: Option<AuthKey>, allow_original: bool, allow: AllowList come here; `Limits::from_config(&Config, ..)`.
}

/// A peer after the handshake.
#[derive(Debug)]
pub struct Peer {
    /// Target of `initiate`, source of the bootstrap socket in `respond`.
    pub control: SocketAddr,
    pub ip: IpAddr,
    pub gpu_index: i32,
    /// On this host.
    pub local: bool,
    /// In this process (verified).
    pub same_process: bool,
    pub regions: Vec<RegionEntry>,
    /// `None`: an original engine.
    pub features: Option<Features>,
    pub capabilities: PeerCapabilities,
    pub lanes: u32,
    /// Our way to send notifications, `None` without one.
    pub notify: Option<Stream>,
    /// The lane socket, stays open; wrap in `Channel`.
    pub channel: Stream,
}

/// A peer of the raw adaptor functions.
#[derive(Debug)]
pub struct RawPeer {
    pub capabilities: PeerCapabilities,
    pub lanes: u32,
    pub stream: Stream,
}

/// Where in the handshake it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Connect,
}

/// Why.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Reason {
    #[error("not built yet")]
    NotBuilt,
}

/// Which peer, at which step, why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{peer}, {step:?}: {reason}")]
pub struct HandshakeError {
    pub peer: String,
    pub step: Step,
    pub reason: Reason,
}

impl HandshakeError {
    /// Whether the other end does not speak this protocol at all: accepting goes on as if it had never come.
    pub fn is_stray(&self) -> bool {
        false
    }
}

fn not_built(peer: SocketAddr) -> HandshakeError {
    HandshakeError { peer: peer.to_string(), step: Step::Connect, reason: Reason::NotBuilt }
}

/// Connects to a peer's control listener and goes through the handshake.
pub fn initiate(
    target: SocketAddr,
    _local: &LocalSide<'_>,
    _lanes: &mut dyn LaneSetup,
    _limits: &Limits,
) -> Result<Peer, HandshakeError> {
    Err(not_built(target))
}

/// The same from the accepting side; nothing has been read from `stream` yet.
pub fn respond(
    stream: Stream,
    _local: &LocalSide<'_>,
    _lanes: &mut dyn LaneSetup,
    _limits: &Limits,
) -> Result<Peer, HandshakeError> {
    Err(not_built(stream.peer()))
}

/// Connects to a raw listener named by its handle (at least 40 bytes).
pub fn initiate_raw(
    _handle: &[u8],
    _lanes: &mut dyn LaneSetup,
    _limits: &Limits,
) -> Result<RawPeer, HandshakeError> {
    Err(not_built(SocketAddr::from(([0, 0, 0, 0], 0))))
}

/// The same from the accepting side; nothing has been read from `stream` yet.
pub fn respond_raw(
    stream: Stream,
    _lanes: &mut dyn LaneSetup,
    _limits: &Limits,
) -> Result<RawPeer, HandshakeError> {
    Err(not_built(stream.peer()))
}
