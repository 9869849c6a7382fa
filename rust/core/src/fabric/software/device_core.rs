//! What the parts of a software device share: queue pairs, completion queues, transports, listener and data thread.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::endpoint::{Endpoint, gid_of};
use super::faults::{FaultPlan, Faults};
use super::life_word::Held;
use super::links::Links;
use super::mapping::SharedArray;
use super::region::RegionTable;
use super::switches::{FaultSwitches, Switches};
use super::table::{QUEUE_PAIR_ENTRIES, QUEUE_PAIR_SLOTS, QueuePairEntry};
use super::tokens::Tokens;
use super::wake::Wake;
use super::wrong_keys::{PeerRecord, WrongKeys};
use crate::events::Notifier;
use crate::fabric::{DeviceEvent, FabricError, LINK_SOFTWARE, QpAddress, SoftwareOptions};
use crate::fork::PerProcess;

/// Path MTU 4096 in the enumeration of verbs: there is no MTU here, so the largest.
const MTU_4096: u8 = 5;
/// Events kept for a caller that does not fetch them.
const MAX_EVENTS: usize = 1024;
/// Queue pair numbers fit in 24 bits, as on a NIC.
const QPN_LIMIT: u32 = 1 << 24;

/// What outlives the handles: shared with completion queues, transports and the data thread.
#[derive(Debug)]
pub(super) struct Core {
    name: String,
    pub(super) options: SoftwareOptions,
    plan: FaultPlan,
    injected: Arc<AtomicU64>,
    switches: Switches,
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

impl Core {
    pub(super) fn new(name: String, options: SoftwareOptions, plan: FaultPlan) -> std::io::Result<Self> {
        let (entries, entries_file) =
            SharedArray::published_if_allowed("flagcx-p2p-queue-pairs", QUEUE_PAIR_ENTRIES)?;
        Ok(Self {
            regions: Arc::new(RegionTable::new(&name)?),
            name,
            switches: options.switches.then(Arc::default),
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
    pub(super) fn ip(&self) -> IpAddr {
        self.options.advertise.unwrap_or_else(|| self.bind())
    }

    /// The faults of queue pair `ordinal` of the device.
    pub(super) fn faults(&self, ordinal: u64) -> Faults {
        Faults::new(self.plan.clone(), ordinal, Arc::clone(&self.injected))
            .with_switches(self.switches.clone())
    }

    /// Whether faults are injected.
    pub(super) fn has_faults(&self) -> bool {
        !self.plan.is_empty() || self.switches.is_some()
    }

    /// The switches of a device that has some.
    pub(super) fn switches(&self) -> Option<&FaultSwitches> {
        self.switches.as_deref()
    }

    /// Whether a switch keeps everything from moving through the device; then when to look again.
    pub(super) fn silence(&self) -> Option<Instant> {
        self.switches()?.silence()
    }

    /// Faults injected so far.
    pub(super) fn faults_injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    /// The next event.
    pub(super) fn next_event(&self) -> Option<DeviceEvent> {
        let mut events = lock(&self.events);
        let event = events.pop_front();
        if events.is_empty() {
            self.has_event.acknowledge();
        }
        event
    }

    /// Readable while there are events.
    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.has_event.as_fd()
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

    /// The calling thread shows peers of the same host that this process lives, until the answer is dropped.
    pub(super) fn show_life(&self) -> Option<Held<'_>> {
        Held::acquire(self.entries.get(QUEUE_PAIR_SLOTS)?.life_word())
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
        // What arrives late through it has arrived.
        drop(self.switches().map(FaultSwitches::landing));
        if first {
            self.responder.tell(endpoint);
        }
        first
    }

    /// Moves a queue pair to ERROR because of what its peer asked for, and says so.
    pub(super) fn queue_pair_fatal(&self, endpoint: &Endpoint) {
        endpoint.set_refused();
        if self.break_queue_pair(endpoint) {
            self.raise(DeviceEvent::QueuePairFatal(endpoint.qpn()));
        }
    }

    /// A peer has named a key that no region has or had.
    pub(super) fn note_wrong_key(&self, peer: &PeerRecord) {
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
            entry.release();
        }
        let mut queue_pairs = lock(&self.queue_pairs);
        if queue_pairs.by_number.remove(&endpoint.qpn()).is_some() {
            queue_pairs.free_slots.push(endpoint.slot);
        }
    }

    /// Moves all queue pairs to ERROR.
    pub(super) fn break_all(&self) {
        let all: Vec<_> = lock(&self.queue_pairs).by_number.values().cloned().collect();
        for endpoint in &all {
            self.break_queue_pair(endpoint);
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

    /// A queue pair of this device, which `make` makes of its address and slot; with its number among those of the device.
    pub(super) fn add_queue_pair(
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
            entry.acquire(address.qpn);
        }
        let endpoint = Arc::new(make(address, slot));
        queue_pairs.by_number.insert(address.qpn, Arc::clone(&endpoint));
        queue_pairs.created += 1;
        Ok((endpoint, queue_pairs.created))
    }
}

/// The device of this process with its data listener at `listener`; none if the listener is another process's.
pub(super) fn local_device(listener: SocketAddr) -> Option<Arc<Core>> {
    local_devices().iter().find(|(address, _)| *address == listener).and_then(|(_, core)| core.upgrade())
}

/// Lets queue pairs of this process find the device by the address of its data listener, `listener`.
pub(super) fn add_local_device(listener: SocketAddr, core: &Arc<Core>) {
    local_devices().push((listener, Arc::downgrade(core)));
}

/// The device is closed.
pub(super) fn remove_local_device(core: &Arc<Core>) {
    local_devices().retain(|(_, other)| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(core)));
}

/// Devices by their data listener.
type LocalDevices = Vec<(SocketAddr, Weak<Core>)>;

/// Data listeners of this process, where peers find them.
static LOCAL_DEVICES: PerProcess<Mutex<LocalDevices>> = PerProcess::new(Mutex::default);

fn local_devices() -> MutexGuard<'static, LocalDevices> {
    lock(LOCAL_DEVICES.get())
}

/// A number that no other queue pair of this process has, whatever its device.
fn next_queue_pair_number() -> u32 {
    /// Taken by each thread that creates a queue pair; Relaxed, for only its uniqueness matters. It wraps after 2^24 queue
    /// pairs, long after the first ones are gone.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1 + NEXT.fetch_add(1, Ordering::Relaxed) % (QPN_LIMIT - 1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
