//! The devices that the table shows, and the connection context of each.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use flagcx_p2p::internals::config::{self, Config};
use flagcx_p2p::internals::connection::Context;
use flagcx_p2p::internals::control::{Limits, LocalAddress, local_address};
use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::engine::EngineError;
use flagcx_p2p::internals::fabric::{Device, FabricChoice, FabricError, Provider};
use flagcx_p2p::internals::fork::PerProcess;
use once_cell::sync::OnceCell;

use super::answer::{NetError, answer};
use super::ffi::{Answer, Properties};

/// One device of the table.
#[derive(Debug)]
pub(super) struct NetDevice {
    device: Arc<dyn Device>,
    name: CString,
    pci_path: Option<CString>,
    context: OnceCell<Arc<Context>>,
}

/// Set by the first [`init`] that succeeds; a forked child calls it for itself.
static DEVICES: PerProcess<OnceCell<Vec<NetDevice>>> = PerProcess::new(OnceCell::new);

impl NetDevice {
    fn new(device: &Arc<dyn Device>) -> Self {
        let attributes = device.attributes();
        let text = |text: &str| CString::new(text).unwrap_or_default();
        Self {
            device: Arc::clone(device),
            name: text(&attributes.name),
            pci_path: attributes.pci_path.as_deref().map(text),
            context: OnceCell::new(),
        }
    }

    /// What the device's raw connections and registrations share. Made at the first use, for the life of the process.
    pub(super) fn context(&self) -> Result<&Arc<Context>, NetError> {
        self.context.get_or_try_init(|| Ok(Arc::new(Context::open(config::global(), &self.device)?)))
    }

    fn properties(&self) -> Result<Properties, NetError> {
        let attributes = self.device.attributes();
        Ok(Properties {
            name: self.name.as_ptr(),
            pci_path: self.pci_path.as_ref().map_or(ptr::null::<c_char>(), |path| path.as_ptr()),
            guid: attributes.guid,
            peer_memory: attributes.provider == Provider::Verbs && has_peer_memory(),
            dma_buf: attributes.dma_buf,
            speed: int(self.device.port()?.speed_mbps),
            port: i32::from(attributes.port),
            max_comms: int(attributes.max_queue_pairs),
        })
    }
}

/// The device with this index; an error before [`init`].
pub(super) fn device(index: i32) -> Result<&'static NetDevice, NetError> {
    let devices = DEVICES
        .get()
        .get()
        .ok_or_else(|| NetError::internal("init was not called in this process or failed"))?;
    usize::try_from(index).ok().and_then(|index| devices.get(index)).ok_or_else(|| {
        NetError::invalid(format_args!("device {index} does not exist, there are {}", devices.len()))
    })
}

/// Where this process listens, by the configuration.
pub(super) fn listen_address(config: &Config) -> Result<LocalAddress, NetError> {
    local_address(config).map_err(NetError::internal)
}

/// Bounds of a handshake, by the configuration.
pub(super) fn limits(config: &Config) -> Result<Limits, NetError> {
    Limits::from_config(config, None).map_err(NetError::internal)
}

pub(super) fn init() -> Answer {
    answer("init", DEVICES.get().get_or_try_init(|| find_devices(config::global())), drop)
}

/// -1 before [`init`].
pub(super) fn device_count() -> i32 {
    DEVICES.get().get().map_or(-1, |devices| int(devices.len()))
}

pub(super) fn device_properties(index: i32, out: &mut Properties) -> Answer {
    answer("getProperties", device(index).and_then(NetDevice::properties), |properties| *out = properties)
}

pub(super) fn device_named(name: &[u8], index: &mut i32) -> Answer {
    let devices = DEVICES.get().get().map(Vec::as_slice).unwrap_or_default();
    let found = devices.iter().position(|device| device.name.as_bytes() == name).ok_or_else(|| {
        NetError::internal(format_args!("there is no device {:?}", String::from_utf8_lossy(name)))
    });
    answer("getDevFromName", found, |found| *index = int(found))
}

/// As the original: without libibverbs there is an error, with libibverbs and without a NIC an empty list.
fn find_devices(config: &Config) -> Result<Vec<NetDevice>, NetError> {
    if config.ib_disable && config.fabric != FabricChoice::Software {
        return Err(NetError::internal("RDMA devices are turned off by FLAGCX_IB_DISABLE"));
    }
    let list = match engine::devices(config) {
        Ok(list) => list,
        Err(EngineError::Fabric(FabricError::Unsupported(reason))) => return Ok(no_device(&reason)),
        Err(error) => return Err(error.into()),
    };
    let selection = list.selection();
    if selection.provider != Some(Provider::Software) || config.fabric == FabricChoice::Software {
        return Ok(list.devices().iter().map(NetDevice::new).collect());
    }
    // Programs take "no device" for "no RDMA here", so software is shown only where the configuration names it.
    match &selection.refusal {
        Some(error @ FabricError::Library { .. }) => Err(NetError::internal(error)),
        _ => Ok(no_device(&selection.reason)),
    }
}

fn no_device(reason: &str) -> Vec<NetDevice> {
    tracing::info!("no device for the adaptor table: {reason}");
    Vec::new()
}

/// Whether the kernel registers GPU memory without a dma-buf: one of the modules that do it is loaded.
fn has_peer_memory() -> bool {
    [
        "/sys/module/nvidia_peermem/version",
        "/sys/kernel/mm/memory_peers/nv_mem/version",
        "/sys/kernel/mm/memory_peers/nv_mem_nc/version",
    ]
    .into_iter()
    .any(|path| Path::new(path).exists())
}

fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
