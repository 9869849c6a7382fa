//! The lanes of a connection while it is made: queue pairs on the pool's workers, connected, then handed to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::context::{Context, TransferSettings};
use super::device_events::{DeviceEvents, DeviceHealth};
use crate::control::{LaneCapabilities, LaneFuture, LaneSetup as HandshakeLanes, PeerCapabilities};
use crate::events::Waiter;
use crate::fabric::{Device, FabricError, PathKind, PathOptions, Paths, QpAddress, QueuePair, QueuePairCaps};
use crate::pool::{LaneKey, LaneSetup, LaneStatus, LaneWatcher, PoolError, Worker};
use crate::transfer::SlicePolicy;

/// One lane of a connection, as its submitters see it.
#[derive(Clone, Debug)]
pub struct LaneHandle {
    /// Its worker.
    pub worker: Arc<Worker>,
    /// The index of that among the workers of the engine, as transfers name it.
    pub worker_index: usize,
    /// Its name there.
    pub key: LaneKey,
    /// Its health.
    pub status: Arc<LaneStatus>,
    /// What its device says on its own; `None` where that cannot be read.
    pub device_events: Option<Arc<DeviceEvents>>,
}

impl LaneHandle {
    /// How its device is, as far as its events tell.
    pub(super) fn device_health(&self) -> DeviceHealth {
        self.device_events.as_ref().map_or(DeviceHealth::Up, |events| events.health())
    }
}

/// Queue pairs on their way to become lanes.
#[derive(Debug)]
pub struct LaneBuilder {
    context: Arc<Context>,
    queue_pairs: Vec<OnWorker>,
    ends: Option<LaneEnds>,
}

/// The two ends of a connection's first lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneEnds {
    /// Ours.
    pub own: QpAddress,
    /// The peer's.
    pub peer: QpAddress,
}

/// A queue pair, behind the index of its worker in the pool.
type OnWorker = (usize, Box<dyn QueuePair>);

impl LaneBuilder {
    /// None yet.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, queue_pairs: Vec::new(), ends: None }
    }

    /// Creates one queue pair on a worker of `device`, in INIT.
    pub fn create_on(
        device: &Arc<dyn Device>,
        settings: &TransferSettings,
        worker: &Worker,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        let caps = Self::caps_on(&**device, settings);
        // Without the worker's lock: a command of the device may take long, and other lanes go on.
        Arc::clone(device).create_queue_pair(worker.queue_handle(), &caps)
    }

    /// What a queue pair of `device` is asked for.
    pub fn caps_on(device: &dyn Device, settings: &TransferSettings) -> QueuePairCaps {
        let attributes = device.attributes();
        QueuePairCaps {
            send_depth: settings.lane_depth.clamp(1, attributes.max_queue_depth.max(1)),
            max_sge: settings.max_sge.clamp(1, attributes.max_sge.max(1)),
            max_inline: settings.max_inline,
        }
    }

    /// What queue pairs of `device` towards `peer` are connected with.
    pub fn path_options(device: &dyn Device, peer: PeerCapabilities, deadline: Instant) -> PathOptions {
        let attributes = device.attributes();
        PathOptions {
            // Never more than the peer accepts: an original one accepts 1 and does not say so.
            rd_atomic_initiator: attributes
                .max_rd_atomic_initiator
                .min(peer.lanes.rd_atomic_responder)
                .max(1),
            rd_atomic_responder: attributes.max_rd_atomic_responder.max(1),
            deadline,
        }
    }

    /// How bytes travel on the first lane.
    pub fn paths(&self) -> Paths {
        let first = self.queue_pairs.first();
        first.map_or_else(|| Paths::both(PathKind::None), |(_, queue_pair)| queue_pair.paths())
    }

    /// The ends of the first lane, once connected.
    pub fn ends(&self) -> Option<LaneEnds> {
        self.ends
    }

    /// How transfers are cut so that each of the queue pairs takes every request.
    pub fn policy(&self) -> SlicePolicy {
        self.queue_pairs.iter().fold(self.context.policy, |policy, (_, queue_pair)| {
            let granted = queue_pair.caps();
            policy.granted(granted.max_sge, granted.max_inline)
        })
    }

    /// Hands the connected queue pairs to their workers.
    pub fn install(
        self,
        heals: bool,
        watcher: Option<Arc<dyn LaneWatcher>>,
    ) -> Result<Vec<LaneHandle>, PoolError> {
        let mut lanes = Vec::with_capacity(self.queue_pairs.len());
        for (worker_index, queue_pair) in self.queue_pairs {
            let status = Arc::new(LaneStatus::new(watcher.clone()));
            let setup = LaneSetup { status: Arc::clone(&status), heals };
            let Some(worker) = self.context.pool.workers().get(worker_index).map(Arc::clone) else {
                continue;
            };
            let key = worker.with_state(|state| state.add_lane(queue_pair, setup))?;
            if let Some(nic) = self.context.slots.first() {
                nic.count_lane(&status);
            }
            // Parked without lanes, it would sleep on.
            worker.kick();
            let device_events = self.context.device_events.clone();
            lanes.push(LaneHandle { worker, worker_index, key, status, device_events });
        }
        Ok(lanes)
    }
}

