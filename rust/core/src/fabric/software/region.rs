//! Registered memory: the device's region table as its owner sees it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::keys::Keys;
use super::mapping::SharedArray;
use super::probe;
use super::table::{REGION_SLOTS, RegionEntry, RegionView, slot_of};
use crate::auth::random;
use crate::fabric::{Backing, FabricError, MemoryRange, MemoryRegion};
use crate::sync::{Mutex, lock};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How long dropping a region waits for accesses under way before it gives its slot up.
const DROP_PATIENCE: Duration = Duration::from_secs(30);

/// All regions of one device.
#[derive(Debug)]
pub(super) struct RegionTable {
    device: String,
    /// All of them, for this process alone.
    entries: SharedArray<RegionEntry>,
    /// Those that peers are told of, for the processes that copy in and out by themselves.
    shared: SharedArray<RegionEntry>,
    /// Descriptor of `shared`; `None` where it cannot be shared.
    file: Option<OwnedFd>,
    /// Pins of this process's own threads: in-process copies, local buffers, the TCP responder.
    own_pins: SharedArray<AtomicU32>,
    /// Pins of the processes that copy in and out by themselves.
    peers: Mutex<Vec<Arc<PeerPins>>>,
    keys: Mutex<Keys>,
}

/// The pins that one peer process holds on our regions.
#[derive(Debug)]
pub(super) struct PeerPins {
    /// Who, for messages.
    pub(super) pid: u32,
    pins: SharedArray<AtomicU32>,
    /// The regions that it alone sees, because it has named their keys. Written under the lock of the table's `peers`.
    grants: SharedArray<RegionEntry>,
    /// Set by the responder when the peer's link is closed, read by revocations; Relaxed, for a revocation looks
    /// again until it sees it.
    void: AtomicBool,
}

impl RegionTable {
    pub(super) fn new(device: &str) -> io::Result<Self> {
        let (shared, file) = SharedArray::published_if_allowed("flagcx-p2p-regions", REGION_SLOTS)?;
        Ok(Self {
            device: device.to_owned(),
            entries: SharedArray::private(REGION_SLOTS)?,
            shared,
            file,
            own_pins: SharedArray::private(REGION_SLOTS)?,
            peers: Mutex::new(Vec::new()),
            keys: Mutex::new(Keys::new()),
        })
    }

