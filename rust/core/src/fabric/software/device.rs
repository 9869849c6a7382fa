//! The software device, as the provider contract wants it.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::completion_queue::SoftwareCompletionQueue;
use super::denial;
use super::device_core::{Core, add_local_device, remove_local_device};
use super::endpoint::{Endpoint, gid_of};
use super::faults::FaultPlan;
use super::queue_pair::SoftwareQueuePair;
use super::responder::DataThread;
use super::shared_queue::SharedQueue;
use super::switches::FaultSwitches;
use super::table::QUEUE_PAIR_SLOTS;
use super::work::MAX_MESSAGE;
use crate::fabric::{
    Capabilities, CompletionQueue, Device, DeviceAttributes, DeviceEvent, FabricError, GidEntry,
    LINK_SOFTWARE, MAX_SGE, MemoryRange, MemoryRegion, PortAttributes, Provider, QueueHandle, QueuePair,
    QueuePairCaps, SoftwareOptions,
};
use crate::sync::{Mutex, lock};

const MAX_QUEUE_DEPTH: u32 = 16_384;
const MAX_CQ_DEPTH: u32 = 1 << 20;
/// Largest payload that is copied when it is posted.
const MAX_INLINE: u32 = 256;

/// One software device. [`super::open`] makes them.
#[derive(Debug)]
pub struct SoftwareDevice {
    attributes: DeviceAttributes,
    core: Arc<Core>,
    /// Started with the first queue pair: a process that moves nothing has no listener and no thread.
    responder: Mutex<Option<DataThread>>,
}

impl SoftwareDevice {
    pub(super) fn new(index: u32, options: &SoftwareOptions, plan: FaultPlan) -> Result<Self, FabricError> {
        let name = format!("sw{index}");
        let core = Core::new(name.clone(), options.clone(), plan)
            .map_err(|error| denial::failure("set up the shared tables", &name, &error))?;
        Ok(Self { attributes: attributes(name, index), core: Arc::new(core), responder: Mutex::new(None) })
    }

    /// Faults injected so far, for tests: see [`FaultPlan`].
    pub fn faults_injected(&self) -> u64 {
        self.core.faults_injected()
    }

    /// Its switches, if it was opened with some ([`SoftwareOptions::switches`]).
    pub fn switches(&self) -> Option<&FaultSwitches> {
        self.core.switches()
    }

    /// Its port goes down, or comes back, with an event: nothing moves through it meanwhile. Nothing happens without switches.
    pub fn set_port(&self, up: bool) {
        if let Some(switches) = self.switches() {
            switches.set_port_down(!up);
            self.core.raise(if up { DeviceEvent::PortUp } else { DeviceEvent::PortDown });
        }
    }

    /// All queue pairs of the device go to ERROR, without an event; only their completions tell. Nothing happens without switches.
    pub fn break_queue_pairs(&self) {
        if self.switches().is_some() {
            self.core.break_all();
        }
    }

    /// The device is lost, with an event: its queue pairs are in ERROR, and nothing can be made on it any more. Nothing happens without
    /// switches.
    pub fn lose(&self) {
        if let Some(switches) = self.switches() {
            switches.lose();
            self.core.break_all();
            self.core.raise(DeviceEvent::DeviceFatal);
        }
    }

    fn check_lost(&self, attempted: &'static str) -> Result<(), FabricError> {
        let is_lost = self.switches().is_some_and(FaultSwitches::is_lost);
        if is_lost { Err(FabricError::call(attempted, &self.attributes.name, libc::ENODEV)) } else { Ok(()) }
    }

    /// Where peers find the data listener, which this starts.
    fn listen(&self) -> Result<SocketAddr, FabricError> {
        let mut responder = lock(&self.responder);
        if let Some(responder) = &*responder {
            return Ok(SocketAddr::new(self.core.ip(), responder.port()));
        }
        let started = DataThread::start(&self.core)?;
        let address = SocketAddr::new(self.core.ip(), started.port());
        add_local_device(address, &self.core);
        *responder = Some(started);
        Ok(address)
    }

    fn check_caps(&self, caps: &QueuePairCaps) -> Result<QueuePairCaps, FabricError> {
        let limits =
            [("send_depth", caps.send_depth, MAX_QUEUE_DEPTH), ("max_sge", caps.max_sge, MAX_SGE as u32)];
        for (what, asked, limit) in limits {
            if asked == 0 || asked > limit {
                let device = format!("{} ({what} {asked})", self.attributes.name);
                return Err(FabricError::call("create queue pair", device, libc::EINVAL)
                    .with_hint(&format!("{what} must be 1..={limit}")));
            }
        }
        Ok(QueuePairCaps { max_inline: caps.max_inline.min(MAX_INLINE), ..*caps })
    }
}

