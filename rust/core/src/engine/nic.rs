//! Which NIC an engine uses: chosen when it opens if that is clear then, else for its first memory or its first peer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use super::EngineError;
use super::nic_rules::{choose_nic, operators_map};
use crate::config::Config;
use crate::connection::{Context, DeviceChoice};
use crate::fabric::{Device, FabricError, Provider};
use crate::gpu::{self, GpuRuntime, PointerKind};
use crate::memory::MemoryKind;
use crate::topology::{
    Choice, HostTopology, MemoryPlace, Nic, NicMap, NicPort, Reason, Sysfs, current_affinity,
};

/// The NIC of an engine.
#[derive(Debug)]
pub(super) struct EngineNic {
    /// What there is to choose from, or why there is nothing.
    devices: Result<Vec<Arc<dyn Device>>, String>,
    /// The GPU that the program has named.
    named: Option<i32>,
    /// The GPU that was current for the thread that opened the engine, if none is named.
    current: Option<i32>,
    /// What the operator has said.
    map: NicMap,
    chosen: OnceCell<Chosen>,
    /// Whether the log has a line about memory that is far from the NIC. Relaxed: only which thread is the first one matters.
    told: AtomicBool,
}

/// The NIC that is used, and what it was chosen from.
#[derive(Debug)]
struct Chosen {
    context: Arc<Context>,
    machine: HostTopology,
    nic: usize,
    /// NICs that have refused before it, by their places.
    unusable: Vec<usize>,
}

/// What makes an engine need its NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It opens.
    Opening,
    /// Memory of a GPU is registered.
    GpuMemory(i32),
    /// Memory of a GPU is registered, and the runtime does not say of which.
    UnnamedGpuMemory,
    /// Host memory is registered.
    HostMemory,
    /// A peer connects, or is connected to.
    Peer,
}

impl EngineNic {
    /// Chooses among `devices` later, for the GPU that the program has `named`, if it has; and at once where it has, or where
    /// there is nothing to choose.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a `FLAGCX_P2P_NIC_MAP` that names a NIC which is not there. Those of [`EngineNic::context`].
    pub(super) fn open(
        config: &Config,
        devices: Result<Vec<Arc<dyn Device>>, String>,
        named: Option<i32>,
    ) -> Result<Self, EngineError> {
        let list = devices.as_deref().unwrap_or_default();
        let is_hardware = list.iter().any(|device| device.attributes().provider == Provider::Verbs);
        let named_only = |device: &Arc<dyn Device>| {
            let attributes = device.attributes();
            Nic { name: attributes.name.clone(), port: attributes.port, ..Nic::default() }
        };
        let nics: Vec<_> = list.iter().map(named_only).collect();
        let map = if is_hardware { operators_map(config, &nics)? } else { NicMap::default() };
        let is_clear = named.is_some() || !is_hardware || list.len() == 1;
        // Not asked without need: it initialises the driver.
        let current = if named.is_none() { gpu::runtime().current_gpu().ok() } else { None };
        let (chosen, told) = (OnceCell::new(), AtomicBool::new(false));
        let nic = Self { devices, named, current, map, chosen, told };
        if is_clear && nic.devices.is_ok() {
            let devices = nic.devices()?;
            match nic.chosen.get_or_try_init(|| nic.choose(config, devices, Need::Opening)) {
                Err(NotChosen::NoDevice(reason)) => return Ok(Self { devices: Err(reason), ..nic }),
                chosen => drop(chosen?),
            }
        }
        Ok(nic)
    }

    /// How many devices there are to choose from.
    pub(super) fn device_count(&self) -> usize {
        self.devices.as_ref().map_or(0, Vec::len)
    }

    /// The number that peers are told: of the GPU that was named, else of the one that was current, else 0, as the original
    /// engine does.
    pub(super) fn told_gpu(&self) -> i32 {
        self.named.or(self.current).unwrap_or(0)
    }

    /// What the engine uses, if that is decided.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without a device.
    pub(super) fn chosen(&self) -> Result<Option<&Arc<Context>>, EngineError> {
        self.devices()?;
        Ok(self.chosen.get().map(|chosen| &chosen.context))
    }

