//! The way to one peer: lanes, the peer's region table, locality.

mod close;
mod context;
mod device_events;
mod end_notices;
mod ended;
mod gpu_imports;
mod gpu_lanes;
mod gpu_transfer;
mod lanes;
mod metrics;
mod notifications;
mod presence;
mod recovery;
mod regions;
mod retire;
mod route;
mod submit;
mod transfer_future;
mod wait;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

pub use context::{Context, TransferSettings};
pub use device_events::{DeviceEvents, DeviceHealth};
pub use ended::Ended;
pub use lanes::{LaneBuilder, LaneHandle};
pub use presence::{Pinger, Presence};
pub use route::{Remote, Request};
pub use submit::WhenFull;
pub use transfer_future::Transfer;

use gpu_lanes::GpuLanes;
use recovery::{Driver, Machine, Parts, RebuildPolicy, Rebuilds};
use regions::{Exchange, SyncRequests};
use route::Reach;

use crate::control::wire::LaneRecord;
use crate::control::{Channel, ConnectedHost, LaneSetup as _, PeerCapabilities};
use crate::events::{EventLoop, Task, Wakeup};
use crate::fabric::{FabricError, PathKind, PathOptions, Paths, QueuePair};
use crate::fork::{Forked, OfProcess};
use crate::memory::{Cursor, RemoteRegions};
use crate::notify::Sender;
use crate::observe;
use crate::pool::{EndState, LaneHealth, LaneWatcher, PoolError};
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::transfer::{RemoteRange, SlicePolicy, SubmitError};

/// A connection to one peer, over which both ends may start transfers. Every method may be called from any thread.
///
/// There are four ways to learn how a transfer ended: [`Connection::wait`] blocks, [`Connection::status`] asks,
/// [`Connection::transfer`] is a future, and [`Connection::try_submit_to`] reports to a queue with a descriptor.
///
/// A connection ends when it is closed, when the last reference to it is dropped, and when its engine is closed. It belongs
/// to the process that made it: in a forked child every method refuses, answers that nothing is there, or does nothing, and
/// dropping it changes nothing for the parent and the peer.
#[derive(Debug)]
pub struct Connection(OfProcess<Inner>);

/// What a connection is made of.
#[doc(hidden)]
#[derive(Debug)]
pub struct Inner {
    context: Arc<Context>,
    lanes: Vec<LaneHandle>,
    /// How transfers are cut for these lanes, but for the sizes: see [`Connection::policy`].
    policy: SlicePolicy,
    /// Those of the first lane at the connect: what is told once the lanes are gone.
    paths: Paths,
    reach: Reach,
    /// What moves GPU memory that the other lanes do not.
    gpu: GpuLanes,
    /// The peer's regions.
    remote: Arc<RemoteRegions>,
    /// Asks it for more.
    sync_requests: Arc<SyncRequests>,
    peer: PeerInfo,
    /// What queue pairs towards the peer are connected with.
    capabilities: PeerCapabilities,
    /// Failed lanes are rebuilt; only with a peer that can do it too.
    heals: bool,
    /// We connected, so rebuilds are ours to begin.
    leads: bool,
    channel: Arc<Channel>,
    notify: Option<Sender>,
    /// Keeps the place of the peer's notification socket, until the connection ends.
    connected_host: Mutex<Option<ConnectedHost>>,
    /// Names the connection in this process.
    number: u64,
    /// Wakes the recovery.
    wakeup: Arc<Wakeup>,
    rebuilds: Arc<Rebuilds>,
    /// The recovery, a task of the event loop; set once the connection stands.
    recovery: OnceCell<(Task, Arc<EventLoop>)>,
    /// Counts for operators, incremented by any thread: Relaxed.
    failures: AtomicU64,
    rebuilt: AtomicU64,
    notified: AtomicU64,
    /// Why it starts no transfers, in bits; 0 when it does. Read by submitters, with one load: Relaxed. [`CLOSED`] is set
    /// once by `end` and is a hint, the lanes' own state decides. [`FAILURES_HELD`] is set by callers that meet failures
    /// and cleared by submitters that find room again.
    gate: AtomicU32,
    /// Done once everything has ended.
    ended: Once,
}

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
    /// Whether we connected.
    pub leads: bool,
    /// How its end is noticed.
    pub presence: Presence,
    /// The socket that stays open.
    pub channel: Channel,
    /// The way to send notifications.
    pub notify: Option<Sender>,
    /// Keeps the place of the peer's notification socket, if it may have one.
    pub connected_host: Option<ConnectedHost>,
}

