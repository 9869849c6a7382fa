//! The NICs of an engine: the first one, which it has chosen, and others that are opened when rails need them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use super::nic_context::{NicContext, flow_of, listen};
use super::nic_record::{NicRecord, records};
use crate::config::Config;
use crate::fabric::{Device, FabricError};
use crate::memory::{FurtherNicError, GpuFlush, MemoryKind, Region, Registry};
use crate::pool::{PoolError, PoolOptions, WorkerPool};
use crate::sync::Mutex;
use crate::topology::{HostTopology, MemoryPlace, Sysfs, cpus_near};
use crate::transfer::SlicePolicy;

/// What an engine has to choose from, and what it has chosen.
#[derive(Clone, Copy, Debug)]
pub struct DeviceChoice<'a> {
    /// All of them, in the order of the device list.
    pub devices: &'a [Arc<dyn Device>],
    /// The one that is chosen.
    pub chosen: usize,
    /// Those that have refused to be used.
    pub unusable: &'a [usize],
    /// Where they are. Its NICs are `devices`, in their order; empty where it is not known.
    pub topology: &'a HostTopology,
}

/// Why a NIC of an engine is not opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenNicError {
    /// The engine has no such NIC.
    #[error("cannot open NIC {number} for a rail: this engine has {count}")]
    NoSuchNic {
        /// The number that was asked for.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// The device cannot be used now.
    #[error("cannot open {device} for a rail: {reason}")]
    Refused {
        /// Its name.
        device: String,
        /// What it says.
        reason: FabricError,
    },
    /// Its workers do not start.
    #[error("cannot start the workers of {device} for a rail: {reason}")]
    Pool {
        /// Its name.
        device: String,
        /// Why.
        reason: PoolError,
    },
    /// Memory is not registered with it.
    #[error("cannot register memory with {device} for a rail: {reason}")]
    Memory {
        /// Its name.
        device: String,
        /// Why.
        reason: Arc<FurtherNicError>,
    },
}

/// The NICs of an engine that may form rails.
#[derive(Debug)]
pub(super) struct EngineNics {
    /// By number.
    records: Vec<NicRecord>,
    /// By number.
    places: Vec<Place>,
    own: usize,
    /// `None` where there is only the first one.
    options: Option<NicOptions>,
    topology: Arc<HostTopology>,
}

/// One NIC. It keeps its number whatever becomes of it.
#[derive(Debug)]
struct Place {
    device: Arc<dyn Device>,
    opened: OnceCell<Arc<NicContext>>,
    /// It has refused to be used when that was tried last. Relaxed: it stands alone.
    refused: AtomicBool,
}

/// How NICs are opened.
#[derive(Clone, Debug)]
pub(super) struct NicOptions {
    /// Sizes of the pool of each, but for its CPUs.
    pool: PoolOptions,
    slice_size: u32,
    fragment_limit: u32,
    max_sge: u32,
    max_inline: u32,
    gpu_flush: GpuFlush,
}

impl NicOptions {
    pub(super) fn new(config: &Config) -> Self {
        let size = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            pool: PoolOptions {
                workers: config.workers_per_pool,
                submission_queues: config.shard_count,
                queue_depth: config.queue_depth,
                cq_depth: config.cq_depth,
                max_posted: u32::try_from(config.max_requests.saturating_mul(4)).unwrap_or(u32::MAX),
                max_list: config.max_wr_per_post,
                poll_batch: config.batch_poll_size,
                spin: config.spin,
                cpus: Default::default(),
            },
            slice_size: size(config.slice_size),
            fragment_limit: size(config.fragment_limit),
            max_sge: config.max_sge,
            max_inline: config.max_inline,
            gpu_flush: GpuFlush { writes: config.flush_writes, reads: config.flush_reads },
        }
    }

    /// The pool of a device, with threads on the CPUs near it.
    pub(super) fn open_pool(&self, device: &Arc<dyn Device>) -> Result<Arc<WorkerPool>, PoolError> {
        let path = device.attributes().pci_path.as_deref().map(Path::new);
        let cpus = cpus_near(&Sysfs::default(), path);
        WorkerPool::of_device(device, &PoolOptions { cpus, ..self.pool.clone() })
    }

    /// How transfers are cut for a device that carries messages of this size.
    pub(super) fn policy(&self, max_message: u32) -> SlicePolicy {
        let (slice_size, fragment_limit) = (self.slice_size as usize, self.fragment_limit as usize);
        SlicePolicy::new(slice_size, fragment_limit, max_message, self.max_sge, self.max_inline)
    }

    /// Sizes of slices and of fragments as configured.
    pub(super) fn slice_sizes(&self) -> (u32, u32) {
        (self.slice_size, self.fragment_limit)
    }
}

impl EngineNics {
    /// The first NIC alone.
    pub(super) fn of_one(first: NicContext) -> Self {
        let devices = [Arc::clone(first.device())];
        let choice =
            DeviceChoice { devices: &devices, chosen: 0, unusable: &[], topology: &HostTopology::default() };
        Self::among(choice, first, None)
    }

