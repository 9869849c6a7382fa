//! What the connections of one engine share.

use std::sync::Arc;
use std::time::Duration;

use super::device_events::{DeviceEvents, DeviceHealth};
use super::engine_nics::{DeviceChoice, EngineNics, NicOptions, OpenNicError};
use super::nic_context::{NicContext, flow_of, health, listen, require_port};
use super::nic_limits::nics_beyond_rails;
use super::nic_record::NicRecord;
use super::nic_slots::NicSlots;
use super::rail_record::nic_name;
use super::refusal_lines::Refusals;
use crate::config::Config;
use crate::events::Polling;
use crate::fabric::{Device, FabricError};
use crate::memory::{GpuFlush, Region, Registry};
use crate::pool::{PoolError, Worker, WorkerPool};
use crate::rails::{PlanLimits, RailLimits, RailMap};
use crate::sync::Mutex;
use crate::topology::HostTopology;
use crate::transfer::{SlicePolicy, SliceSizes, Table, TimeLimit};

/// Shared by all connections of an engine, and kept alive by each.
#[derive(Debug)]
pub struct Context {
    /// Our memory, as the first NIC knows it.
    pub registry: Arc<Registry>,
    /// Our transfers.
    pub transfers: Table,
    /// The first NIC's workers.
    pub pool: Arc<WorkerPool>,
    /// How transfers are cut into work requests, if queue pairs are granted what is asked.
    pub policy: SlicePolicy,
    /// The sizes of slices now; those of `policy` are the first.
    pub slice_sizes: SliceSizes,
    /// Settings of transfers.
    pub settings: TransferSettings,
    /// What the first NIC says on its own; `None` where they cannot be read.
    pub(super) device_events: Option<Arc<DeviceEvents>>,
    /// All NICs.
    nics: EngineNics,
    /// Those that rails use.
    pub(super) slots: NicSlots,
    /// Which refusals of rails are still told.
    pub(super) refusals: Refusals,
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
    /// Most rails of a connection; 1: the first NIC alone.
    pub rails: usize,
    /// When transfers use several rails, and when further ones are made.
    pub plan_limits: PlanLimits,
    /// When a rail is left.
    pub rail_limits: RailLimits,
    /// The operator's own pairs of NICs.
    pub rail_map: RailMap,
}

impl Context {
    /// A context over `pool`, with regions on its device.
    pub fn new(
        pool: Arc<WorkerPool>,
        policy: SlicePolicy,
        slice_sizes: SliceSizes,
        settings: TransferSettings,
    ) -> Self {
        Self::with_nics(pool, policy, slice_sizes, settings, false, EngineNics::of_one)
    }

