//! The software device: what its queue pairs, completion queues and responder share.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::completion_queue::{Shared, SoftwareCompletionQueue};
use super::denial;
use super::endpoint::{Endpoint, gid_of};
use super::faults::{FaultPlan, Faults};
use super::links::Links;
use super::mapping::SharedArray;
use super::queue_pair::SoftwareQueuePair;
use super::region::RegionTable;
use super::responder::Responder;
use super::table::{QUEUE_PAIR_SLOTS, QueuePairEntry};
use super::tokens::Tokens;
use super::work::MAX_MESSAGE;
use super::wake::Wake;
use super::wrong_keys::{Suspect, WrongKeys};
use crate::events::Notifier;
use crate::fabric::{
    Capabilities, CompletionQueue, Device, DeviceAttributes, DeviceEvent, FabricError, GidEntry, LINK_SOFTWARE, MAX_SGE,
    MemoryRange, MemoryRegion, PortAttributes, Provider, QpAddress, QueueHandle, QueuePair, QueuePairCaps,
    SoftwareOptions,
};
use crate::fork::PerProcess;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const MAX_QUEUE_DEPTH: u32 = 16_384;
const MAX_CQ_DEPTH: u32 = 1 << 20;
/// Largest payload that is copied when it is posted.
const MAX_INLINE: u32 = 256;
/// Path MTU 4096 in the enumeration of verbs: there is no MTU here, so the largest.
const MTU_4096: u8 = 5;
/// Events kept for a caller that does not fetch them.
const MAX_EVENTS: usize = 1024;
/// Queue pair numbers fit in 24 bits, as on a NIC.
const QPN_LIMIT: u32 = 1 << 24;

/// One software device. [`super::open`] makes them.
#[derive(Debug)]
pub struct SoftwareDevice {
    attributes: DeviceAttributes,
    core: Arc<Core>,
    /// Started with the first queue pair: a process that moves nothing has no listener and no thread.
    responder: Mutex<Option<Responder>>,
}

/// What outlives the handles: shared with completion queues, transports and the data thread.
#[derive(Debug)]
pub(super) struct Core {
    name: String,
    pub(super) options: SoftwareOptions,
    plan: FaultPlan,
    injected: Arc<AtomicU64>,
    pub(super) regions: Arc<RegionTable>,
    entries: SharedArray<QueuePairEntry>,
    /// `None` where it cannot be shared.
    entries_file: Option<OwnedFd>,
    queue_pairs: Mutex<QueuePairs>,
    events: Mutex<VecDeque<DeviceEvent>>,
    has_event: Notifier,
    pub(super) responder: Wake,
    /// Shown by peers at the Unix socket to prove that they were welcomed at the data listener.
    pub(super) tokens: Tokens,
    /// What peers have guessed.
    pub(super) wrong_keys: WrongKeys,
    pub(super) links: Links,
}

#[derive(Debug, Default)]
struct QueuePairs {
    by_number: HashMap<u32, Arc<Endpoint>>,
    free_slots: Vec<usize>,
    used_slots: usize,
    created: u64,
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
        self.core.injected.load(Ordering::Relaxed)
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Where peers find the data listener, which this starts.
    fn listen(&self) -> Result<SocketAddr, FabricError> {
        let mut responder = lock(&self.responder);
        if let Some(responder) = &*responder {
            return Ok(SocketAddr::new(self.core.ip(), responder.port()));
        }
        let started = Responder::start(&self.core)?;
        let address = SocketAddr::new(self.core.ip(), started.port());
        lock(LOCAL_DEVICES.get()).push((address, Arc::downgrade(&self.core)));
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

    fn port(&self) -> Result<PortAttributes, FabricError> {
        Ok(PortAttributes {
            active: true,
            link_layer: LINK_SOFTWARE,
            mtu: 4096,
            max_message: MAX_MESSAGE,
            speed_mbps: 10_000,
            lid: 0,
            gid: gid_of(self.core.ip()),
            gid_index: 0,
            gid_reason: "address of the software fabric's data listener".to_owned(),
        })
    }

    fn gids(&self) -> Result<Vec<GidEntry>, FabricError> {
        Ok(vec![GidEntry { index: 0, gid: gid_of(self.core.ip()), roce_version: None, netdev: None }])
    }

    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        Ok(self.core.regions.register(range)?)
    }