/// The peer of a connection, as the handshake told.
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
    /// How bytes travel now; the slower path where READs and WRITEs take different ones.
    pub path: PathKind,
    /// The path of each.
    pub paths: Paths,
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

/// `gate`: the connection has been closed.
const CLOSED: u32 = 1;

/// `gate`: as many of its failed transfers are within their hold as an engine keeps.
const FAILURES_HELD: u32 = 2;

/// Why the transfers of a connection end that is closed here.
const CLOSED_HERE: &str = "the connection was closed";

/// How long a queue pair may take to flush before it is destroyed instead.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Connection {
    /// A connection over connected queue pairs, which become its lanes; watched by the event loop from now on.
    #[doc(hidden)]
    pub fn new(
        context: Arc<Context>,
        lanes: LaneBuilder,
        established: Established,
    ) -> Result<Arc<Self>, PoolError> {
        // Std's also where loom's take the place of others: a static needs a constant.
        use std::sync::atomic::AtomicU64 as Number;
        /// Numbers the connections; only their uniqueness matters: Relaxed.
        static NEXT: Number = Number::new(1);
        let Established {
            peer,
            remote,
            told,
            capabilities,
            heals,
            leads,
            presence,
            channel,
            notify,
            connected_host,
        } = established;
        let (paths, policy) = (lanes.paths(), lanes.policy());
        let lanes_carry_gpu = context.pool.device().attributes().capabilities.gpu_memory;
        let wakeup = Arc::new(Wakeup::default());
        let notifier = Arc::new(RecoveryNotifier(Arc::clone(&wakeup)));
        let lanes = lanes.install(heals, Some(notifier))?;
        tracing::info!(
            peer = %peer.control, path = %paths, lanes = lanes.len(), regions = remote.table().len(), local = peer.local, "connected"
        );
        let connection = Arc::new(Self(OfProcess::new(Inner {
            context,
            lanes,
            policy,
            paths,
            reach: Reach::new(peer.same_process, peer.local, paths, lanes_carry_gpu),
            gate: AtomicU32::new(0),
            remote: Arc::new(remote),
            gpu: GpuLanes::default(),
            sync_requests: Arc::new(SyncRequests::new(told.is_some())),
            peer,
            capabilities,
            heals,
            leads,
            channel: Arc::new(channel),
            notify,
            connected_host: Mutex::new(connected_host),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            wakeup,
            rebuilds: Arc::default(),
            recovery: OnceCell::new(),
            failures: AtomicU64::new(0),
            rebuilt: AtomicU64::new(0),
            notified: AtomicU64::new(0),
            ended: Once::new(),
        })));
        connection.start_recovery(told, presence)?;
        if let Some(events) = &connection.context.device_events {
            events.watch(&connection);
            // It may have changed during the handshake.
            connection.wakeup.wake();
        }
        observe::registry().add(&connection);
        Ok(connection)
    }

    fn start_recovery(self: &Arc<Self>, told: Option<Cursor>, presence: Presence) -> Result<(), PoolError> {
        let events = EventLoop::acquire()
            .map_err(|error| PoolError::Thread(format!("starting the event loop: {error}")))?;
        let machine = Machine::new(RebuildPolicy { leads: self.leads, heals: self.heals }, self.lanes.len());
        let connection = Arc::downgrade(self);
        let wakeup = Arc::clone(&self.wakeup);
        let exchange = told.map(|told| {
            let ours = self.context.registry.announced().subscribe(told, Arc::clone(&wakeup));
            Exchange::new(ours, Arc::clone(&self.remote), Arc::clone(&self.sync_requests))
        });
        let (channel, rebuilds) = (Arc::clone(&self.channel), Arc::clone(&self.rebuilds));
        match &presence {
            Presence::Sockets => {}
            Presence::Process(process) => process.watch(&wakeup),
            Presence::Pinged(pinger) => pinger.add(&channel, &wakeup),
        }
        let parts = Parts { channel, wakeup, machine, rebuilds, exchange, presence, heals: self.heals };
        let task = events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                match Driver::new(&connection, parts, handle.clone()) {
                    Ok(driver) => driver.run().await,
                    Err(error) => handle.detach(move || {
                        if let Some(connection) = connection.upgrade() {
                            let reason = format!("the event loop cannot watch it: {error}");
                            connection.lose(&reason, Instant::now() + DRAIN_LIMIT);
                        }
                    }),
                }
            }
        });
        // The cell is empty: this is called once.
        let _ = self.recovery.set((task, events));
        Ok(())
    }

    /// Refuses in a child of the process that made the connection.
    #[doc(hidden)]
    #[inline]
    pub fn here(&self) -> Result<(), Forked> {
        OfProcess::here(&self.0).map(drop)
    }

    #[inline(always)]
    fn is_here(&self) -> bool {
        OfProcess::is_here(&self.0)
    }

    /// A descriptor for `size` bytes at `address` in the peer's memory; `None` if no region that the peer has announced holds
    /// them.
    ///
    /// If none does, this asks the peer whether there are more, and waits for its answer for at most a second: whatever the
    /// peer registered before the call is found. A peer that runs the original engine is not asked.
    pub fn describe_remote(&self, address: u64, size: u32) -> Option<RemoteRange> {
        let rkey = self.remote_key(address, u64::from(size))?;
        Some(RemoteRange { address, size, rkey })
    }

    /// The peer, as the handshake told.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// What is known of the connection now: its path, and how many of its lanes work.
    pub fn info(&self) -> ConnectionInfo {
        let paths = self.paths();
        ConnectionInfo {
            peer: self.peer.control.to_string(),
            path: paths.slower(),
            paths,
            lanes: self.lanes.len(),
            healthy_lanes: self
                .lanes
                .iter()
                .filter(|lane| self.is_here() && lane.status.health() == LaneHealth::Healthy)
                .count(),
            local: self.peer.local,
            ours: self.peer.ours,
            gpu_index: self.peer.gpu_index,
        }
    }

    /// How bytes travel now: a lane that has left a path for another one speaks for all.
    fn paths(&self) -> Paths {
        if !self.is_here() {
            return self.paths;
        }
        let of_lane = |lane: &LaneHandle| lane.worker.with_state(|state| state.paths(lane.key));
        let mut lanes = self.lanes.iter().filter_map(of_lane);
        let Some(first) = lanes.next() else { return self.paths };
        lanes.find(|paths| *paths != first && paths.slower() == PathKind::Tcp).unwrap_or(first)
    }

    /// Whether the peer is on this host.
    #[doc(hidden)]
    pub fn is_local(&self) -> bool {
        self.peer.local
    }

    /// Whether transfers can still be started: it is not closed, and a lane works or is being rebuilt.
    pub fn is_usable(&self) -> bool {
        self.is_here()
            && !self.is_closed()
            && self.lanes.iter().any(|lane| match lane.status.health() {
                LaneHealth::Healthy => true,
                LaneHealth::Broken | LaneHealth::Drained => self.heals,
                LaneHealth::Closed => false,
            })
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & CLOSED != 0
    }

    /// Its handle is gone: forgets what [`Connection::has_ended`] told through it.
    #[doc(hidden)]
    pub fn forget_failed(&self) {
        if !self.is_here() {
            return;
        }
        self.context.transfers.forget_failed(self.number);
    }

    /// Refuses when no transfer can be started.
    #[cold]
    fn require_open(&self) -> Result<(), SubmitError> {
        self.here()?;
        if self.is_closed() {
            return Err(self.down("it is closed"));
        }
        // Before the question: what another thread finds after it must not be undone.
        self.gate.fetch_and(!FAILURES_HELD, Ordering::Relaxed);
        if !self.context.transfers.has_room_for_failures(self.number) {
            self.gate.fetch_or(FAILURES_HELD, Ordering::Relaxed);
            return Err(SubmitError::TooManyFailures { peer: self.peer.control.to_string() });
        }
        Ok(())
    }

    /// Whether transfers are started without asking [`Connection::require_open`] first.
    #[inline]
    fn is_open(&self) -> bool {
        self.gate.load(Ordering::Relaxed) == 0 && self.is_here()
    }

    /// Closes the connection: its transfers end as cancelled, and when this returns nothing of it touches memory any more, but
    /// for copies of a GPU, which nothing can stop: those that are under way go on, and keep their regions registered until they are
    /// done. [`Engine::deregister`](crate::Engine::deregister) waits for them, so deregister before memory is freed.
    ///
    /// Takes at most 2 s, for a queue pair that does not drain. Done once, however often it is called, and when the last
    /// reference is dropped. In a forked child it does nothing.
    pub fn close(&self) {
        if !self.is_here() {
            return;
        }
        self.end(EndState::Cancelled, CLOSED_HERE, Instant::now() + DRAIN_LIMIT);
    }
}

