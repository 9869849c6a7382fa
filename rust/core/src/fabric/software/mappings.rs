//! The regions of a peer that are mapped here: a bounded cache, looked into without a lock.
//!
//! For each slot of the peer's region table there is one word that says what is known of the region: nothing, where it is mapped, or
//! that it is not to be. A reader has pinned the region, with a count of this process for that slot. A mapping that goes is first
//! taken out of the word, and unmapped once the count is found to be 0: a reader that pins later does not find it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::address_space::{AddressSpace, CheckedRange};
use super::file_mapping::{FileMapping, Unmappable};
use super::mapping::SharedArray;
use super::table::{Pinned, REGION_SLOTS, slot_of};
use crate::fabric::Opcode;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, SequentialU32, SequentialU64, lock};

/// Mappings of a link at a time: the regions of an inference engine with a region for keys and one for values of each layer. Those of
/// all links together are bounded by [`super::mapping_budget`].
const MOST: usize = if cfg!(flagcx_p2p_loom) { 1 } else { 256 };
/// Bytes of address space that they may take.
const MOST_BYTES: u64 = 4 << 40;
/// How long one that had to go for others is not mapped again: more regions in use than the cache holds take the other path, and not
/// turns in being mapped.
const EVICTED_FOR: Duration = Duration::from_secs(1);
/// How long after something had run out it is tried again.
const EXHAUSTED_FOR: Duration = Duration::from_secs(5);
/// Reasons kept, and told in the log once each.
const MOST_REASONS: usize = 64;

/// In a word, below the key: where the mapping is, plus one; or one of these with the second of [`Mappings::begin`] until when.
const REFUSED: u32 = 1 << 31;
const EVICTED: u32 = 1 << 30;
const SECONDS: u32 = EVICTED - 1;

#[derive(Debug)]
pub(super) struct Mappings {
    begin: Instant,
    /// The same by the clock of [`coarse_now`].
    coarse_begin: Duration,
    /// The words: a key above, and what is known of it. Written under the lock of `kept`, read by threads that have pinned the slot: a
    /// reader pins and then loads the word, and an eviction stores the word and then loads the pins, so one sees the other.
    words: SharedArray<SequentialU64>,
    records: Box<[Record]>,
    kept: Mutex<Kept>,
}

/// What a copy needs of a mapping. Written under the lock of [`Mappings::kept`] while no word leads to it, read by a thread that found
/// such a word: Relaxed, for the word publishes it.
#[derive(Debug, Default)]
struct Record {
    base: AtomicU64,
    length: AtomicU64,
    start: AtomicU64,
    is_own: AtomicBool,
    is_writable: AtomicBool,
    /// Used since the hand of the clock has passed. Set by readers, cleared by evictions; Relaxed, it is a hint.
    used: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    /// At the places of their records.
    entries: Vec<Option<Entry>>,
    /// Where the next one to go is looked for.
    hand: usize,
    bytes: u64,
    /// Of refused keys, the latest first.
    reasons: VecDeque<(u32, String)>,
    told: BTreeSet<String>,
}

#[derive(Debug)]
struct Entry {
    key: u32,
    mapping: FileMapping,
    /// No word leads to it any more.
    is_leaving: bool,
}

/// What is known of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Where the range lies, until the pin is dropped.
    Mapped(CheckedRange),
    /// Nothing: its file is to be asked for.
    Nothing,
    /// It was mapped, and is not to be before this time.
    Evicted(Instant),
    /// It cannot be, or not so.
    Refused,
}