    fn create_completion_queue(self: Arc<Self>, depth: u32) -> Result<Box<dyn CompletionQueue>, FabricError> {
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
        let caps = self.check_caps(caps)?;
        let completions =
            queue.downcast::<Shared>().filter(|shared| Arc::ptr_eq(shared.device(), &self.core));
        let Some(completions) = completions else {
            return Err(FabricError::call("create queue pair", &self.attributes.name, libc::EINVAL)
                .with_hint("the completion queue belongs to another device"));
        };
        let listener = self.listen()?;
        let (endpoint, ordinal) = self.core.add_queue_pair(listener, |address, slot| {
            Endpoint::new(address, slot, Arc::clone(&completions.signal))
        })?;
        let faults = Faults::new(self.core.plan.clone(), ordinal, Arc::clone(&self.core.injected));
        Ok(Box::new(SoftwareQueuePair::new(self, completions, endpoint, caps, faults)))
    }

    fn poll_event(&self) -> Option<DeviceEvent> {
        let mut events = lock(&self.core.events);
        let event = events.pop_front();
        if events.is_empty() {
            self.core.has_event.acknowledge();
        }
        event
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.core.has_event.as_fd())
    }
}

impl Drop for SoftwareDevice {
    fn drop(&mut self) {
        lock(LOCAL_DEVICES.get()).retain(|(_, core)| !std::ptr::eq(core.as_ptr(), Arc::as_ptr(&self.core)));
    }
}

