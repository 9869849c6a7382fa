//! Opening an engine: device, pool, listeners.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, Once};

use super::acceptor::Acceptor;
use super::allocations::Allocations;
use super::closing::Closing;
use super::nic::EngineNic;
use super::sessions::Sessions;
use super::{Engine, EngineError, Inner, process_devices};
use crate::auth::random;
use crate::config::Config;
use crate::control::resume::{OwnAddresses, redial_bind};
use crate::control::{Abort, AllowList, ConnectedHosts, Listener, LocalAddress, Openings, local_address};
use crate::endpoint::EndpointUse;
use crate::fabric::{Device, DeviceList, FabricChoice, FabricError};
use crate::fork::{OfProcess, PerProcess};
use crate::notify::{Receiver, ReceiverOptions};
use crate::observe::{EventKind, event_log};

/// How an engine is opened. By default no GPU is named, and the devices are those of the process.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The number of the GPU near which a NIC is chosen at once, and that peers are told.
    ///
    /// -1 names none. Peers are then told the GPU that is current for the calling thread, or 0. Among several NICs the one near the
    /// GPU of the GPU memory that is registered first is chosen. If host memory is registered before that, it is the one near the GPU
    /// that is current; if a peer connects, near the one that was current for the thread that opened the engine; without one, the one
    /// near this process's processors. The log says which, and why.
    pub gpu_index: i32,
    /// Devices to choose from; `None` takes the process-wide list.
    #[doc(hidden)]
    pub devices: Option<Arc<DeviceList>>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { gpu_index: -1, devices: None }
    }
}

impl Engine {
    /// Opens an engine: chooses a device, or leaves that to the first use ([`EngineOptions::gpu_index`]), and opens the listeners.
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
        let named = Some(options.gpu_index).filter(|gpu| *gpu >= 0);
        let nic = EngineNic::open(&config, devices_for(&config, &options, &address)?, named)?;
        let abort = Abort::new()
            .map_err(|error| EngineError::Unavailable(format!("cannot open an eventfd: {error}")))?;
        let acceptor = open_listener(&config, bind);
        let incarnation = random_u64()?;
        let connected_hosts = ConnectedHosts::default();
        let notifications = open_receiver(&config, bind, incarnation, &connected_hosts)?;
        let engine = Arc::new(Self(OfProcess::new(Inner {
            gpu_index: nic.told_gpu(),
            address,
            incarnation,
            notifications,
            connected_hosts,
            resume_listener: Mutex::default(),
            openings: Openings::default(),
            nic,
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
            device = match (engine.device(), engine.nic.chosen()) {
                (Some(device), _) => device.attributes().name.as_str(),
                (None, Ok(_)) => "not chosen yet",
                (None, Err(_)) => "none",
            },
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

/// The devices that an engine chooses from, or why there are none.
fn devices_for(
    config: &Config,
    options: &EngineOptions,
    address: &LocalAddress,
) -> Result<Result<Vec<Arc<dyn Device>>, String>, EngineError> {
    let all = |list: &DeviceList| match list.devices() {
        [] => Err("its list of devices is empty".to_owned()),
        devices => Ok(devices.to_vec()),
    };
    if let Some(list) = &options.devices {
        return Ok(all(list));
    }
    match process_devices::for_engine(config, address) {
        Ok(list) => Ok(all(list)),
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
    // Senders may have to come over another address than the one that is left.
    let (bind, interfaces) = match config.control_redial {
        Some(_) => (redial_bind(config, bind), OwnAddresses::from_config(config).interfaces(bind)),
        None => (bind, Vec::new()),
    };
    let options = ReceiverOptions::from_config(config, bind, incarnation)?;
    let options = ReceiverOptions { connected_hosts: connected_hosts.clone(), interfaces, ..options };
    match Receiver::open(options) {
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
