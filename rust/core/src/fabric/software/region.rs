//! Registered memory: the device's region table as its owner sees it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::kept_files::{KeptFiles, NoDescriptor};
use super::keys::Keys;
use super::mapping::SharedArray;
use super::pins::{Holders, PeerPins, Pins};
use super::probe;
use super::region_file::{NotKept, RegionFile};
use super::table::{REGION_SLOTS, RegionEntry, RegionView, slot_of};
use crate::auth::random;
use crate::fabric::{Backing, FabricError, MemoryRange, MemoryRegion};
use crate::sync::{Mutex, lock};

/// How long dropping a region that has not been revoked waits for accesses under way.
const DROP_PATIENCE: Duration = Duration::from_secs(2);

/// A copy takes milliseconds; a process that has not released its pin by then is stopped, or forges its pins.
const LATE: Duration = Duration::from_secs(1);

/// How long after its end a region is waited for if only processes have pinned it that have been late before.
const PATIENCE_WITH_LATE: Duration = Duration::from_millis(20);

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
    pins: Pins,
    slots: Mutex<Slots>,
    /// Of live regions that peers may map, by key.
    files: Mutex<HashMap<u32, Arc<RegionFile>>>,
    /// Their descriptors.
    kept: Arc<KeptFiles>,
    /// Said that there was no descriptor for a file.
    has_told: Once,
}

/// The keys that are in use.
#[derive(Debug)]
struct Slots {
    keys: Keys,
    /// Of regions that are gone and still pinned: free once they are not.
    pinned: Vec<u32>,
}

impl RegionTable {
    pub(super) fn new(device: &str) -> io::Result<Self> {
        let (shared, file) = SharedArray::published_if_allowed("flagcx-p2p-regions", REGION_SLOTS)?;
        Ok(Self {
            device: device.to_owned(),
            entries: SharedArray::private(REGION_SLOTS)?,
            shared,
            file,
            pins: Pins::new()?,
            slots: Mutex::new(Slots { keys: Keys::new(), pinned: Vec::new() }),
            files: Mutex::default(),
            kept: Arc::default(),
            has_told: Once::new(),
        })
    }

    /// The table as this process's own threads access it.
    pub(super) fn view(&self) -> RegionView<'_> {
        RegionView { entries: &self.entries, pins: self.pins.own() }
    }

    /// The read-only descriptor for peers of the same host; `None` where the table cannot be shared.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// From now on revocations wait for this peer's pins too. `pins` is the array that the peer published. Comes with the
    /// read-only descriptor of the table of what [`RegionTable::grant`] lets it see.
    pub(super) fn add_peer(&self, pid: u32, pins: BorrowedFd<'_>) -> io::Result<(Arc<PeerPins>, OwnedFd)> {
        self.pins.add_peer(pid, pins)
    }

    /// Lets a peer see the region of `key`, which it has named, until that ends. False: no region has it.
    pub(super) fn grant(&self, peer: &PeerPins, key: u32) -> bool {
        self.pins.grant(peer, || self.view().pin(key).ok())
    }

    /// The peer is gone, or has closed its link: what it has pinned counts no more.
    pub(super) fn remove_peer(&self, peer: &Arc<PeerPins>) {
        self.pins.remove_peer(peer);
        lock(&self.slots).free_unpinned(&self.pins);
    }

    /// Registers `range`; see [`crate::fabric::Device::register`].
    pub(super) fn register(self: &Arc<Self>, range: &MemoryRange) -> Result<Arc<TableRegion>, FabricError> {
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
        let file = match range.file.map(|file| RegionFile::keep(&self.kept, &file, range)).transpose() {
            Ok(file) => file.filter(|_| range.access.remote_read || range.access.remote_write),
            Err(NotKept::Wrong(errno, hint)) => return refuse(errno, hint),
            Err(NotKept::NoDescriptor(reason)) => {
                self.tell_of_no_descriptor(reason);
                None
            }
        };
        let random = match random() {
            Ok(bytes) => u64::from_ne_bytes(bytes),
            Err(error) => return refuse(Errno::IO, &format!("its key would not be safe: {error}")),
        };
        let Some(key) = lock(&self.slots).acquire(random, &self.pins) else {
            return refuse(Errno::NOMEM, "the device's region table is full");
        };
        let slot = slot_of(key);
        let mappable = file.is_some();
        if let Some(file) = file {
            lock(&self.files).insert(key, Arc::new(file));
        }
        if let Some(entry) = self.entries.get(slot) {
            entry.publish(key, range, mappable);
        }
        if let Some(entry) = self.shared.get(slot).filter(|_| range.announced) {
            entry.publish(key, range, mappable);
        }
        let state = Mutex::new(State::Live);
        Ok(Arc::new(TableRegion { table: Arc::clone(self), slot, key, range: *range, state }))
    }

    /// Whether no region has or had `key`: a peer has guessed it. One that goes on using what was deregistered has not, unless
    /// its slot has served another region since.
    pub(super) fn is_guess(&self, key: u32) -> bool {
        self.view().pin(key).is_err() && !lock(&self.slots).keys.is_or_was(key)
    }

    /// The file of the region of `key`, if it has one and `peer` sees the region.
    pub(super) fn file_for(&self, peer: &PeerPins, key: u32) -> Option<Arc<RegionFile>> {
        // Granted it may be for a moment longer than it is in the table.
        let is_announced = || self.view().pin(key).is_ok_and(|pinned| pinned.is_announced());
        let is_seen = Pins::is_granted(peer, key) || is_announced();
        lock(&self.files).get(&key).filter(|_| is_seen).cloned()
    }

    fn tell_of_no_descriptor(&self, reason: NoDescriptor) {
        let reason = match reason {
            NoDescriptor::Failed(errno) => {
                format!("no descriptor is left for the file of shared memory ({errno})")
            }
            NoDescriptor::Enough(files) => format!(
                "{files} files of shared memory take a quarter of the descriptors that this process may have, and no more is kept"
            ),
        };
        self.has_told.call_once(|| {
            tracing::warn!(
                device = self.device,
                "{reason}: peers cannot map its memory and take another path. Allocate fewer and larger ranges, or raise the limit of open \
                 files (ulimit -n)"
            );
        });
    }

    /// Takes the key of `slot` away: pins made from now on fail.
    fn revoke(&self, slot: usize, key: u32) {
        // What peers see goes first and the file last: one that still sees the region is not told that it has none.
        for entry in [self.shared.get(slot), self.entries.get(slot)].into_iter().flatten() {
            entry.revoke();
        }
        self.pins.revoke_grants(slot);
        lock(&self.files).remove(&key);
    }
}

