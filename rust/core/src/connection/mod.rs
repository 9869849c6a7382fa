//! The way to one peer: lanes, the peer's region table, locality.

mod care;
mod context;
mod device_copies;
mod device_events;
mod device_path;
mod lanes;
mod metrics;
mod monitor;
mod recovery;
mod submit;
mod wait;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

pub use context::{Context, TransferSettings};
pub use device_events::{DeviceEvents, DeviceHealth};
pub use device_path::RemoteEnd;
pub use lanes::{LaneBuilder, LaneHandle};
pub use monitor::{LaneBell, Monitor};

use care::Care;

use crate::control::{Channel, ChannelFrame, Guest, PeerCapabilities};
use crate::fabric::PathKind;
use crate::memory::RemoteTable;
use crate::notify::{LargeMessage, Message, NotifyError, Sender};
use crate::observe;
use crate::pool::{LaneHealth, LaneWatcher, PoolError, SlicePolicy, Verdict};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::transfer::RdmaDesc;

/// A connection to one peer. Symmetric: both ends may start transfers. Every method may be called from any thread.
#[derive(Debug)]
pub struct Connection {
    context: Arc<Context>,
    lanes: Vec<LaneHandle>,
    /// How transfers are cut for these lanes.
    policy: SlicePolicy,
    path: PathKind,
    remote: RemoteTable,
    peer: PeerInfo,
    /// What queue pairs towards the peer are connected with.
    capabilities: PeerCapabilities,
    /// Failed lanes are rebuilt; only with a peer that can do it too.
    heals: bool,
    /// We connected, so rebuilds are ours to begin.
    leads: bool,
    channel: Channel,
    notify: Option<Sender>,
    /// Keeps the place of the peer's notification socket.
    _guest: Option<Guest>,
    monitor: Arc<Monitor>,
    number: u64,
    care: Mutex<Care>,
    /// Numbers the rebuilds; only care-takers, one at a time, use it: Relaxed.
    attempt: AtomicU32,
    /// Counts for operators, incremented by whoever sees one: Relaxed.
    failures: AtomicU64,
    rebuilds: AtomicU64,
    notified: AtomicU64,
    /// A care-taker is at work. Taken and given back by care-takers, SeqCst together with `wanted`, so that a wish
    /// during the last look is either seen or finds nobody at work.
    attended: AtomicBool,
    /// Somebody asked for care since the care-taker's last look; see `attended`.
    wanted: AtomicBool,
    /// Set once by `close`, read by submitters: a hint, the lanes' own state decides. Relaxed.
    closed: AtomicBool,
    /// Done once everything has ended.
    ended: Once,
}

