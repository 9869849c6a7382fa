//! The way to one peer: lanes, the peer's region table, locality.

mod context;
mod lanes;
mod metrics;
mod submit;
mod wait;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use context::{Context, TransferSettings};
pub use lanes::{LaneBuilder, LaneHandle};

use crate::fabric::PathKind;
use crate::memory::RemoteTable;
use crate::notify::{Message, NotifyError};
use crate::observe;
use crate::pool::{LaneHealth, Verdict};
use crate::sync::{AtomicBool, Ordering};
use crate::transfer::RdmaDesc;

/// A connection to one peer. Symmetric: both ends may start transfers. Every method may be called from any thread.
#[derive(Debug)]
pub struct Connection {
    context: Arc<Context>,
    lanes: Vec<LaneHandle>,
    heals: bool,
    path: PathKind,
    remote: RemoteTable,
    peer: PeerInfo,
    /// Set once by `close`, read by submitters: a hint, the lanes' own state decides. Relaxed.
    closed: AtomicBool,
}

/// Who the peer is.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its control address.
    pub control: SocketAddr,
    /// Its address as seen by us.
    pub ip: IpAddr,
    /// Its GPU index.
    pub gpu_index: i32,
    /// Whether it is on this host.
    pub local: bool,
    /// Whether it is in this process.
    pub same_process: bool,
    /// Whether it runs this engine (false: the original).
    pub ours: bool,
}

/// What is known of a connection, for operators and the extension API.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The peer's control address, `ip:port`.
    pub peer: String,
    /// How bytes travel.
    pub path: PathKind,
    /// Lanes agreed at the handshake.
    pub lanes: usize,
    /// Lanes in working order now.
    pub healthy_lanes: usize,
    /// Whether the peer is on this host.
    pub local: bool,
    /// Whether the peer runs this engine (false: the original).
    pub ours: bool,
    /// The peer's GPU index.
    pub gpu_index: i32,
}

/// How long a queue pair may take to flush before it is destroyed instead.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Connection {
    /// A connection over installed lanes.
    pub fn new(
        context: Arc<Context>,
        lanes: Vec<LaneHandle>,
        path: PathKind,
        remote: RemoteTable,
        peer: PeerInfo,
    ) -> Arc<Self> {
        tracing::info!(
            peer = %peer.control, %path, lanes = lanes.len(), regions = remote.len(), local = peer.local, "connected"
        );
        let connection = Arc::new(Self {
            context,
            lanes,
            heals: false,
            path,
            remote,
            peer,
            closed: AtomicBool::new(false),
        });
        observe::registry().add(&connection);
        connection
    }

    /// A descriptor for a range of the peer's memory, from the peer's region table; `None` if no region holds it.
    pub fn describe_remote(&self, address: u64, size: u32) -> Option<RdmaDesc> {
        let region = self.remote.find(address, u64::from(size))?;
        Some(RdmaDesc { address, size, rkey: region.rkey, ..RdmaDesc::default() })
    }

    /// The same for a range of any length, as key alone.
    pub fn remote_key(&self, address: u64, length: u64) -> Option<u32> {
        self.remote.find(address, length).map(|region| region.rkey)
    }

    /// Who the peer is.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// What is known of this connection.
    pub fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            peer: self.peer.control.to_string(),
            path: self.path,
            lanes: self.lanes.len(),
            healthy_lanes: self
                .lanes
                .iter()
                .filter(|lane| lane.status.health() == LaneHealth::Healthy)
                .count(),
            local: self.peer.local,
            ours: self.peer.ours,
            gpu_index: self.peer.gpu_index,
        }
    }

    /// Whether the peer is on this host.
    pub fn is_local(&self) -> bool {
        self.peer.local
    }

    /// Whether transfers can still be started: not closed, and a lane in working order or being rebuilt.
    pub fn is_usable(&self) -> bool {
        !self.is_closed() && self.lanes.iter().any(|lane| lane.status.health() == LaneHealth::Healthy)
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sends a notification; answers the bytes handed over.
    pub fn send_notification(&self, _message: &Message) -> Result<usize, NotifyError> {
        tracing::warn!("SendNotif: not built yet");
        Err(NotifyError::NoChannel)
    }

    /// Ends every transfer in flight on it (drained first), closes queue pairs and sockets. Idempotent; also done
    /// when the last reference is dropped.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let deadline = Instant::now() + DRAIN_LIMIT;
        for lane in &self.lanes {
            self.close_lane(lane, deadline);
        }
    }

    fn close_lane(&self, lane: &LaneHandle, deadline: Instant) {
        const REASON: &str = "the connection was closed";
        let Some(worker) = self.context.pool.workers().get(lane.worker) else { return };
        while !worker.with_state(|state| state.close_lane(lane.key, Verdict::Cancelled, REASON)) {
            let _ = worker.drive_as_caller();
            if Instant::now() >= deadline {
                tracing::warn!(peer = %self.peer.control, "a queue pair was not drained in time and is destroyed");
                worker.with_state(|state| state.destroy_lane(lane.key, Verdict::Cancelled, REASON));
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}