    /// The table as this process's own threads access it.
    pub(super) fn view(&self) -> RegionView<'_> {
        RegionView { entries: &self.entries, pins: &self.own_pins }
    }

    /// The read-only descriptor for peers of the same host; `None` where the table cannot be shared.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// From now on revocations wait for this peer's pins too. `pins` is the array that the peer published. Comes with the
    /// read-only descriptor of the table of what [`RegionTable::grant`] lets it see.
    pub(super) fn add_peer(&self, pid: u32, pins: BorrowedFd<'_>) -> io::Result<(Arc<PeerPins>, OwnedFd)> {
        let pins = SharedArray::open(pins, REGION_SLOTS)?;
        let (grants, file) = SharedArray::published("flagcx-p2p-grants", REGION_SLOTS)?;
        let peer = Arc::new(PeerPins { pid, pins, grants, void: AtomicBool::new(false) });
        lock(&self.peers).push(Arc::clone(&peer));
        Ok((peer, file))
    }

    /// Lets a peer see the region of `key`, which it has named, until that ends. False: no region has it.
    pub(super) fn grant(&self, peer: &PeerPins, key: u32) -> bool {
        // A revocation takes the key away first and then, under this lock, the grants: it sees this one, or this sees that.
        let _peers = lock(&self.peers);
        let Ok(pinned) = self.view().pin(key) else { return false };
        if let Some(entry) = peer.grants.get(slot_of(key)) {
            pinned.publish_to(entry);
        }
        true
    }

    /// The peer is gone, or has closed its link: what it has pinned counts no more.
    pub(super) fn remove_peer(&self, peer: &Arc<PeerPins>) {
        peer.void.store(true, Ordering::Relaxed);
        lock(&self.peers).retain(|other| !Arc::ptr_eq(other, peer));
    }

    /// Registers `range`; see [`crate::fabric::Device::register`].
    pub(super) fn register(self: &Arc<Self>, range: &MemoryRange) -> Result<Arc<Region>, FabricError> {
        let refuse = |errno: Errno, hint: &str| {
            let what = format!("{} ({:#x}+{})", self.device, range.address, range.length);
            Err(FabricError::call("register memory", what, errno.raw_os_error()).with_hint(hint))
        };
        if range.dma_buf.is_some() || range.cpu_address.is_some() {
            return refuse(Errno::OPNOTSUPP, "the software fabric moves host memory only");
        }
        if range.length == 0 {
            return refuse(Errno::INVAL, "a region must have at least one byte");
        }
        if (range.access.remote_write || range.access.remote_atomic) && !range.access.local_write {
            return refuse(Errno::INVAL, "remote writing needs local writing");
        }
        if range.backing == Backing::Unknown
            && let Err(errno) = probe::check_mapped(range.address, range.length)
        {
            return refuse(errno, "the range must be mapped from end to end");
        }
        let random = match random() {
            Ok(bytes) => u64::from_ne_bytes(bytes),
            Err(error) => return refuse(Errno::IO, &format!("its key would not be safe: {error}")),
        };
        let Some(key) = lock(&self.keys).acquire(random) else {
            return refuse(Errno::NOMEM, "the device's region table is full");
        };
        let slot = slot_of(key);
        if let Some(entry) = self.entries.get(slot) {
            entry.publish(key, range);
        }
        if let Some(entry) = self.shared.get(slot).filter(|_| range.announced) {
            entry.publish(key, range);
        }
        let state = Mutex::new(State::Live);
        Ok(Arc::new(Region { table: Arc::clone(self), slot, key, range: *range, state }))
    }

    /// Takes the key of `slot` away: pins made from now on fail.
    fn revoke(&self, slot: usize) {
        for entry in [self.entries.get(slot), self.shared.get(slot)].into_iter().flatten() {
            entry.revoke();
        }
        for entry in lock(&self.peers).iter().filter_map(|peer| peer.grants.get(slot)) {
            entry.revoke();
        }
    }

    /// Who holds a pin on `slot` now, in words.
    fn holders(&self, slot: usize) -> Option<String> {
        let held = |pins: &SharedArray<AtomicU32>| {
            pins.get(slot).is_some_and(|count| count.load(Ordering::SeqCst) != 0)
        };
        let mut holders = Vec::new();
        if held(&self.own_pins) {
            holders.push("this process".to_owned());
        }
        for peer in lock(&self.peers).iter() {
            if held(&peer.pins) && !peer.void.load(Ordering::Relaxed) {
                holders.push(format!("process {}", peer.pid));
            }
        }
        (!holders.is_empty()).then(|| holders.join(", "))
    }
}

/// One registered range.
#[derive(Debug)]
pub(super) struct Region {
    table: Arc<RegionTable>,
    slot: usize,
    key: u32,
    range: MemoryRange,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// No new access; some may still be under way.
    Revoked,
    /// Nothing touches the memory, and the slot may serve another region.
    Ended,
}

impl MemoryRegion for Region {
    fn lkey(&self) -> u32 {
        self.key
    }

    fn rkey(&self) -> u32 {
        self.key
    }

