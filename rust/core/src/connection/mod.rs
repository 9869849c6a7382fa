//! The way to one peer: lanes, the peer's region table, locality.
//!
//! Lanes are of rails, a pair of NICs each. The first rail is made with the connection, and is all that one with an end with one NIC has
//! while it works: then nothing of the modules `rail` and `rail_*` is in the way of a transfer. Further rails are made while the connection
//! is in use.
//!
//! | modules | what they do |
//! |---|---|
//! | `engine_nics`, `nic_context`, `nic_record`, `nic_limits`, `nic_slots`, `nic_flow` | the NICs of an engine: opened when they are needed, named to peers, and their loads |
//! | `rail`, `rail_commands` | the places of rails, and their making |
//! | `rail_adding`, `rail_demand`, `rail_lost` | which rails there are to be, and when; what takes over where one is lost |
//! | `path_trial` | shows that two NICs reach each other, before a rail is made of them |
//! | `rail_submit`, `rail_loads` | a transfer over several rails, and what submitters know of them |
//! | `rail_watch` | what the connection's task learns of rails by looking at counters |
//! | `rail_moves` | parts that go from one rail to another |
//! | `rail_record`, `rail_info` | what operators are told |
//! | `recovery` | rebuilds lanes, adds rails and leaves them |

mod begin_one;
mod channel_record;
mod close;
mod context;
mod device_commands;
mod device_events;
mod direct;
mod end_notices;
mod ended;
mod engine_nics;
mod established;
mod gpu_imports;
mod gpu_lanes;
mod gpu_transfer;
mod info;
mod lane_choice;
mod lane_commands;
mod lanes;
mod log_lines;
mod metrics;
mod nic_context;
mod nic_flow;
mod nic_limits;
mod nic_record;
mod nic_slots;
mod notifications;
mod path_trial;
mod presence;
mod rail;
mod rail_adding;
mod rail_commands;
mod rail_demand;
mod rail_info;
mod rail_loads;
mod rail_lost;
mod rail_moves;
mod rail_need;
mod rail_places;
mod rail_record;
mod rail_short;
mod rail_submit;
mod rail_watch;
mod recovery;
mod refusal_lines;
mod regions;
mod retire;
mod route;
mod submit;
mod submit_parts;
mod transfer_future;
mod transfer_span;
mod wait;
mod wakes;

use std::ops::Deref;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

pub use context::{Context, TransferSettings};
pub use device_events::{DeviceEvents, DeviceHealth};
pub use ended::Ended;
pub use engine_nics::{DeviceChoice, OpenNicError};
pub use info::{ConnectionInfo, PeerInfo};
pub use lanes::{LaneBuilder, LaneEnds, LaneHandle};
pub use nic_context::NicContext;
pub use nic_record::NicRecord;
pub use presence::{Pinger, Presence};
pub use rail_record::RailRecord;
pub use route::{Remote, Request};
pub use submit::WhenFull;
pub use transfer_future::Transfer;

pub use channel_record::ChannelRecord;
use close::Ending;
pub use established::{Established, EstablishedRedial};
use gpu_lanes::GpuLanes;
use lane_commands::RecoveryNotifier;
use rail::Rails;
use rail_watch::RailWatch;
use recovery::{Driver, Machine, Parts, RailRequests, RebuildPolicy, Rebuilds};
use regions::{Exchange, SyncRequests};
use route::Reach;