    fn with_nics(
        pool: Arc<WorkerPool>,
        policy: SlicePolicy,
        slice_sizes: SliceSizes,
        settings: TransferSettings,
        has_others: bool,
        nics: impl FnOnce(NicContext) -> EngineNics,
    ) -> Self {
        let polls = pool.device().attributes().capabilities.needs_polling && !settings.spin.is_zero();
        let gpu_flush = GpuFlush { writes: settings.flush_writes, reads: settings.flush_reads };
        let registry = Registry::with_gpu_flush(Arc::clone(pool.device()), gpu_flush);
        let registry = Arc::new(if has_others { registry.with_further_nics() } else { registry });
        let device_events = listen(pool.device());
        let first = NicContext {
            number: 0,
            pool: Arc::clone(&pool),
            registry: Arc::clone(&registry),
            policy,
            device_events: device_events.clone(),
            flow: flow_of(&**pool.device()),
            commands: Arc::default(),
            lanes: Mutex::default(),
        };
        let nics = nics(first);
        let slots = NicSlots::new(nics.opened().next().map(Arc::clone));
        Self {
            polling: polls.then(|| Polling::new(LONGEST_POLL)),
            time_limit: settings.timeout.map_or(TimeLimit::NEVER, TimeLimit::new),
            device_events,
            registry,
            transfers: Table::new(settings.failed_hold, pool.workers().len()),
            slots,
            refusals: Refusals::default(),
            nics,
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

    /// A context over the pool of `device` alone, with the sizes that `config` says.
    pub fn open(config: &Config, device: &Arc<dyn Device>) -> Result<Self, PoolError> {
        let (devices, topology) = (std::slice::from_ref(device), &HostTopology::default());
        Self::open_among(config, device, DeviceChoice { devices, chosen: 0, unusable: &[], topology })
    }

    /// A context over the pool of `device`, which is the chosen one; the others may be opened later.
    pub fn open_among(
        config: &Config,
        device: &Arc<dyn Device>,
        choice: DeviceChoice<'_>,
    ) -> Result<Self, PoolError> {
        let options = NicOptions::new(config);
        let pool = options.open_pool(device)?;
        let max_message = device.port()?.max_message;
        let policy = options.policy(max_message);
        let (slice_size, fragment_limit) = options.slice_sizes();
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
            rails: config.rails,
            plan_limits: config.rail_plan_limits(),
            rail_limits: config.rail_limits(),
            rail_map: config.rail_map.clone(),
        };
        let options = (config.rails > 1).then_some(options);
        let has_others = options.is_some() && choice.devices.len() > 1;
        let nics = |first| EngineNics::among(choice, first, options);
        let context = Self::with_nics(pool, policy, slice_sizes, settings, has_others, nics);
        let names: Vec<_> = context.nics().iter().map(|nic| nic_name(&nic.name, nic.port)).collect();
        if let Some(text) = nics_beyond_rails(&names) {
            tracing::info!("{text}");
        }
        Ok(context)
    }

    /// The NICs of the engine that may form rails, in the order of its device list; the index is the number that peers are told. A
    /// NIC keeps its number, whether it can be used or not. With `FLAGCX_P2P_RAILS=1` there is the first one alone.
    pub fn nics(&self) -> &[NicRecord] {
        self.nics.records()
    }

    /// The number of the first NIC, which the engine has chosen and over which every connection has its first rail.
    pub fn own_nic(&self) -> usize {
        self.nics.own()
    }

    /// Whether a NIC has not refused to be used, as far as that was tried: [`Context::open_nic`] tries it again.
    pub fn is_nic_usable(&self, number: usize) -> bool {
        self.nics.is_usable(number)
    }

    /// The NIC with this number, opened now if it was not before. Blocks: it starts workers, and a device may take a second. From then
    /// on all memory is registered with it as well, in the background. It stays open until the engine ends.
    ///
    /// # Errors
    /// [`OpenNicError`]; the next call tries again.
    pub fn open_nic(&self, number: usize) -> Result<Arc<NicContext>, OpenNicError> {
        self.nics.open(number, &self.registry)
    }

    /// The device with this number, open or not.
    pub(super) fn nic_device(&self, number: usize) -> Option<&Arc<dyn Device>> {
        self.nics.device(number)
    }

    /// The NIC with this number, if it is open. The first one is.
    pub fn nic_if_open(&self, number: usize) -> Option<&Arc<NicContext>> {
        self.nics.if_open(number)
    }

    /// Whether a NIC is to have a region, so that rails over it carry its transfers: one that is open has it already.
    pub(super) fn nic_takes(&self, number: usize, region: &Region) -> bool {
        match self.nics.if_open(number) {
            Some(nic) => nic.registry.snapshot().by_id(region.id).is_some(),
            None => region.has_recipe() && self.nics.takes(number)(region),
        }
    }

    /// The NICs that are open: the first one, then the others by number.
    pub fn opened_nics(&self) -> impl Iterator<Item = &Arc<NicContext>> {
        self.nics.opened()
    }

    /// The worker with this bit, as transfers name it.
    #[inline]
    pub(super) fn worker(&self, bit: usize) -> Option<&Arc<Worker>> {
        self.slots.worker(bit)
    }

    /// How the device of the first NIC is, as far as its events tell.
    pub fn device_health(&self) -> DeviceHealth {
        health(self.device_events.as_deref())
    }

    /// Refuses when nothing can move over the first NIC now.
    pub(super) fn require_port(&self) -> Result<(), FabricError> {
        require_port(&**self.pool.device(), self.device_health())
    }

    /// Runs a step on every worker that is free: for callers that wait for something of no particular worker.
    pub fn drive_all(&self) {
        for worker in self.opened_nics().flat_map(|nic| nic.pool.all_workers()) {
            let _ = worker.drive_as_caller();
        }
    }
}