    /// The first NIC, and those of its provider that can be opened with `options`.
    pub(super) fn among(choice: DeviceChoice<'_>, first: NicContext, options: Option<NicOptions>) -> Self {
        let provider = first.device().attributes().provider;
        let (mut places, mut own, mut topology) = (Vec::new(), 0, choice.topology.clone());
        let mut kept = Vec::new();
        for (index, device) in choice.devices.iter().enumerate() {
            let is_chosen = index == choice.chosen;
            let may_form_rails = options.is_some() && device.attributes().provider == provider;
            kept.push(is_chosen || may_form_rails);
            if !is_chosen && !may_form_rails {
                continue;
            }
            if is_chosen {
                own = places.len();
            }
            let refused = AtomicBool::new(choice.unusable.contains(&index));
            places.push(Place { device: Arc::clone(device), opened: OnceCell::new(), refused });
        }
        // Of the NICs that are left out nothing is asked any more.
        let mut kept = kept.into_iter();
        topology.nics.retain(|_| kept.next().unwrap_or(false));
        let records = records(places.iter().map(|place| &*place.device));
        if let Some(place) = places.get(own) {
            let number = u16::try_from(own).unwrap_or(u16::MAX);
            let _ = place.opened.set(Arc::new(NicContext { number, ..first }));
        }
        Self { records, places, own, options, topology: Arc::new(topology) }
    }

    pub(super) fn records(&self) -> &[NicRecord] {
        &self.records
    }

    pub(super) fn own(&self) -> usize {
        self.own
    }

    pub(super) fn is_usable(&self, number: usize) -> bool {
        self.places.get(number).is_some_and(|place| !place.refused.load(Ordering::Relaxed))
    }

    pub(super) fn device(&self, number: usize) -> Option<&Arc<dyn Device>> {
        self.places.get(number).map(|place| &place.device)
    }

    pub(super) fn if_open(&self, number: usize) -> Option<&Arc<NicContext>> {
        self.places.get(number)?.opened.get()
    }

    /// The first one, then the others by number.
    pub(super) fn opened(&self) -> impl Iterator<Item = &Arc<NicContext>> {
        let others = self.places.iter().enumerate().filter(|(number, _)| *number != self.own);
        let others = others.filter_map(|(_, place)| place.opened.get());
        self.if_open(self.own).into_iter().chain(others)
    }

    pub(super) fn open(&self, number: usize, first: &Registry) -> Result<Arc<NicContext>, OpenNicError> {
        let no_such_nic = || OpenNicError::NoSuchNic { number, count: self.places.len() };
        let place = self.places.get(number).ok_or_else(no_such_nic)?;
        let open = || {
            let options = self.options.as_ref().ok_or_else(no_such_nic)?;
            self.open_device(number, &place.device, options, first)
        };
        let opened = place.opened.get_or_try_init(open);
        place.refused.store(matches!(opened, Err(OpenNicError::Refused { .. })), Ordering::Relaxed);
        opened.cloned()
    }

    fn open_device(
        &self,
        number: usize,
        device: &Arc<dyn Device>,
        options: &NicOptions,
        first: &Registry,
    ) -> Result<Arc<NicContext>, OpenNicError> {
        let name = || device.attributes().name.clone();
        let refused = |reason| OpenNicError::Refused { device: name(), reason };
        device.check_use().map_err(refused)?;
        let policy = options.policy(device.port().map_err(refused)?.max_message);
        let pool =
            options.open_pool(device).map_err(|reason| OpenNicError::Pool { device: name(), reason })?;
        let registry = Arc::new(Registry::with_gpu_flush(Arc::clone(device), options.gpu_flush));
        let added = first.add_further_nic(Arc::clone(&registry), self.takes(number));
        added.map_err(|reason| OpenNicError::Memory { device: name(), reason: Arc::new(reason) })?;
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        Ok(Arc::new(NicContext {
            number,
            pool,
            registry,
            policy,
            device_events: listen(device),
            flow: flow_of(&**device),
            commands: Arc::default(),
            lanes: Mutex::default(),
        }))
    }

    /// Which regions a NIC registers: host memory, and that of GPUs for which it is near, or the spare one.
    pub(super) fn takes(&self, number: usize) -> impl Fn(&Region) -> bool + Send + Sync + 'static {
        let unusable: Vec<_> = (0..self.places.len()).filter(|other| !self.is_usable(*other)).collect();
        let unusable: Vec<_> = unusable.into_iter().filter(|other| *other != number).collect();
        let is_known = self.topology.nics.len() == self.places.len();
        let topology = Arc::clone(&self.topology);
        move |region| {
            if region.kind != MemoryKind::Gpu || !is_known {
                return true;
            }
            // Where nothing says which GPU it is, all NICs are as near.
            region
                .gpu()
                .is_none_or(|gpu| topology.near_and_spare(MemoryPlace::Gpu(gpu), &unusable).contains(&number))
        }
    }
}