use crate::control::{Channel, ConnectedHost, PeerCapabilities};
use crate::events::{EventLoop, Task, Wakeup};
use crate::fabric::Paths;
use crate::fork::{Forked, OfProcess};
use crate::memory::{Cursor, RemoteRegions, holds};
use crate::notify::Sender;
use crate::observe::{self, PathNames, SharedCounts};
use crate::pool::PoolError;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::transfer::{RemoteRange, SlicePolicy, Spread, SubmitError};

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
    /// What operators are told of the first rail, which has these lanes.
    first_rail: RailRecord,
    /// How transfers are cut for these lanes, but for the sizes: see [`Connection::policy`].
    policy: SlicePolicy,
    /// Those of the first lane at the connect: what is told once the lanes are gone.
    paths: Paths,
    /// The ends of the first lane at the connect.
    ends: Option<LaneEnds>,
    reach: Reach,
    /// Whether the lanes had direct copies at the connect: elsewhere no transfer looks for them.
    copies_directly: bool,
    /// How transfers are spread over the lanes.
    spread: Spread,
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
    /// What operators are told of it.
    channel_record: ChannelRecord,
    notify: Option<Sender>,
    /// Keeps the place of the peer's notification socket, until the connection ends.
    connected_host: Mutex<Option<ConnectedHost>>,
    /// Names the connection in this process.
    number: u64,
    /// Wakes the recovery.
    wakeup: Arc<Wakeup>,
    rebuilds: Arc<Rebuilds>,
    /// Its further rails.
    rails: Rails,
    /// What the recovery is to do with rails.
    rail_requests: Arc<RailRequests>,
    /// The recovery, a task of the event loop; set once the connection stands.
    recovery: OnceCell<(Task, Arc<EventLoop>)>,
    /// Notifications sent, for operators; incremented by any thread: Relaxed.
    notified: AtomicU64,
    /// Where parts of its transfers are counted that no lane took.
    unplaced: Arc<SharedCounts>,
    /// The name of the peer in metrics.
    peer_name: Arc<str>,
    /// The lanes that the recovery has found out of working order, a bit each, for events. Written by the recovery and its helpers;
    /// it guards nothing, so Relaxed.
    broken_lanes: AtomicU64,
    /// Its counts are among those of the connections that have ended. Set while no snapshot is made, by the thread that ends
    /// the connection, and read by those that make one: the registry's lock orders it, so Relaxed.
    reported: AtomicBool,
    /// What submitters must look at before they start a transfer, in bits; 0 when nothing. Read by submitters, with one load:
    /// Relaxed. [`CLOSED`] is set once by `end`, with [`CANCELS`] or without, and is a hint to them, the lanes' own state decides; with the places of
    /// rails it is ordered by `rail_places`. [`FAILURES_HELD`] is set by
    /// callers that meet failures and cleared by submitters that find room again, [`UNSEEN`] by the task and by submitters. [`TRACED`] never changes: it is here
    /// because a check of the log's level of its own would cost every transfer two instructions.
    gate: AtomicU32,
    /// Done once everything has ended.
    ended: Once,
}

/// `gate`: the connection has been closed.
const CLOSED: u32 = 1;

/// `gate`: as many of its failed transfers are within their hold as an engine keeps.
const FAILURES_HELD: u32 = 2;

/// `gate`: each transfer has a span in the log.
const TRACED: u32 = 4;

/// `gate`: it has several rails. Set once, when a lane of the first further one is in working order.
const RAILS: u32 = 8;

/// `gate`: this end has closed it, so its transfers end as cancelled. Set with [`CLOSED`], never alone.
const CANCELS: u32 = 16;