impl Mappings {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            begin: Instant::now(),
            coarse_begin: coarse_now(),
            words: SharedArray::private(REGION_SLOTS)?,
            records: (0..MOST).map(|_| Record::default()).collect(),
            kept: Mutex::new(Kept { entries: (0..MOST).map(|_| None).collect(), ..Kept::default() }),
        })
    }

    /// What is known of `length` bytes at `address` of the region `pinned`, for requests of `opcode`.
    pub(super) fn find(&self, pinned: &Pinned<'_>, address: u64, length: u64, opcode: Opcode) -> Known {
        let word = self.word(pinned.key()).map_or(0, |word| word.load());
        let (key, known) = ((word >> 32) as u32, word as u32);
        if key != pinned.key() {
            return Known::Nothing;
        }
        if known & (REFUSED | EVICTED) != 0 {
            return self.held_off(known);
        }
        let record = (known as usize).checked_sub(1).and_then(|index| self.records.get(index));
        let Some(record) = record else { return Known::Nothing };
        record.place(address, length, opcode).map_or(Known::Refused, Known::Mapped)
    }

    #[cold]
    fn held_off(&self, known: u32) -> Known {
        let second = known & SECONDS;
        let until = Duration::from_secs(u64::from(second));
        // For ever needs no clock, and this is asked for each request.
        match second != SECONDS && until <= coarse_now().saturating_sub(self.coarse_begin) {
            true => Known::Nothing,
            false if known & REFUSED != 0 => Known::Refused,
            false => Known::Evicted(self.begin + until),
        }
    }

    /// Adds the mapping of the region `pinned`. `pins`: those of this process, by slot.
    pub(super) fn insert(
        &self,
        pinned: &Pinned<'_>,
        mapping: FileMapping,
        pins: &SharedArray<SequentialU32>,
    ) -> Result<(), Unmappable> {
        if mapping.size() > MOST_BYTES {
            let reason = format!("it has more than the {MOST_BYTES} bytes that are mapped of a peer at most");
            return Err(Unmappable { reason, passes: false });
        }
        // Dropped after the lock: to unmap a large one takes time.
        let mut gone = Vec::new();
        let mut kept = lock(&self.kept);
        let key = pinned.key();
        if let Some(index) = kept.place_of(key) {
            // Asked for twice.
            self.set_word(key, index as u32 + 1);
            gone.push(mapping);
            return Ok(());
        }
        let Some(index) = self.make_room(&mut kept, mapping.size(), pins, &mut gone) else {
            gone.push(mapping);
            return Err(Unmappable { reason: "too much is mapped already".to_owned(), passes: true });
        };
        let (Some(record), Some(place)) = (self.records.get(index), kept.entries.get_mut(index)) else {
            return Ok(());
        };
        record.describe(&mapping);
        let bytes = mapping.size();
        *place = Some(Entry { key, mapping, is_leaving: false });
        kept.bytes += bytes;
        self.set_word(key, index as u32 + 1);
        drop(kept);
        Ok(())
    }

    /// The region of `key` is not to be mapped. True the first time that this is told of the peer.
    pub(super) fn refuse(&self, key: u32, unmappable: &Unmappable) -> bool {
        let mut kept = lock(&self.kept);
        if kept.place_of(key).is_some() {
            // Asked for twice, and mapped the first time.
            return false;
        }
        let time = if unmappable.passes { Some(EXHAUSTED_FOR) } else { None };
        self.set_word(key, REFUSED | self.second_after(time));
        kept.reasons.truncate(MOST_REASONS - 1);
        kept.reasons.push_front((key, unmappable.reason.clone()));
        kept.told.len() < MOST_REASONS && kept.told.insert(unmappable.reason.clone())
    }

    /// Why the region of `key` was refused, if that is known.
    pub(super) fn reason(&self, key: u32) -> Option<String> {
        let kept = lock(&self.kept);
        kept.reasons.iter().find(|(refused, _)| *refused == key).map(|(_, reason)| reason.clone())
    }

    /// Takes out what `is_live` says has ended, as far as nothing uses it, for the caller to drop. Whether something is left.
    pub(super) fn sweep(
        &self,
        is_live: impl Fn(u32) -> bool,
        pins: &SharedArray<SequentialU32>,
    ) -> (Vec<FileMapping>, bool) {
        let mut gone = Vec::new();
        let mut kept = lock(&self.kept);
        for index in 0..kept.entries.len() {
            let Some(Some(entry)) = kept.entries.get(index) else { continue };
            if !entry.is_leaving && !is_live(entry.key) {
                self.begin_leaving(&mut kept, index, 0);
            }
            kept.finish_leaving(index, pins, &mut gone);
        }
        let is_left = kept.entries.iter().any(Option::is_some);
        (gone, is_left)
    }

    /// A free place for a mapping of so many bytes. Others go for it in the order of a clock: those not used since its last round.
    fn make_room(
        &self,
        kept: &mut Kept,
        bytes: u64,
        pins: &SharedArray<SequentialU32>,
        gone: &mut Vec<FileMapping>,
    ) -> Option<usize> {
        let mut steps = 2 * MOST;
        loop {
            let free = kept.entries.iter().position(Option::is_none);
            if let Some(free) = free.filter(|_| kept.bytes.saturating_add(bytes) <= MOST_BYTES) {
                return Some(free);
            }
            steps = steps.checked_sub(1)?;
            let index = kept.hand;
            kept.hand = (index + 1) % MOST;
            let was_used =
                self.records.get(index).is_some_and(|record| record.used.swap(false, Ordering::Relaxed));
            if !was_used && kept.entries.get(index).is_some_and(Option::is_some) {
                self.begin_leaving(kept, index, EVICTED | self.second_after(Some(EVICTED_FOR)));
                kept.finish_leaving(index, pins, gone);
            }
        }
    }

    fn begin_leaving(&self, kept: &mut Kept, index: usize, known: u32) {
        if let Some(Some(entry)) = kept.entries.get_mut(index)
            && !std::mem::replace(&mut entry.is_leaving, true)
            && self.word(entry.key).is_some_and(|word| (word.load() >> 32) as u32 == entry.key)
        {
            // Otherwise it is the word of the next region in that slot already.
            self.set_word(entry.key, known);
        }
    }

    fn word(&self, key: u32) -> Option<&SequentialU64> {
        self.words.get(slot_of(key))
    }

    fn set_word(&self, key: u32, known: u32) {
        if let Some(word) = self.word(key) {
            word.store(u64::from(key) << 32 | u64::from(known));
        }
    }

    /// The second, counted from [`Mappings::begin`], that a time from now ends in; `None`: never.
    fn second_after(&self, time: Option<Duration>) -> u32 {
        let Some(time) = time else { return SECONDS };
        u32::try_from((self.begin.elapsed() + time).as_secs() + 1)
            .map_or(SECONDS, |second| second.min(SECONDS))
    }
}