/// What a finished handshake brings to a connection.
#[derive(Debug)]
pub struct Established {
    /// Who the peer is.
    pub peer: PeerInfo,
    /// The peer's regions.
    pub remote: RemoteTable,
    /// What its lanes can do.
    pub capabilities: PeerCapabilities,
    /// Whether it rebuilds failed lanes with us.
    pub heals: bool,
    /// Whether we connected.
    pub leads: bool,
    /// The socket that stays open.
    pub channel: Channel,
    /// The way to send notifications.
    pub notify: Option<Sender>,
    /// Keeps the place of the peer's notification socket, if it may have one.
    pub guest: Option<Guest>,
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
    /// Random per engine: a restarted peer has another one. 0 from an original engine.
    pub incarnation: u64,
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

/// How long a notification may wait for a peer that does not read.
const NOTIFY_LIMIT: Duration = Duration::from_secs(5);

/// How long a queue pair may take to flush before it is destroyed instead.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Connection {
    /// A connection over connected queue pairs, which become its lanes; watched by `monitor` from now on.
    pub fn new(
        context: Arc<Context>,
        lanes: LaneBuilder,
        monitor: Arc<Monitor>,
        established: Established,
    ) -> Result<Arc<Self>, PoolError> {
        let Established { peer, remote, capabilities, heals, leads, channel, notify, guest } = established;
        let (path, policy) = (lanes.path(), lanes.policy());
        let number = monitor.number();
        let bell: Arc<dyn LaneWatcher> = Arc::new(LaneBell { monitor: Arc::clone(&monitor), number });
        let lanes = lanes.install(heals, Some(bell))?;
        tracing::info!(
            peer = %peer.control, %path, lanes = lanes.len(), regions = remote.len(), local = peer.local, "connected"
        );
        let connection = Arc::new(Self {
            context,
            lanes,
            policy,
            path,
            remote,
            peer,
            capabilities,
            heals,
            leads,
            channel,
            notify,
            _guest: guest,
            number,
            care: Mutex::default(),
            attempt: AtomicU32::new(0),
            failures: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
            notified: AtomicU64::new(0),
            attended: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            ended: Once::new(),
            monitor,
        });
        connection
            .monitor
            .watch(number, &connection)
            .map_err(|error| PoolError::Thread(format!("watching a connection: {error}")))?;
        if let Some(events) = &connection.context.device_events {
            events.watch(&connection);
            if events.health() != DeviceHealth::Up {
                // It changed during the handshake.
                connection.monitor.ring(number);
            }
        }
        observe::registry().add(&connection);
        Ok(connection)
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
        !self.is_closed()
            && self.lanes.iter().any(|lane| match lane.status.health() {
                LaneHealth::Healthy => true,
                LaneHealth::Broken | LaneHealth::Drained => self.heals,
                LaneHealth::Closed => false,
            })
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Sends a notification; answers the bytes handed over. It arrives after the data of transfers that had ended.
    pub fn send_notification(&self, message: &Message) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send(message, Instant::now() + NOTIFY_LIMIT)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    /// The same for a message of any size up to what the peer takes. Only towards a peer that runs this engine.
    pub fn send_large_notification(&self, message: &LargeMessage) -> Result<usize, NotifyError> {
        let sent = self.sender()?.send_large(message, Instant::now() + NOTIFY_LIMIT)?;
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(sent)
    }

    fn sender(&self) -> Result<&Sender, NotifyError> {
        self.notify.as_ref().filter(|_| !self.is_closed()).ok_or(NotifyError::NoChannel)
    }

    /// Ends every transfer in flight on it (drained first), closes queue pairs and sockets. Idempotent; also done
    /// when the last reference is dropped.
    pub fn close(&self) {
        self.end(Verdict::Cancelled, "the connection was closed");
    }

    /// The peer is gone: every transfer in flight fails.
    fn lose(&self, reason: &str) {
        if !self.is_closed() {
            // A peer that leaves while nothing is under way is no trouble.
            if self.lanes.iter().any(|lane| lane.status.health() != LaneHealth::Healthy) {
                tracing::warn!(peer = %self.peer.control, "connection lost: {reason}");
            } else {
                tracing::info!(peer = %self.peer.control, "connection ended: {reason}");
            }
        }
        self.end(Verdict::Failed, reason);
    }

    /// Ends every transfer, once. Whoever comes second (we close while the peer does) waits for the first: when this
    /// returns, nothing of the connection touches memory any more.
    fn end(&self, verdict: Verdict, reason: &str) {
        self.ended.call_once_force(|_| {
            self.closed.store(true, Ordering::SeqCst);
            self.monitor.forget(self.number, self);
            if self.peer.ours && verdict == Verdict::Cancelled {
                // A courtesy: the peer sees the socket close anyway. Not before this: it hangs up at once, and whoever
                // notices that must not come first and fail what is to be cancelled.
                let _ = self.channel.send(&ChannelFrame::Goodbye, Instant::now() + Duration::from_millis(100));
            }
            self.channel.shutdown();
            for lane in &self.lanes {
                self.close_lane(lane, verdict, reason);
            }
            self.end_rebuilds();
            if !self.context.device_copies.finish(self.number, Instant::now() + DRAIN_LIMIT) {
                tracing::warn!(peer = %self.peer.control, "copies of device memory go on after the connection has ended");
            }
        });
    }

    /// Closes a lane: ERROR, drained, gone. A flush that does not come ends with the queue pair's destruction.
    fn close_lane(&self, lane: &LaneHandle, verdict: Verdict, reason: &str) {
        let limit = match self.context.device_health() {
            // Nothing comes from a lost device.
            DeviceHealth::Lost(_) => Duration::ZERO,
            _ => DRAIN_LIMIT,
        };
        let deadline = Instant::now() + limit;
        while !lane.worker.with_state(|state| state.close_lane(lane.key, verdict, reason)) {
            let _ = lane.worker.drive_as_caller();
            if Instant::now() >= deadline {
                tracing::warn!(peer = %self.peer.control, "a queue pair was not drained in time and is destroyed");
                lane.worker.with_state(|state| state.destroy_lane(lane.key, verdict, reason));
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