/// `gate`: its task does not look whether it needs a further rail, so the next transfer wakes it.
const UNSEEN: u32 = 32;

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
            rails,
            other_pairs,
            lanes_on_use,
            leads,
            began,
            presence,
            process,
            channel,
            redial,
            notify,
            connected_host,
        } = established;
        let (paths, policy, ends) = (lanes.paths(), lanes.policy(), lanes.ends());
        let lanes_carry_gpu = context.pool.device().attributes().capabilities.gpu_memory;
        let wakeup = Arc::new(Wakeup::default());
        let notifier = Arc::new(RecoveryNotifier(Arc::clone(&wakeup)));
        let lanes = lanes.install(heals, Some(notifier))?;
        let peer_name = observe::registry().peer_name(&peer.control.to_string());
        let copies_directly = lanes.iter().any(|lane| lane.status.direct.is_there());
        let spread = if context.pool.device().attributes().capabilities.needs_polling {
            Spread::over_threads(lanes.len())
        } else {
            Spread::over_device(lanes.len())
        };
        let further = Rails::new(context.settings.plan_limits, other_pairs);
        let first_rail = RailRecord::new(0, peer.control, context.pool.device().attributes());
        let connection = Arc::new(Self(OfProcess::new(Inner {
            first_rail,
            context,
            copies_directly,
            spread,
            lanes,
            policy,
            paths,
            ends,
            reach: Reach::new(peer.same_process, peer.local, paths, lanes_carry_gpu),
            gate: AtomicU32::new(if transfer_span::is_wanted() { TRACED } else { 0 }),
            remote: Arc::new(remote),
            gpu: GpuLanes::of_peer(process),
            sync_requests: Arc::new(SyncRequests::new(told.is_some())),
            peer,
            capabilities,
            heals,
            leads,
            channel: Arc::new(channel),
            channel_record: ChannelRecord::default(),
            notify,
            connected_host: Mutex::new(connected_host),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            rails: further,
            rail_requests: Arc::new(RailRequests::new(Arc::clone(&wakeup))),
            wakeup,
            rebuilds: Arc::default(),
            recovery: OnceCell::new(),
            notified: AtomicU64::new(0),
            unplaced: Arc::new(SharedCounts::new(PathNames { write: "none", read: "none" })),
            peer_name,
            broken_lanes: AtomicU64::new(0),
            reported: AtomicBool::new(false),
            ended: Once::new(),
        })));
        // Before anything can end it: the line of its end comes after this one.
        connection.log_connected(began);
        connection.start_recovery(told, presence, (rails, lanes_on_use), redial)?;
        if let Some(events) = &connection.context.device_events {
            events.watch(&connection);
            // It may have changed during the handshake.
            connection.wakeup.wake();
        }
        observe::registry().add(&connection);
        Ok(connection)
    }

    fn start_recovery(
        self: &Arc<Self>,
        told: Option<Cursor>,
        presence: Presence,
        (rails, lanes_on_use): (bool, bool),
        redial: Option<EstablishedRedial>,
    ) -> Result<(), PoolError> {
        let events = EventLoop::acquire()
            .map_err(|error| PoolError::Thread(format!("starting the event loop: {error}")))?;
        let rails = rails && self.heals && told.is_some();
        let policy = RebuildPolicy { leads: self.leads, heals: self.heals, rails, lanes_on_use };
        let machine = Machine::new(policy, self.lanes.len());
        if let Some(nics) = self.nic_list().filter(|_| rails) {
            self.channel.queue_nics(&nics);
        }
        let redial = redial.map(|redial| self.redial_parts(redial));
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
        let rail_requests = Arc::clone(&self.rail_requests);
        let parts = Parts {
            channel,
            wakeup,
            machine,
            rebuilds,
            rail_requests,
            exchange,
            presence,
            watch: RailWatch::new(self.context.settings.rail_limits, Arc::clone(&self.rails.loads)),
            leads: self.leads,
            heals: self.heals,
            redial,
        };
        let task = events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                match Driver::new(&connection, parts, handle.clone()) {
                    Ok(driver) => driver.run().await,
                    Err(error) => handle.detach(move || {
                        if let Some(connection) = connection.upgrade() {
                            let reason = format!("the event loop cannot watch it: {error}");
                            connection.lose(Ending::Lost, &reason, Instant::now() + DRAIN_LIMIT);
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
    /// them. A region may be in several segments with keys of their own; the descriptor has the key of the first of them, and
    /// transfers on this connection find the others. In another process they may fail: there use what the peer's
    /// [`Engine::describe`](crate::Engine::describe) gives.
    ///
    /// If none does, this asks the peer whether there are more, and waits for its answer for at most a second: whatever the
    /// peer registered before the call is found. A peer that runs the original engine is not asked.
    pub fn describe_remote(&self, address: u64, size: u32) -> Option<RemoteRange> {
        let rkey = self.remote_key(address, u64::from(size))?;
        Some(RemoteRange { address, size, rkey })
    }

    /// As [`Connection::describe_remote`], for a descriptor that may go anywhere: `None`, too, if the range is in several segments of
    /// the peer's region. Another process has one key then, and may not know that it is good for the first segment only.
    #[doc(hidden)]
    pub fn describe_remote_segment(&self, address: u64, size: u32) -> Option<RemoteRange> {
        let segment = self.remote_region(address, u64::from(size))?;
        let remote = RemoteRange { address, size, rkey: segment.rkey };
        holds(segment.base, segment.size, address, u64::from(size)).then_some(remote)
    }

    /// Whether the peer is on this host.
    #[doc(hidden)]
    pub fn is_local(&self) -> bool {
        self.peer.local
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

    /// Whether transfers are started without asking [`Connection::require_open`] first, and without a span.
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
        self.end(Ending::ClosedHere, CLOSED_HERE, Instant::now() + DRAIN_LIMIT);
    }
}

impl Deref for Connection {
    type Target = Inner;

    #[inline(always)]
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
        self.forget_failed();
    }
}