/// What the recovery has done on its behalf. These calls block for commands of the device, never for the peer.
impl Connection {
    fn break_lane(&self, lane: usize, reason: &str) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.worker.with_state(|state| state.break_lane(lane.key, reason));
        }
    }

    /// One step of closing a lane for good, while the others go on; false while it is being drained.
    fn try_give_up(&self, index: usize, reason: &str, deadline: Instant) -> bool {
        let Some(lane) = self.lanes.get(index) else { return true };
        if lane.status.health() == LaneHealth::Closed {
            return true;
        }
        let is_closed = self.try_close_lane(lane, EndState::Failed, reason, deadline);
        if is_closed {
            tracing::warn!(peer = %self.peer.control, lane = index, "a lane is given up: {reason}");
        }
        is_closed
    }

    /// Puts a connected queue pair in the place of a drained one.
    fn heal(&self, index: usize, queue_pair: Box<dyn QueuePair>) {
        let Some(lane) = self.lanes.get(index) else { return };
        // One of the two is destroyed here, without the worker's lock.
        let replaced = lane.worker.with_state(|state| state.heal_lane(lane.key, queue_pair));
        if replaced.is_err() {
            return;
        }
        self.rebuilt.fetch_add(1, Ordering::Relaxed);
        tracing::info!(peer = %self.peer.control, lane = index, "a lane is back in working order");
        lane.worker.kick();
    }

    /// A queue pair that can take a lane's place.
    fn fresh_queue_pair(&self, lane: usize) -> Result<(Box<dyn QueuePair>, LaneRecord), FabricError> {
        let handle = self
            .lanes
            .get(lane)
            .ok_or_else(|| FabricError::Unsupported("the connection has no such lane".to_owned()))?;
        let queue_pair = LaneBuilder::create_on(&self.context, &handle.worker)?;
        let granted = queue_pair.caps();
        // The requests that wait were made for what the lanes were granted at first.
        if !self.policy.fits(granted.max_sge, granted.max_inline) {
            return Err(FabricError::Unsupported(format!(
                "it was granted {} entries per request and {} bytes inline, less than the one before",
                granted.max_sge, granted.max_inline
            )));
        }
        tracing::info!(peer = %self.peer.control, lane, reason = handle.status.reason(), "rebuilding a lane");
        let capabilities = Some(LaneBuilder::new(Arc::clone(&self.context)).capabilities());
        let record = LaneRecord { address: queue_pair.address(), capabilities };
        Ok((queue_pair, record))
    }

    fn path_options(&self, deadline: Instant) -> PathOptions {
        LaneBuilder::path_options(&self.context, self.capabilities, deadline)
    }
}

impl Deref for Connection {
    type Target = Inner;

    #[inline(always)]
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Passes a lane's change on to the recovery.
#[derive(Debug)]
struct RecoveryNotifier(Arc<Wakeup>);

impl LaneWatcher for RecoveryNotifier {
    fn lane_changed(&self) {
        self.0.wake();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
        self.forget_failed();
    }
}
