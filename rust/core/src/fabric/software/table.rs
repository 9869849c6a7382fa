//! The layout that a device shares with its peers on the same host: its regions and queue pairs, and each peer's pins.
//!
//! A peer that copies into or out of our memory does so without our CPU, so the checks are done by the peer, against
//! what this table says. The owner alone writes the table; the peer alone writes its pins.
#![allow(unsafe_code, reason = "promises that the entries are plain shared memory")]

use std::mem::offset_of;

use super::mapping::{Shared, SharedArray};
use crate::fabric::{Access, Backing, MemoryRange};
use crate::sync::{AtomicU32, AtomicU64, Ordering, SequentialU32, fence};

/// Regions that a device can hold at a time.
pub(super) const REGION_SLOTS: usize = 1 << SLOT_BITS;
/// Queue pairs that a device can hold at a time.
pub(super) const QUEUE_PAIR_SLOTS: usize = if cfg!(flagcx_p2p_loom) { 2 } else { 1 << 14 };

/// Entries of the queue pair table: those of the queue pairs, and behind them one of its owner, see [`QueuePairEntry::life_word`].
pub(super) const QUEUE_PAIR_ENTRIES: usize = QUEUE_PAIR_SLOTS + 1;

// Models have few, for loom follows each atomic.
const SLOT_BITS: u32 = if cfg!(flagcx_p2p_loom) { 1 } else { 18 };
/// Generations of a slot run from 1 to below this, so that no key is ever 0.
pub(super) const GENERATIONS: u32 = 1 << (32 - SLOT_BITS);

/// What a region may be used for, as bits of [`RegionEntry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Right {
    /// Reading it on behalf of its owner: always allowed.
    LocalRead = 0,
    /// Writing into it on behalf of its owner.
    LocalWrite = 1,
    /// A peer's WRITE.
    RemoteWrite = 2,
    /// A peer's READ.
    RemoteRead = 4,
}

/// Among the bits of [`Right`]: only this process can take the memory away, by unmapping or protecting it.
const ANONYMOUS: u32 = 8;
/// Among the bits of [`Right`]: peers are told of the region and its key.
const ANNOUNCED: u32 = 16;
/// Among the bits of [`Right`]: the owner has the file that the memory is mapped from, and gives it to a peer that asks.
const MAPPABLE: u32 = 32;
/// Among the bits of [`Right`]: the owner made that file and keeps its pages reserved. A peer checks the file itself.
const OWN: u32 = 64;

/// Why a key and a range do not give access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// No live region of the table has the key.
    UnknownKey,
    /// The region does not hold the range, or does not give the right.
    Range,
}

/// One slot of the region table.
///
/// `base`, `length` and `access` are written by the owner while `key` is 0 and no pin exists, and read by a thread that
/// pinned the slot and then found its key: the owner's store of `key` publishes them, so Relaxed.
#[derive(Debug)]
#[cfg_attr(flagcx_p2p_loom, derive(Default))]
#[repr(C)]
pub(super) struct RegionEntry {
    /// Key of the live region, 0 for none. Written by the owner, read by all: a reader stores its
    /// pin and then loads the key, the owner clears the key and then loads the pins, so one of them sees the other.
    key: SequentialU32,
    /// Bits of [`Right`], and [`ANONYMOUS`] to [`OWN`].
    access: AtomicU32,
    /// First address.
    base: AtomicU64,
    /// Bytes.
    length: AtomicU64,
    reserved: u64,
}

// SAFETY: repr(C), atomics and one unused integer, valid for every bit pattern.
unsafe impl Shared for RegionEntry {}

impl RegionEntry {
    /// Makes the slot stand for a region; `mappable`: peers may ask for its file. Owner only, on a slot that has no key and no pins.
    pub(super) fn publish(&self, key: u32, range: &MemoryRange, mappable: bool) {
        let anonymous = if range.backing == Backing::Anonymous { ANONYMOUS } else { 0 };
        let announced = if range.announced { ANNOUNCED } else { 0 };
        let mappable = if mappable { MAPPABLE } else { 0 };
        let own = if range.file.is_some_and(|file| file.is_own) { OWN } else { 0 };
        self.base.store(range.address, Ordering::Relaxed);
        self.length.store(range.length, Ordering::Relaxed);
        self.access
            .store(access_bits(range.access) | anonymous | announced | mappable | own, Ordering::Relaxed);
        self.key.store(key);
    }