    fn revoke(&self, deadline: Instant) -> Result<(), FabricError> {
        let mut state = lock(&self.state);
        if *state == State::Live {
            self.table.revoke(self.slot);
            *state = State::Revoked;
        }
        let mut pause = Duration::from_micros(20);
        while *state == State::Revoked {
            let Some(holders) = self.table.holders(self.slot) else {
                lock(&self.table.keys).release(self.key);
                *state = State::Ended;
                break;
            };
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                let range = format!("{:#x}+{}", self.range.address, self.range.length);
                let detail = format!(": {range} is still in use by {holders}; it must stay mapped");
                return Err(FabricError::TimedOut { operation: "deregister memory", detail });
            };
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Err(error) = self.revoke(Instant::now() + DROP_PATIENCE) {
            tracing::error!(device = self.table.device, "{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Access;
    use crate::fabric::software::table::Right;

    fn range(buffer: &[u8]) -> MemoryRange {
        let address = buffer.as_ptr() as u64;
        MemoryRange {
            address,
            length: buffer.len() as u64,
            access: Access::FULL,
            dma_buf: None,
            cpu_address: None,
            backing: Backing::Unknown,
            announced: true,
        }
    }

    #[test]
    fn revoking_waits_for_pins_and_says_who_holds_them() {
        let table = Arc::new(RegionTable::new("sw0").unwrap());
        let buffer = vec![0_u8; 128];
        let region = table.register(&range(&buffer)).unwrap();
        let pin = table.view().pin(region.rkey()).unwrap();
        let error = region.revoke(Instant::now() + Duration::from_millis(5)).unwrap_err().to_string();
        assert!(error.contains("this process"), "{error}");
        assert!(table.view().pin(region.rkey()).is_err());
        drop(pin);
        region.revoke(Instant::now()).unwrap();
        region.revoke(Instant::now()).unwrap();
    }

    #[test]
    fn a_peers_pins_hold_until_it_is_gone() {
        let table = Arc::new(RegionTable::new("sw0").unwrap());
        let buffer = vec![0_u8; 128];
        let region = table.register(&range(&buffer)).unwrap();
        let (pins, file) = SharedArray::<AtomicU32>::published("pins", REGION_SLOTS).unwrap();
        let (peer, _) = table.add_peer(4711, file.as_fd()).unwrap();
        let pin = RegionView { entries: &table.shared, pins: &pins }.pin(region.rkey()).unwrap();
        let error = region.revoke(Instant::now()).unwrap_err().to_string();
        assert!(error.contains("process 4711"), "{error}");
        table.remove_peer(&peer);
        region.revoke(Instant::now()).unwrap();
        drop(pin);
    }

    #[test]
    fn only_announced_regions_are_in_the_shared_table() {
        let table = Arc::new(RegionTable::new("sw0").unwrap());
        let buffer = vec![0_u8; 128];
        let announced = table.register(&range(&buffer)).unwrap();
        let hidden = table.register(&MemoryRange { announced: false, ..range(&buffer) }).unwrap();
        let Some(file) = table.file() else { return };
        let seen = SharedArray::<RegionEntry>::open(file, REGION_SLOTS).unwrap();
        let pins = SharedArray::private(REGION_SLOTS).unwrap();
        let peers = RegionView { entries: &seen, pins: &pins };
        assert!(peers.pin(announced.rkey()).is_ok());
        assert!(peers.pin(hidden.rkey()).is_err());
        assert!(table.view().pin(hidden.rkey()).is_ok_and(|pin| !pin.is_announced()));
        announced.revoke(Instant::now()).unwrap();
        assert!(peers.pin(announced.rkey()).is_err() && table.view().pin(announced.rkey()).is_err());
    }

    #[test]
    fn a_region_that_is_not_announced_is_seen_by_the_peer_that_named_its_key_until_it_ends() {
        let table = Arc::new(RegionTable::new("sw0").unwrap());
        let buffer = vec![0_u8; 128];
        let region = table.register(&MemoryRange { announced: false, ..range(&buffer) }).unwrap();
        let peers = [1, 2].map(|pid| {
            let (pins, file) = SharedArray::<AtomicU32>::published("pins", REGION_SLOTS).unwrap();
            let (peer, grants) = table.add_peer(pid, file.as_fd()).unwrap();
            (peer, pins, SharedArray::<RegionEntry>::open(grants.as_fd(), REGION_SLOTS).unwrap())
        });
        let [first, second] = &peers;
        let pin = |peer: &(_, SharedArray<AtomicU32>, _)| {
            RegionView { entries: &peer.2, pins: &peer.1 }.pin(region.rkey()).map(|pin| {
                assert_eq!(pin.check(buffer.as_ptr() as u64, 128, Right::RemoteRead), Ok(()));
                std::mem::forget(pin);
            })
        };
        assert!(!table.grant(&first.0, region.rkey() ^ 1 << 31));
        assert!(pin(first).is_err());
        assert!(table.grant(&first.0, region.rkey()));
        assert!(pin(first).is_ok() && pin(second).is_err());
        let error = region.revoke(Instant::now()).unwrap_err().to_string();
        assert!(error.contains("process 1:") || error.contains("process 1;"), "{error}");
        assert!(pin(first).is_err() && !table.grant(&first.0, region.rkey()));
        table.remove_peer(&first.0);
        region.revoke(Instant::now()).unwrap();
    }

    #[test]
    fn what_cannot_be_registered_is_refused_with_its_errno() {
        let table = Arc::new(RegionTable::new("sw0").unwrap());
        let buffer = vec![0_u8; 128];
        let errno = |range: &MemoryRange| match table.register(range) {
            Err(FabricError::Call { errno, .. }) => errno,
            other => panic!("{other:?}"),
        };
        assert_eq!(errno(&MemoryRange { length: 0, ..range(&buffer) }), libc::EINVAL);
        assert_eq!(errno(&MemoryRange { address: 64, ..range(&buffer) }), libc::EFAULT);
        let read_only = Access { local_write: false, ..Access::FULL };
        assert_eq!(errno(&MemoryRange { access: read_only, ..range(&buffer) }), libc::EINVAL);
    }
}