impl Slots {
    fn acquire(&mut self, random: u64, pins: &Pins) -> Option<u32> {
        self.keys.acquire(random).or_else(|| {
            self.free_unpinned(pins);
            self.keys.acquire(random)
        })
    }

    /// Takes back the slots of former regions that are not pinned any more.
    fn free_unpinned(&mut self, pins: &Pins) {
        let (pinned, free): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pinned)
            .into_iter()
            .partition(|key| pins.holders(slot_of(*key)).is_some());
        self.pinned = pinned;
        free.into_iter().for_each(|key| self.keys.release(key));
    }
}

/// One registered range.
#[derive(Debug)]
pub(super) struct TableRegion {
    table: Arc<RegionTable>,
    slot: usize,
    key: u32,
    range: MemoryRange,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    /// No new access since then; some may still be under way.
    Revoked(Instant),
    /// Nothing touches the memory, and the slot may serve another region.
    Ended,
}

impl MemoryRegion for TableRegion {
    fn lkey(&self) -> u32 {
        self.key
    }

    fn rkey(&self) -> u32 {
        self.key
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        if *state == State::Live {
            self.table.revoke(self.slot, self.key);
            *state = State::Revoked(Instant::now());
        }
    }

    fn revoke(&self, deadline: Instant) -> Result<(), FabricError> {
        self.close();
        let mut pause = Duration::from_micros(20);
        loop {
            let Some((holders, since)) = self.holders() else { return Ok(()) };
            let now = Instant::now();
            let late = self.table.pins.are_late(&holders);
            let until = if late { deadline.min(since + PATIENCE_WITH_LATE) } else { deadline };
            if now >= until {
                if now - since >= LATE {
                    self.table.pins.note_late(&holders);
                }
                let MemoryRange { address, length, .. } = self.range;
                return Err(FabricError::StillInUse { address, length, holders: holders.to_string() });
            }
            thread::sleep(pause.min(until - now));
            pause = (pause * 2).min(Duration::from_millis(1));
        }
    }
}

impl TableRegion {
    /// What still accesses it, and when it was closed; its slot is free once that is nothing.
    fn holders(&self) -> Option<(Holders, Instant)> {
        let mut state = lock(&self.state);
        let State::Revoked(since) = *state else { return None };
        let holders = self.table.pins.holders(self.slot);
        if holders.is_none() {
            *state = State::Ended;
            lock(&self.table.slots).keys.release(self.key);
        }
        Some((holders?, since))
    }
}

impl Drop for TableRegion {
    fn drop(&mut self) {
        let was_live = *lock(&self.state) == State::Live;
        // A failed revocation has been reported to its caller.
        let deadline = Instant::now() + if was_live { DROP_PATIENCE } else { Duration::ZERO };
        if let Err(error) = self.revoke(deadline) {
            lock(&self.table.slots).pinned.push(self.key);
            if was_live {
                tracing::warn!(device = self.table.device, "{error}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