    /// What the engine uses; decided now, if it was not before.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] without a device; [`EngineError::Fabric`] and [`EngineError::Pool`] when the device refuses:
    /// it is tried again at the next need.
    pub(super) fn context(&self, config: &Config, need: Need) -> Result<&Arc<Context>, EngineError> {
        let devices = self.devices()?;
        let chosen = self.chosen.get_or_try_init(|| self.choose(config, devices, need))?;
        if let Need::GpuMemory(gpu) = need {
            self.tell_if_far(chosen, gpu);
        }
        Ok(&chosen.context)
    }

    /// What memory at an address makes of it. The runtime is asked only if that may change something.
    pub(super) fn need_of(&self, address: u64, kind: MemoryKind) -> Need {
        let runtime = gpu::runtime();
        let several = self.devices.as_ref().is_ok_and(|devices| devices.len() > 1);
        if !several || kind == MemoryKind::Host || !runtime.has_memory() {
            return Need::HostMemory;
        }
        if self.chosen.get().is_some() {
            // Only for the log: a runtime that has to try out what an address is need not do so twice.
            return runtime.gpu_of(address).map_or(Need::HostMemory, Need::GpuMemory);
        }
        let gpu = match runtime.pointer_kind(address) {
            Ok(PointerKind::Gpu(gpu)) => gpu.or_else(|| runtime.gpu_of(address)),
            _ if kind == MemoryKind::Gpu => None,
            _ => return Need::HostMemory,
        };
        gpu.map_or(Need::UnnamedGpuMemory, Need::GpuMemory)
    }

    fn devices(&self) -> Result<&[Arc<dyn Device>], EngineError> {
        self.devices.as_deref().map_err(|reason| NotChosen::NoDevice(reason.clone()).into())
    }

    /// The GPU to go by where nothing names one. The thread that needs the NIC for a peer may be one of the engine's own, for which a
    /// GPU runtime answers its first GPU: there the GPU counts that was current when the engine opened.
    fn assumed(&self, runtime: &dyn GpuRuntime, need: Need) -> Option<i32> {
        let of_thread = || runtime.current_gpu().ok();
        match need {
            Need::Peer => self.current.or_else(of_thread),
            _ => of_thread().or(self.current),
        }
    }

    fn choose(&self, config: &Config, devices: &[Arc<dyn Device>], need: Need) -> Result<Chosen, NotChosen> {
        let runtime = gpu::runtime();
        let (gpu, why) = match (self.named, need) {
            (Some(named), _) => (Some(named), "which the program has named".to_owned()),
            (None, Need::GpuMemory(gpu)) => (Some(gpu), "because its memory is registered first".to_owned()),
            (None, _) => (
                self.assumed(&*runtime, need),
                format!("which is assumed because it is current: {}", occasion(need)),
            ),
        };
        let machine = machine(&*runtime, gpu, devices);
        let place = match gpu {
            Some(gpu) => MemoryPlace::Gpu(gpu),
            None => MemoryPlace::Host(current_affinity().ok().and_then(|cpus| machine.node_of(&cpus))),
        };
        let (mut unusable, mut refusals) = (Vec::new(), Vec::new());
        let (nic, reason, device) = loop {
            let choice = choose_nic(config, &machine, &self.map, place, &unusable);
            let chosen =
                choice.and_then(|Choice { nic, reason }| Some((nic, reason, Arc::clone(devices.get(nic)?))));
            let Some((nic, reason, device)) = chosen else { return Err(NotChosen::none_of(&refusals)) };
            match device.check_use() {
                Ok(()) => break (nic, reason, device),
                Err(error) => {
                    tell_refusal(&*device, gpu.filter(|_| reason == Reason::Map), &error);
                    refusals.push(error.to_string());
                    unusable.push(nic);
                }
            }
        };
        let devices_chosen = DeviceChoice { devices, chosen: nic, unusable: &unusable, topology: &machine };
        let context = Arc::new(
            Context::open_among(config, &device, devices_chosen)
                .map_err(|error| NotChosen::Failed(error.into()))?
                .of_gpu(gpu.unwrap_or(0)),
        );
        let attributes = device.attributes();
        let (name, port) = (attributes.name.as_str(), attributes.port);
        match gpu {
            _ if devices.len() == 1 => tracing::debug!(device = name, port, "the only NIC is chosen"),
            Some(gpu) => tracing::info!(device = name, port, "NIC chosen for GPU {gpu}, {why}: {reason}"),
            None => tracing::info!(
                device = name,
                port,
                "NIC chosen for host memory, because no GPU is current and {}: {reason}",
                occasion(need)
            ),
        }
        Ok(Chosen { context, machine, nic, unusable })
    }