/// The time to within some milliseconds, without asking the hardware: a quarter of what the exact one costs.
fn coarse_now() -> Duration {
    Duration::try_from(clock_gettime(ClockId::MonotonicCoarse)).unwrap_or_default()
}

impl Kept {
    /// Where the region of `key` is mapped.
    fn place_of(&self, key: u32) -> Option<usize> {
        let is_it = |entry: &Entry| entry.key == key && !entry.is_leaving;
        self.entries.iter().position(|entry| entry.as_ref().is_some_and(is_it))
    }

    /// Takes out what is leaving, if nothing uses it.
    fn finish_leaving(
        &mut self,
        index: usize,
        pins: &SharedArray<SequentialU32>,
        gone: &mut Vec<FileMapping>,
    ) {
        let is_over = |entry: &Entry| {
            let count = pins.get(slot_of(entry.key)).map_or(0, |count| count.load());
            entry.is_leaving && count == 0
        };
        let Some(place) = self.entries.get_mut(index) else { return };
        if let Some(entry) = place.take_if(|entry| is_over(entry)) {
            self.bytes -= entry.mapping.size();
            gone.push(entry.mapping);
        }
    }
}

impl Record {
    fn describe(&self, mapping: &FileMapping) {
        self.base.store(mapping.region.base, Ordering::Relaxed);
        self.length.store(mapping.region.length, Ordering::Relaxed);
        self.start.store(mapping.start, Ordering::Relaxed);
        self.is_own.store(mapping.region.is_own, Ordering::Relaxed);
        self.is_writable.store(mapping.region.writable, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
    }

    /// Where a range of the region lies here. The range was checked against the peer's table, which may have changed since the
    /// region was mapped, if the peer does not keep to the rules: so it is checked again. `None`: it does not lie in the mapping, or
    /// may not be written there.
    fn place(&self, address: u64, length: u64, opcode: Opcode) -> Option<CheckedRange> {
        let offset = address.checked_sub(self.base.load(Ordering::Relaxed))?;
        let end = offset.checked_add(length)?;
        let is_allowed = opcode == Opcode::Read || self.is_writable.load(Ordering::Relaxed);
        if end > self.length.load(Ordering::Relaxed) || !is_allowed {
            return None;
        }
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(CheckedRange {
            space: AddressSpace::Mapped,
            address: self.start.load(Ordering::Relaxed) + offset,
            cannot_fault: self.is_own.load(Ordering::Relaxed),
        })
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
mod models;
#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
mod tests;