impl Device for SoftwareDevice {
    fn attributes(&self) -> &DeviceAttributes {
        &self.attributes
    }

    fn check_use(&self) -> Result<(), FabricError> {
        self.check_lost("open device")
    }

    fn port(&self) -> Result<PortAttributes, FabricError> {
        Ok(PortAttributes {
            active: !self.switches().is_some_and(FaultSwitches::is_port_down),
            link_layer: LINK_SOFTWARE,
            mtu: 4096,
            max_message: MAX_MESSAGE,
            speed_mbps: 10_000,
            lid: 0,
            traffic_class: 0,
            gid: gid_of(self.core.ip()),
            gid_index: 0,
            gid_reason: "address of the software fabric's data listener".to_owned(),
        })
    }

    fn gids(&self) -> Result<Vec<GidEntry>, FabricError> {
        Ok(vec![GidEntry { index: 0, gid: gid_of(self.core.ip()), roce_version: None, netdev: None }])
    }

    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        self.check_lost("register memory")?;
        Ok(self.core.regions.register(range)?)
    }

    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError> {
        self.check_lost("create completion queue")?;
        if depth == 0 || depth > MAX_CQ_DEPTH {
            let device = format!("{} (depth {depth})", self.attributes.name);
            return Err(FabricError::call("create completion queue", device, libc::EINVAL)
                .with_hint(&format!("the depth must be 1..={MAX_CQ_DEPTH}")));
        }
        Ok(Box::new(SoftwareCompletionQueue::new(Arc::clone(&self.core), depth)?))
    }

    fn create_queue_pair(
        self: Arc<Self>,
        queue: &QueueHandle,
        caps: &QueuePairCaps,
    ) -> Result<Box<dyn QueuePair>, FabricError> {
        self.check_lost("create queue pair")?;
        let caps = self.check_caps(caps)?;
        let completions =
            queue.downcast::<SharedQueue>().filter(|shared| Arc::ptr_eq(shared.device(), &self.core));
        let Some(completions) = completions else {
            return Err(FabricError::call("create queue pair", &self.attributes.name, libc::EINVAL)
                .with_hint("the completion queue belongs to another device"));
        };
        let listener = self.listen()?;
        let (endpoint, ordinal) = self.core.add_queue_pair(listener, |address, slot| {
            Endpoint::new(address, slot, Arc::clone(&completions.signal))
        })?;
        let core = Arc::clone(&self.core);
        let faults = || core.faults(ordinal);
        Ok(Box::new(SoftwareQueuePair::new(self, completions, endpoint, caps, faults)))
    }

    fn poll_event(&self) -> Option<DeviceEvent> {
        self.core.next_event()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.core.event_fd())
    }
}

impl Drop for SoftwareDevice {
    fn drop(&mut self) {
        remove_local_device(&self.core);
    }
}

fn attributes(name: String, index: u32) -> DeviceAttributes {
    DeviceAttributes {
        provider: Provider::Software,
        name,
        port: 1,
        guid: 0x5357_0000_0000_0000 | (u64::from(std::process::id()) << 16) | u64::from(index + 1),
        pci_path: Some(sysfs_path()),
        max_queue_depth: MAX_QUEUE_DEPTH,
        max_cq_depth: MAX_CQ_DEPTH,
        max_queue_pairs: QUEUE_PAIR_SLOTS as u32,
        max_sge: MAX_SGE as u32,
        max_region: u64::MAX,
        max_rd_atomic_initiator: 16,
        max_rd_atomic_responder: 16,
        dma_buf: false,
        capabilities: Capabilities {
            needs_polling: true,
            blocking_commands: false,
            gpu_memory: false,
            shared_files: true,
        },
    }
}

/// A path under sysfs that exists on every machine: the loopback device's, else one without network devices.
fn sysfs_path() -> String {
    ["/sys/class/net/lo", "/sys/devices/system"]
        .iter()
        .find_map(|path| std::fs::canonicalize(path).ok())
        .map_or_else(|| "/sys".to_owned(), |path| path.to_string_lossy().into_owned())
}