    fn map_names(&self, gpu: Option<i32>) -> bool {
        gpu.is_some_and(|gpu| self.map.of_gpu(gpu).is_some())
    }

    /// Says once that memory is on a GPU for which another NIC is nearer.
    fn tell_if_far(&self, chosen: &Chosen, gpu: i32) {
        let Chosen { machine, nic, unusable, .. } = chosen;
        let Some((used, best)) = machine.nearer(gpu, *nic, unusable) else { return };
        if self.map_names(Some(gpu)) || self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let name = |at: usize| machine.nics.get(at).map_or("?", |nic| nic.name.as_str());
        tracing::warn!(
            "memory of GPU {gpu} is registered with {}, which was chosen before ({used}); {} is nearer ({best}): register memory of \
             that GPU first, open an engine for it, or name the NIC in FLAGCX_P2P_NIC_MAP",
            name(*nic),
            name(best.nic),
        );
    }
}

/// Says why a device is not used; `named`: the GPU for which the operator has named it. It is tried again at each need, and by each
/// engine, which is no news.
fn tell_refusal(device: &dyn Device, named: Option<i32>, error: &FabricError) {
    let name = &device.attributes().name;
    let named = named.map_or_else(String::new, |gpu| {
        format!(", although FLAGCX_P2P_NIC_MAP or FLAGCX_TOPO_FILE names it for GPU {gpu}")
    });
    if device.is_first_refusal() {
        tracing::warn!(
            device = name,
            "not used{named}: {error} (further lines about this device are of level DEBUG)"
        );
    } else {
        tracing::debug!(device = name, "not used{named}: {error}");
    }
}

/// Why no NIC was chosen.
#[derive(Debug)]
enum NotChosen {
    /// There is none that can be used.
    NoDevice(String),
    /// The one that was chosen has failed.
    Failed(EngineError),
}

impl NotChosen {
    fn none_of(refusals: &[String]) -> Self {
        Self::NoDevice(match refusals {
            [] => "its list of devices is empty".to_owned(),
            refusals => refusals.join("; "),
        })
    }
}

impl From<NotChosen> for EngineError {
    fn from(why: NotChosen) -> Self {
        match why {
            NotChosen::NoDevice(reason) => Self::Unavailable(format!("this engine has no device: {reason}")),
            NotChosen::Failed(error) => error,
        }
    }
}

/// What happens that needs the NIC, before it is known which GPU it is for.
fn occasion(need: Need) -> &'static str {
    match need {
        Need::Opening => "the engine opens",
        Need::Peer => "a peer connects before any GPU memory is registered",
        Need::HostMemory => "host memory is registered before any GPU memory",
        Need::UnnamedGpuMemory | Need::GpuMemory(_) => {
            "memory is registered of which the runtime does not say on which GPU it is"
        }
    }
}

/// The GPUs of the runtime, and the NICs behind the devices, in their order.
fn machine(runtime: &dyn GpuRuntime, gpu: Option<i32>, devices: &[Arc<dyn Device>]) -> HostTopology {
    let count = runtime.gpu_count().unwrap_or(0).min(MOST_GPUS);
    let mut numbers: Vec<_> = (0..count).filter_map(|number| i32::try_from(number).ok()).collect();
    numbers.extend(gpu.filter(|gpu| !numbers.contains(gpu)));
    let bus_id = |number: i32| Some((number, runtime.pci_bus_id(number).ok()?));
    let gpus: Vec<_> = numbers.into_iter().filter_map(bus_id).collect();
    let nic = |device: &Arc<dyn Device>| {
        let attributes = device.attributes();
        NicPort {
            name: attributes.name.clone(),
            port: attributes.port,
            // A port that cannot be asked is the last choice.
            speed_mbps: device.port().map_or(0, |port| port.speed_mbps),
            path: attributes.pci_path.as_deref().map(PathBuf::from),
        }
    };
    HostTopology::read(&Sysfs::default(), &gpus, devices.iter().map(nic).collect())
}

/// GPUs that are looked at; hosts have a tenth of it.
const MOST_GPUS: u32 = 256;
