//! Which NIC an engine uses: chosen when it opens if that is clear then, else for its first memory or its first peer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use super::EngineError;
use crate::config::{Config, ConfigError};
use crate::connection::Context;
use crate::fabric::{Device, Provider};
use crate::gpu::{self, GpuRuntime, PointerKind};
use crate::memory::MemoryKind;
use crate::topology::{
    Choice, HostTopology, MemoryPlace, Nic, NicMap, NicPort, Sysfs, current_affinity, read_topology_file,
};

/// The NIC of an engine.
#[derive(Debug)]
pub(super) struct EngineNic {
    /// What there is to choose from, or why there is nothing.
    devices: Result<Vec<Arc<dyn Device>>, String>,
    /// The GPU that the program has named.
    named: Option<i32>,
    /// The GPU that was current for the thread that opened the engine.
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
        let current = gpu::runtime().current_gpu().ok();
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

    /// The GPU to go by where nothing names one.
    fn assumed(&self, runtime: &dyn GpuRuntime) -> Option<i32> {
        self.named.or_else(|| runtime.current_gpu().ok()).or(self.current)
    }

    fn choose(&self, config: &Config, devices: &[Arc<dyn Device>], need: Need) -> Result<Chosen, NotChosen> {
        let runtime = gpu::runtime();
        let (gpu, why) = match (self.named, need) {
            (Some(named), _) => (Some(named), "which the program has named".to_owned()),
            (None, Need::GpuMemory(gpu)) => (Some(gpu), "because its memory is registered first".to_owned()),
            (None, _) => (
                self.assumed(&*runtime),
                format!("which is assumed because it is current: {}", occasion(need)),
            ),
        };
        let (mut left, mut refusals) = (devices.to_vec(), Vec::new());
        let (machine, nic, reason, device) = loop {
            let machine = machine(&*runtime, gpu, &left);
            let place = match gpu {
                Some(gpu) => MemoryPlace::Gpu(gpu),
                None => MemoryPlace::Host(current_affinity().ok().and_then(|cpus| machine.node_of(&cpus))),
            };
            let choice = choose_nic(config, &machine, &self.map, place);
            let chosen =
                choice.and_then(|Choice { nic, reason }| Some((nic, reason, Arc::clone(left.get(nic)?))));
            let Some((nic, reason, device)) = chosen else { return Err(NotChosen::none_of(&refusals)) };
            match device.check_use() {
                Ok(()) => break (machine, nic, reason, device),
                Err(error) => {
                    tracing::warn!(device = device.attributes().name, "not used: {error}");
                    refusals.push(error.to_string());
                    left.remove(nic);
                }
            }
        };
        let context = Arc::new(
            Context::open(config, &device)
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
        Ok(Chosen { context, machine, nic })
    }

    fn map_names(&self, gpu: Option<i32>) -> bool {
        gpu.is_some_and(|gpu| self.map.of_gpu(gpu).is_some())
    }

    /// Says once that memory is on a GPU for which another NIC is nearer.
    fn tell_if_far(&self, chosen: &Chosen, gpu: i32) {
        let Chosen { machine, nic, .. } = chosen;
        let Some((used, best)) = machine.nearer(gpu, *nic) else { return };
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

/// The NIC for memory at a place, as the settings have it: what the map names, else the one on the GPU's rail if that is asked for,
/// else the best.
pub fn choose_nic(
    config: &Config,
    machine: &HostTopology,
    map: &NicMap,
    place: MemoryPlace,
) -> Option<Choice> {
    let is_named = place.gpu().is_some_and(|gpu| map.of_gpu(gpu).is_some());
    match is_named || !config.dest_dev_affinity {
        true => machine.choose(place, map),
        false => machine.on_rail(place.gpu().unwrap_or(0)),
    }
}

/// `FLAGCX_P2P_NIC_MAP`, then what FlagCX's topology file says of further GPUs, for the NICs that are there.
///
/// # Errors
/// [`EngineError::Config`] for a map that names another one. The same in the file is a warning.
pub fn operators_map(config: &Config, nics: &[Nic]) -> Result<NicMap, EngineError> {
    let there = || {
        let names: Vec<_> = nics.iter().map(|nic| format!("{}:{}", nic.name, nic.port)).collect();
        format!("there are {}; see FLAGCX_IB_HCA and `flagcx-p2p doctor topology`", names.join(", "))
    };
    if let Some(absent) = config.nic_map.absent(nics) {
        let text = format!("FLAGCX_P2P_NIC_MAP: {absent} names no NIC that this process uses: {}", there());
        return Err(ConfigError { variable: "FLAGCX_P2P_NIC_MAP", text }.into());
    }
    let Some(path) = &config.topology_file else { return Ok(config.nic_map.clone()) };
    // The file is the collectives' as well: what it says of other NICs does not stop this engine.
    let of_file = match read_topology_file(path) {
        Ok(map) => map,
        Err(error) => {
            tracing::warn!("FLAGCX_TOPO_FILE is not used: {error}");
            return Ok(config.nic_map.clone());
        }
    };
    if let Some(absent) = of_file.absent(nics) {
        tracing::warn!("FLAGCX_TOPO_FILE={}: {absent} names no NIC: {}", path.display(), there());
    }
    Ok(config.nic_map.clone().or(of_file))
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