    /// Makes the slot stand for what `other`, which is pinned, stands for. Owner only, as [`RegionEntry::publish`].
    fn copy_of(&self, other: &Pinned<'_>) {
        self.base.store(other.base, Ordering::Relaxed);
        self.length.store(other.length, Ordering::Relaxed);
        self.access.store(other.access, Ordering::Relaxed);
        self.key.store(other.key);
    }

    /// Whether it stands for the region of `key` now.
    pub(super) fn is_of(&self, key: u32) -> bool {
        self.key.load() == key
    }

    /// Takes the key away: pins made from now on fail. Owner only.
    pub(super) fn revoke(&self) {
        self.key.store(0);
        // For [`end_of_copy`]: what is written to the memory from now on is not seen before the key is seen to be gone.
        fence(Ordering::SeqCst);
    }
}

/// One slot of the queue pair table: lets a peer see without asking whether its counterpart still answers.
///
/// A peer asks for a queue pair that it has been told of, which was after [`QueuePairEntry::acquire`]: of `peer` and `qpn`, which it reads
/// in this order, it sees what was written then or later.
#[derive(Debug)]
#[cfg_attr(flagcx_p2p_loom, derive(Default))]
#[repr(C)]
pub(super) struct QueuePairEntry {
    /// Number of the queue pair that lives here, 0 for none. Owner writes, peers read.
    qpn: SequentialU32,
    /// Number of the queue pair that it is connected to, 0 until it is, [`BROKEN`] once it is in ERROR. Owner
    /// writes, peers read.
    peer: SequentialU32,
    /// Where the initiator that connects to this queue pair writes a random number, with the very call that it means to use, and
    /// looks for it by its own mapping. Written by the kernel on its behalf, read by the same thread after that: Relaxed.
    proof: AtomicU64,
}

/// In place of a peer's number: the queue pair is in ERROR.
const BROKEN: u32 = u32::MAX;

// SAFETY: repr(C), three atomics, valid for every bit pattern.
unsafe impl Shared for QueuePairEntry {}

/// What an entry of the queue pair table says of a counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counterpart {
    /// Connected to the queue pair that asks.
    Ready,
    /// There, but not connected yet.
    NotYet,
    /// In ERROR, gone, or connected to another one.
    Gone,
}

impl QueuePairEntry {
    /// In the last entry of the table, which holds no queue pair: the word that a thread of the owner holds for as long as it
    /// serves the table, see [`super::life_word`].
    pub(super) fn life_word(&self) -> &AtomicU32 {
        self.qpn.as_atomic()
    }

    /// The slot now holds this queue pair, not connected.
    pub(super) fn acquire(&self, qpn: u32) {
        self.peer.store(0);
        self.qpn.store(qpn);
    }

    /// It is connected to `peer`.
    pub(super) fn connect(&self, peer: u32) {
        self.peer.store(peer);
    }

    /// It is in ERROR.
    pub(super) fn mark_broken(&self) {
        self.peer.store(BROKEN);
    }

    /// The slot is free.
    pub(super) fn release(&self) {
        self.qpn.store(0);
    }

    /// Where the proof of the entry in `slot` lies in the memory of its owner, where the table begins at `table`.
    pub(super) fn proof_address(table: u64, slot: usize) -> u64 {
        table.wrapping_add((slot * size_of::<Self>() + offset_of!(Self, proof)) as u64)
    }

    /// The random number that an initiator has written last.
    pub(super) fn proof(&self) -> u64 {
        self.proof.load(Ordering::Relaxed)
    }

    /// How queue pair `qpn`, expected in this slot, stands towards queue pair `asking`.
    pub(super) fn counterpart(&self, qpn: u32, asking: u32) -> Counterpart {
        let peer = self.peer.load();
        match self.qpn.load() == qpn {
            true if peer == asking => Counterpart::Ready,
            true if peer == 0 => Counterpart::NotYet,
            _ => Counterpart::Gone,
        }
    }
}

/// A region table together with the pins of one process that accesses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegionView<'a> {
    /// Regions: this process's own, or a peer's.
    pub(super) entries: &'a SharedArray<RegionEntry>,
    /// One count per slot, of the process that accesses. Written by its threads, read by the table's owner.
    pub(super) pins: &'a SharedArray<SequentialU32>,
}