impl HandshakeLanes for LaneBuilder {
    fn offer(&self) -> u32 {
        self.context.settings.lanes
    }

    fn capabilities(&self) -> LaneCapabilities {
        capabilities_of(&**self.context.pool.device())
    }

    fn create<'a>(&'a mut self, agreed: u32, waiter: &'a Waiter) -> LaneFuture<'a, Vec<QpAddress>> {
        let context = Arc::clone(&self.context);
        Box::pin(async move {
            self.queue_pairs = waiter.call(move || create_spread(&context, agreed as usize)).await?;
            Ok(self.queue_pairs.iter().map(|(_, queue_pair)| queue_pair.address()).collect())
        })
    }

    fn connect<'a>(
        &'a mut self,
        peers: &'a [QpAddress],
        peer: PeerCapabilities,
        deadline: Instant,
        waiter: &'a Waiter,
    ) -> LaneFuture<'a, ()> {
        let options = Self::path_options(&**self.context.pool.device(), peer, deadline);
        self.ends = match (self.queue_pairs.first(), peers.first()) {
            (Some((_, own)), Some(&peer)) => Some(LaneEnds { own: own.address(), peer }),
            _ => None,
        };
        Box::pin(async move {
            if self.queue_pairs.iter().any(|(_, queue_pair)| queue_pair.connects_by_commands()) {
                // Those of one that fails are destroyed where the others are connected.
                let (pairs, peers) = (std::mem::take(&mut self.queue_pairs), peers.to_vec());
                self.queue_pairs = waiter.call(move || connect_all(pairs, &peers, &options)).await?;
                return Ok(());
            }
            for ((_, queue_pair), address) in self.queue_pairs.iter_mut().zip(peers) {
                queue_pair.connect_with(address, &options, waiter).await?;
            }
            Ok(())
        })
    }
}

/// What lanes of a device can do.
pub(super) fn capabilities_of(device: &dyn Device) -> LaneCapabilities {
    let attributes = device.attributes();
    LaneCapabilities {
        rd_atomic_initiator: attributes.max_rd_atomic_initiator,
        rd_atomic_responder: attributes.max_rd_atomic_responder,
    }
}

fn connect_all(
    mut pairs: Vec<OnWorker>,
    peers: &[QpAddress],
    options: &PathOptions,
) -> Result<Vec<OnWorker>, FabricError> {
    for ((_, queue_pair), address) in pairs.iter_mut().zip(peers) {
        queue_pair.connect(address, options)?;
    }
    Ok(pairs)
}

/// Creates queue pairs on the workers of the pool in turn, beginning with another one each time, so that connections with
/// few lanes use all workers.
fn create_spread(context: &Context, count: usize) -> Result<Vec<OnWorker>, FabricError> {
    /// Where the next connection's first lane goes. Only a spread: Relaxed.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    context.require_port()?;
    let first = NEXT.fetch_add(count, Ordering::Relaxed);
    let workers = context.pool.workers();
    (0..count)
        .map(|lane| {
            let index = first.wrapping_add(lane) % workers.len().max(1);
            let worker = workers
                .get(index)
                .ok_or_else(|| FabricError::Unsupported("the pool has no workers".to_owned()))?;
            Ok((index, LaneBuilder::create_on(context.pool.device(), &context.settings, worker)?))
        })
        .collect()
}