impl Core {
    fn new(name: String, options: SoftwareOptions, plan: FaultPlan) -> std::io::Result<Self> {
        let (entries, entries_file) =
            SharedArray::published_if_allowed("flagcx-p2p-queue-pairs", QUEUE_PAIR_SLOTS)?;
        Ok(Self {
            regions: Arc::new(RegionTable::new(&name)?),
            name,
            options,
            plan,
            injected: Arc::default(),
            entries,
            entries_file,
            queue_pairs: Mutex::default(),
            events: Mutex::default(),
            has_event: Notifier::new()?,
            responder: Wake::new()?,
            tokens: Tokens::default(),
            wrong_keys: WrongKeys::default(),
            links: Links::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where the data listener is bound.
    pub(super) fn bind(&self) -> IpAddr {
        self.options.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Where peers find it.
    fn ip(&self) -> IpAddr {
        self.options.advertise.unwrap_or_else(|| self.bind())
    }

    /// The live queue pair of that number.
    pub(super) fn queue_pair(&self, qpn: u32) -> Option<Arc<Endpoint>> {
        lock(&self.queue_pairs).by_number.get(&qpn).cloned()
    }

    /// The read-only descriptors of the region table and of the queue pair table, for peers of the same host; `None` where
    /// they cannot be shared.
    pub(super) fn table_files(&self) -> Option<[BorrowedFd<'_>; 2]> {
        Some([self.regions.file()?, self.entries_file.as_ref()?.as_fd()])
    }

    /// Where the queue pair table lies in this process.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.address()
    }

    /// The queue pair is connected to `peer` now.
    pub(super) fn publish_connection(&self, endpoint: &Endpoint, peer: &QpAddress) {
        if let Some(entry) = self.entries.get(endpoint.slot) {
            entry.connect(peer.qpn);
        }
        self.responder.tell(endpoint);
    }

    /// Moves a queue pair to ERROR, without an event. True when it was not there yet.
    pub(super) fn break_queue_pair(&self, endpoint: &Endpoint) -> bool {
        if let Some(entry) = self.entries.get(endpoint.slot) {
            entry.mark_broken();
        }
        let first = endpoint.set_error();
        if first {
            self.responder.tell(endpoint);
        }
        first
    }

    /// Moves a queue pair to ERROR because of what its peer asked for, and says so.
    pub(super) fn queue_pair_fatal(&self, endpoint: &Endpoint) {
        if self.break_queue_pair(endpoint) {
            self.raise(DeviceEvent::QueuePairFatal(endpoint.qpn()));
        }
    }

    /// A peer has named a key that no region has or had.
    pub(super) fn note_wrong_key(&self, peer: &Suspect) {
        if peer.note_wrong_key(Instant::now()) {
            tracing::warn!(
                device = self.name,
                peer = %peer.address(),
                "a peer has named 16 keys that no registered memory has or had: it guesses, or uses keys of another process. Each \
                 further key that is not announced costs it 1 s"
            );
        }
    }

    /// The queue pair is destroyed.
    pub(super) fn remove_queue_pair(&self, endpoint: &Endpoint) {
        self.break_queue_pair(endpoint);
        if let Some(entry) = self.entries.get(endpoint.slot) {
            entry.vacate();
        }
        let mut queue_pairs = lock(&self.queue_pairs);
        if queue_pairs.by_number.remove(&endpoint.qpn()).is_some() {
            queue_pairs.free_slots.push(endpoint.slot);
        }
    }

    /// Reports an event to the poller of the device.
    pub(super) fn raise(&self, event: DeviceEvent) {
        tracing::debug!(device = self.name, ?event, "device event");
        let mut events = lock(&self.events);
        if events.len() < MAX_EVENTS {
            events.push_back(event);
        }
        self.has_event.notify();
    }

    fn add_queue_pair(
        &self,
        listener: SocketAddr,
        make: impl FnOnce(QpAddress, usize) -> Endpoint,
    ) -> Result<(Arc<Endpoint>, u64), FabricError> {
        let mut queue_pairs = lock(&self.queue_pairs);
        let slot = match queue_pairs.free_slots.pop() {
            Some(slot) => slot,
            None if queue_pairs.used_slots < QUEUE_PAIR_SLOTS => {
                queue_pairs.used_slots += 1;
                queue_pairs.used_slots - 1
            }
            None => {
                return Err(FabricError::call("create queue pair", &self.name, libc::ENOMEM)
                    .with_hint(&format!("the device holds {QUEUE_PAIR_SLOTS} queue pairs at most")));
            }
        };
        let address = QpAddress {
            qpn: next_queue_pair_number(),
            gid: gid_of(listener.ip()),
            port: 1,
            link_layer: LINK_SOFTWARE,
            lid: u32::from(listener.port()),
            mtu: MTU_4096,
        };
        if let Some(entry) = self.entries.get(slot) {
            entry.occupy(address.qpn);
        }
        let endpoint = Arc::new(make(address, slot));
        queue_pairs.by_number.insert(address.qpn, Arc::clone(&endpoint));
        queue_pairs.created += 1;
        Ok((endpoint, queue_pairs.created))
    }
}

/// The device of this process whose data listener is at `listener`, if it is one of ours.
pub(super) fn local_device(listener: SocketAddr) -> Option<Arc<Core>> {
    lock(LOCAL_DEVICES.get())
        .iter()
        .find(|(address, _)| *address == listener)
        .and_then(|(_, core)| core.upgrade())
}

/// Devices by their data listener.
type LocalDevices = Vec<(SocketAddr, Weak<Core>)>;

/// Data listeners of this process, where peers find them.
static LOCAL_DEVICES: PerProcess<Mutex<LocalDevices>> = PerProcess::new(Mutex::default);

/// A number that no other queue pair of this process has, whatever its device.
fn next_queue_pair_number() -> u32 {
    /// Taken by each thread that creates a queue pair; Relaxed, for only its uniqueness matters. It wraps after 2^24 queue
    /// pairs, long after the first ones are gone.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1 + NEXT.fetch_add(1, Ordering::Relaxed) % (QPN_LIMIT - 1)
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
        capabilities: Capabilities { needs_polling: true, blocking_commands: false, gpu_memory: false },
    }
}

/// A path under sysfs that exists on every machine: the loopback device's, else one without network devices.
fn sysfs_path() -> String {
    ["/sys/class/net/lo", "/sys/devices/system"]
        .iter()
        .find_map(|path| std::fs::canonicalize(path).ok())
        .map_or_else(|| "/sys".to_owned(), |path| path.to_string_lossy().into_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