impl<'a> RegionView<'a> {
    /// Pins the region of `key`; until the pin is dropped its owner keeps the memory registered.
    pub(super) fn pin(self, key: u32) -> Result<Pinned<'a>, Violation> {
        let slot = slot_of(key);
        let (Some(entry), Some(count)) = (self.entries.get(slot), self.pins.get(slot)) else {
            return Err(Violation::UnknownKey);
        };
        count.increment();
        // Dropped on every way out below, which gives the count back.
        let mut pinned = Pinned { entry, count, key, base: 0, length: 0, access: 0 };
        if key == 0 || !pinned.is_live() {
            return Err(Violation::UnknownKey);
        }
        pinned.base = entry.base.load(Ordering::Relaxed);
        pinned.length = entry.length.load(Ordering::Relaxed);
        pinned.access = entry.access.load(Ordering::Relaxed);
        Ok(pinned)
    }
}

/// A region that its owner will not free before this is dropped.
#[derive(Debug)]
pub(super) struct Pinned<'a> {
    entry: &'a RegionEntry,
    count: &'a SequentialU32,
    key: u32,
    base: u64,
    length: u64,
    access: u32,
}

impl Pinned<'_> {
    /// The key that it was pinned by.
    pub(super) fn key(&self) -> u32 {
        self.key
    }

    /// Whether `length` bytes at `address` lie inside and `right` is given.
    pub(super) fn check(&self, address: u64, length: u64, right: Right) -> Result<(), Violation> {
        let offset = address.checked_sub(self.base).ok_or(Violation::Range)?;
        let end = offset.checked_add(length).ok_or(Violation::Range)?;
        if end > self.length || !self.allows(right) {
            return Err(Violation::Range);
        }
        Ok(())
    }

    /// Whether an access of its owner's own process cannot fault: only that process can take the memory away, and has promised
    /// not to while it is registered.
    pub(super) fn cannot_fault(&self) -> bool {
        self.access & (ANONYMOUS | OWN) != 0
    }

    /// Shows it in a further table, too, at the slot of its key. Owner only.
    pub(super) fn publish_to(&self, entry: &RegionEntry) {
        entry.copy_of(self);
    }

    /// Whether its owner says that peers may map it.
    pub(super) fn is_mappable(&self) -> bool {
        self.access & MAPPABLE != 0
    }

    /// Whether it may be used so.
    pub(super) fn allows(&self, right: Right) -> bool {
        self.access & right as u32 == right as u32
    }

    /// First address and bytes.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.base, self.length)
    }

    /// Whether peers are told of it.
    pub(super) fn is_announced(&self) -> bool {
        self.access & ANNOUNCED != 0
    }

    /// False once the owner has begun to revoke the region.
    pub(super) fn is_live(&self) -> bool {
        self.entry.is_of(self.key)
    }
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.count.decrement();
    }
}

/// Between a copy and the look whether its regions have stayed registered: the copy's loads are carried out before the load of the key,
/// also by processors that carry out loads in another order. For a region of which the owner gave up waiting for the pin.
#[inline(always)]
pub(super) fn end_of_copy() {
    fence(Ordering::Acquire);
}

/// The key of `slot` in a generation of it, from 1 to below [`GENERATIONS`].
pub(super) fn key_of(slot: usize, generation: u32) -> u32 {
    (generation << SLOT_BITS) | (slot as u32 & (REGION_SLOTS as u32 - 1))
}

/// The generation of its slot that `key` names.
pub(super) fn generation_of(key: u32) -> u32 {
    key >> SLOT_BITS
}

/// The slot that `key` names.
pub(super) fn slot_of(key: u32) -> usize {
    key as usize & (REGION_SLOTS - 1)
}

fn access_bits(access: Access) -> u32 {
    let mut bits = Right::LocalRead as u32;
    if access.local_write {
        bits |= Right::LocalWrite as u32;
    }
    if access.remote_write {
        bits |= Right::RemoteWrite as u32;
    }
    if access.remote_read {
        bits |= Right::RemoteRead as u32;
    }
    bits
}

#[cfg(all(test, flagcx_p2p_loom))]
pub(super) mod models;
#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests;
