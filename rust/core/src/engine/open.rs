//! Opening an engine: device, pool, listeners.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};

use super::acceptor::Acceptor;
use super::allocations::Allocations;
use super::closing::Closing;
use super::sessions::Sessions;
use super::{Engine, EngineError, Inner, process_devices};
use crate::auth::random;
use crate::config::Config;
use crate::connection::Context;
use crate::control::{Abort, AllowList, ConnectedHosts, Listener, LocalAddress, Openings, local_address};
use crate::endpoint::EndpointUse;
use crate::fabric::{Device, DeviceList, FabricChoice, FabricError};
use crate::fork::{OfProcess, PerProcess};
use crate::gpu;
use crate::notify::{Receiver, ReceiverOptions};
use crate::observe::{EventKind, event_log};
use crate::topology::{Nic, Sysfs, choose_nic};

/// How an engine is opened. The default is that of GPU 0, on the devices of the process.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// The index of the GPU near which a NIC is chosen, and that peers are told; 0 in a process without a GPU.
    pub gpu_index: i32,
    /// Devices to choose from; `None` takes the process-wide list.
    #[doc(hidden)]
    pub devices: Option<Arc<DeviceList>>,
}

impl Engine {
    /// Opens an engine: chooses a device, starts its worker threads if no other engine has, and opens the listeners.
    ///
    /// Where only verbs are allowed and no port is active, it opens without a device: it reports its metadata, and refuses
    /// everything else with the reason. A control listener that cannot be opened leaves it alive but unreachable.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a setting with which no engine may open, and for one that chooses or sets up devices
    /// otherwise than this process has opened them. [`EngineError::Unavailable`] for a
    /// `FLAGCX_P2P_ADVERTISE` that has no address or a `FLAGCX_SOCKET_IFNAME` that fits no interface, because peers would be
    /// told an address that leads nowhere, and when descriptors are used up. [`EngineError::Fabric`] and
    /// [`EngineError::Pool`] when the device refuses.
    pub fn open(config: Arc<Config>, options: EngineOptions) -> Result<Arc<Self>, EngineError> {
        config.check()?;
        let address = own_address(&config)?;
        let bind = address.bind;
        tracing::debug!(own = %address.own, told = %address.told(), reason = address.reason, "address chosen");
        let device = choose_device(&config, &options, &address)?;
        let context = match device {
            Ok(device) => Ok(Arc::new(Context::open(&config, &device)?.of_gpu(options.gpu_index))),
            Err(reason) => Err(reason),
        };
        let abort = Abort::new()
            .map_err(|error| EngineError::Unavailable(format!("cannot open an eventfd: {error}")))?;
        let acceptor = open_listener(&config, bind);
        let incarnation = random_u64()?;
        let connected_hosts = ConnectedHosts::default();
        let notifications = open_receiver(&config, bind, incarnation, &connected_hosts)?;
        let engine = Arc::new(Self(OfProcess::new(Inner {
            gpu_index: options.gpu_index,
            address,
            incarnation,
            notifications,
            connected_hosts,
            openings: Openings::default(),
            context,
            acceptor,
            sessions: Sessions::default(),
            allocations: Allocations::default(),
            connections: Mutex::new(Some(Vec::new())),
            abort,
            closing: Closing::default(),
            _endpoint: EndpointUse::acquire(&config),
            config,
        })));
        tracing::info!(
            device = engine.device().map_or("none", |device| device.attributes().name.as_str()),
            address = %engine.address(),
            port = engine.rpc_port(),
            "engine open"
        );
        let device = engine.device().map(|device| device.attributes().name.clone());
        let text = match engine.rpc_port() {
            Some(port) => format!("engine open at {}, port {port}", engine.address()),
            None => format!("engine open at {}, without a control listener", engine.address()),
        };
        event_log().record(EventKind::EngineOpened, None, device, text);
        Ok(engine)
    }
}

pub(super) fn own_address(config: &Config) -> Result<LocalAddress, EngineError> {
    local_address(config).map_err(|error| EngineError::Unavailable(error.to_string()))
}

