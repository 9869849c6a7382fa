//! What the connections of one engine share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::device_events::{DeviceEvents, DeviceHealth};
use crate::config::Config;
use crate::events::Polling;
use crate::fabric::{Device, FabricError};
use crate::memory::{GpuFlush, Registry};
use crate::pool::{PoolError, PoolOptions, WorkerPool};
use crate::topology::{Sysfs, cpus_near};
use crate::transfer::{SlicePolicy, SliceSizes, Table, TimeLimit};

/// Shared by all connections of an engine, and kept alive by each.
#[derive(Debug)]
pub struct Context {
    /// Our memory.
    pub registry: Registry,
    /// Our transfers.
    pub transfers: Table,
    /// The NIC's workers.
    pub pool: Arc<WorkerPool>,
    /// How transfers are cut into work requests, if queue pairs are granted what is asked.
    pub policy: SlicePolicy,
    /// The sizes of slices now; those of `policy` are the first.
    pub slice_sizes: SliceSizes,
    /// Settings of transfers.
    pub settings: TransferSettings,
    /// What the device says on its own; `None` where they cannot be read.
    pub(super) device_events: Option<Arc<DeviceEvents>>,
    /// The GPU on which transfers run that name no memory of this process on a GPU.
    pub(super) gpu_index: i32,
    /// The time that a transfer has.
    pub(super) time_limit: TimeLimit,
    /// What callers do before they sleep, where the device moves bytes only while it is polled.
    pub(super) polling: Option<Polling>,
}

/// How long callers poll at most, beyond `FLAGCX_P2P_SPIN_US`: longer than 1 MiB takes over TCP on a loopback.
const LONGEST_POLL: Duration = Duration::from_micros(500);

/// Settings of transfers and lanes.
#[derive(Clone, Debug)]
pub struct TransferSettings {
    /// How long a transfer may take from when a worker first looks at it; `None` for any time.
    pub timeout: Option<Duration>,
    /// How long a failed transfer reads as not ended to callers that ask nothing else.
    pub failed_hold: Duration,
    /// How long a waiting caller drives workers without progress before it sleeps.
    pub spin: Duration,
    /// Lanes offered per connection.
    pub lanes: u32,
    /// Requests a lane may hold.
    pub lane_depth: u32,
    /// Scatter/gather entries per request.
    pub max_sge: u32,
    /// Inline bytes.
    pub max_inline: u32,
    /// Whether peers flush what they write to our GPU memory; `None`: as the GPU needs it.
    pub flush_writes: Option<bool>,
    /// READs into our GPU memory are to be flushed, which is only said to be missing.
    pub flush_reads: bool,
}

impl Context {
    /// A context over `pool`, with regions on its device.
    pub fn new(
        pool: Arc<WorkerPool>,
        policy: SlicePolicy,
        slice_sizes: SliceSizes,
        settings: TransferSettings,
    ) -> Self {
        let device_events = DeviceEvents::of_device(pool.device())
            .inspect_err(|error| {
                tracing::warn!("cannot listen to the asynchronous events of the device: {error}")
            })
            .ok();
        let polls = pool.device().attributes().capabilities.needs_polling && !settings.spin.is_zero();
        Self {
            polling: polls.then(|| Polling::new(LONGEST_POLL)),
            time_limit: settings.timeout.map_or(TimeLimit::NEVER, TimeLimit::new),
            device_events,
            registry: Registry::with_gpu_flush(
                Arc::clone(pool.device()),
                GpuFlush { writes: settings.flush_writes, reads: settings.flush_reads },
            ),
            transfers: Table::new(settings.failed_hold, pool.workers().len()),
            pool,
            policy,
            slice_sizes,
            settings,
            gpu_index: 0,
        }
    }

    /// The same for the engine of a GPU.
    pub fn of_gpu(self, gpu_index: i32) -> Self {
        Self { gpu_index, ..self }
    }

    /// A context over the pool of `device`, with the sizes that `config` says.
    pub fn open(config: &Config, device: &Arc<dyn Device>) -> Result<Self, PoolError> {
        let pool = WorkerPool::of_device(
            device,
            &PoolOptions {
                workers: config.workers_per_pool,
                submission_queues: config.shard_count,
                queue_depth: config.queue_depth,
                cq_depth: config.cq_depth,
                max_posted: u32::try_from(config.max_requests.saturating_mul(4)).unwrap_or(u32::MAX),
                max_list: config.max_wr_per_post,
                poll_batch: config.batch_poll_size,
                spin: config.spin,
                cpus: cpus_near(&Sysfs::default(), device.attributes().pci_path.as_deref().map(Path::new)),
            },
        )?;
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let (slice_size, fragment_limit) = (size(config.slice_size), size(config.fragment_limit));
        let max_message = device.port()?.max_message;
        let policy = SlicePolicy::new(
            slice_size as usize,
            fragment_limit as usize,
            max_message,
            config.max_sge,
            config.max_inline,
        );
        let slice_sizes = SliceSizes::new(slice_size, fragment_limit, max_message);
        let settings = TransferSettings {
            timeout: config.xfer_timeout,
            failed_hold: config.failed_hold,
            spin: config.spin,
            lanes: config.qps_per_conn,
            lane_depth: u32::try_from(config.max_requests.saturating_mul(2)).unwrap_or(u32::MAX),
            max_sge: config.max_sge,
            max_inline: config.max_inline,
            flush_writes: config.flush_writes,
            flush_reads: config.flush_reads,
        };
        Ok(Self::new(pool, policy, slice_sizes, settings))
    }

    /// How the device is, as far as its events tell.
    pub fn device_health(&self) -> DeviceHealth {
        self.device_events.as_ref().map_or(DeviceHealth::Up, |events| events.health())
    }

    /// Refuses when nothing can move over the device now.
    pub(super) fn require_port(&self) -> Result<(), FabricError> {
        let attributes = self.pool.device().attributes();
        let name = format!("{} port {}", attributes.name, attributes.port);
        match self.device_health() {
            DeviceHealth::Up => Ok(()),
            DeviceHealth::PortDown(since) => Err(FabricError::Unsupported(format!(
                "{name} has been down for {} ms: bring its link up",
                since.elapsed().as_millis()
            ))),
            DeviceHealth::Lost(reason) => Err(FabricError::Unsupported(format!(
                "{name} cannot be used any more: {reason}; start the process again once it is back"
            ))),
        }
    }

    /// Runs a step on every worker that is free: for callers that wait for something of no particular worker.
    pub fn drive_all(&self) {
        for worker in self.pool.all_workers() {
            let _ = worker.drive_as_caller();
        }
    }
}