/// The device for an engine, or why it has none.
fn choose_device(
    config: &Config,
    options: &EngineOptions,
    address: &LocalAddress,
) -> Result<Result<Arc<dyn Device>, String>, EngineError> {
    let choose = if config.dest_dev_affinity { on_rail } else { nearest };
    let pick = |list: &DeviceList| list.choose_usable(|devices| choose(devices, options.gpu_index));
    if let Some(list) = &options.devices {
        return Ok(pick(list));
    }
    match process_devices::for_engine(config, address) {
        Ok(list) => Ok(pick(list)),
        // Verbs alone were asked for and there are none: an engine without a device is the answer, unless verbs were
        // turned off at the same time, which is a contradiction.
        Err(EngineError::Fabric(error @ FabricError::Unsupported(_)))
            if config.fabric == FabricChoice::Verbs && !config.ib_disable =>
        {
            // A line for the process: every engine meets the same devices.
            static SAID: PerProcess<Once> = PerProcess::new(Once::new);
            SAID.get().call_once(|| {
                tracing::warn!("no RDMA device: engines open without one, and refuse to connect: {error}")
            });
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// The device for a GPU, by its place in the machine where that is known.
fn nearest(devices: &[Arc<dyn Device>], gpu_index: i32) -> Option<Arc<dyn Device>> {
    let sysfs = Sysfs::default();
    let bus_id = gpu::runtime().pci_bus_id(gpu_index).ok();
    let gpu = bus_id.and_then(|bus_id| sysfs.pci_path(&bus_id));
    let as_nic = |device: &Arc<dyn Device>| Nic {
        pci_path: device.attributes().pci_path.as_deref().map(PathBuf::from),
        // A port that cannot be asked is the last choice.
        speed_mbps: device.port().map_or(0, |port| port.speed_mbps),
    };
    let nics: Vec<_> = devices.iter().map(as_nic).collect();
    devices.get(choose_nic(&sysfs, gpu.as_deref(), gpu_index, &nics)?).cloned()
}

/// The device with the number of the GPU: the same one, so the same rail of the fabric, on every host.
fn on_rail(devices: &[Arc<dyn Device>], gpu_index: i32) -> Option<Arc<dyn Device>> {
    let number = usize::try_from(gpu_index).unwrap_or(0).checked_rem(devices.len())?;
    let mut by_name: Vec<_> = devices.iter().collect();
    by_name.sort_by(|a, b| a.attributes().name.cmp(&b.attributes().name));
    by_name.get(number).map(|device| Arc::clone(device))
}

fn open_listener(config: &Config, address: IpAddr) -> Result<Arc<Acceptor>, String> {
    let abort = Abort::new().map_err(|error| format!("cannot open an eventfd: {error}"))?;
    match Listener::bind(address, config.port_range, &abort) {
        Ok(listener) => {
            let listener = listener.with_allow_list(AllowList::new(&config.allow));
            Ok(Arc::new(Acceptor::new(listener, abort)))
        }
        Err(error) => {
            tracing::warn!("no control listener on {address}, this engine cannot be reached: {error}");
            Err(format!("no control listener on {address}: {error}"))
        }
    }
}

fn open_receiver(
    config: &Config,
    bind: IpAddr,
    incarnation: u64,
    connected_hosts: &ConnectedHosts,
) -> Result<Option<Receiver>, EngineError> {
    let options = ReceiverOptions::from_config(config, bind, incarnation)?;
    match Receiver::open(ReceiverOptions { connected_hosts: connected_hosts.clone(), ..options }) {
        Ok(receiver) => Ok(Some(receiver)),
        Err(error) => {
            tracing::warn!("no notification listener on {bind}, this engine receives none: {error}");
            Ok(None)
        }
    }
}

fn random_u64() -> Result<u64, EngineError> {
    random().map(u64::from_ne_bytes).map_err(|error| EngineError::Unavailable(error.to_string()))
}
