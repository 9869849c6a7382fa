//! The table between two processes, under every order of events: a thread of the peer beside its owner.
#![allow(clippy::unwrap_used, reason = "tests")]

use loom::cell::UnsafeCell;

use super::*;
use crate::sync::{Arc, AtomicBool};

const SLOT: usize = 1;

/// Sixteen bytes at `address`.
pub(in crate::fabric::software) fn range(address: u64) -> MemoryRange {
    MemoryRange {
        address,
        length: 16,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Mapped,
        announced: true,
    }
}

/// Memory of which loom reports accesses that nothing orders.
#[derive(Default)]
pub(in crate::fabric::software) struct Memory(UnsafeCell<()>);

// SAFETY: loom reports what two threads would do at a time.
unsafe impl Sync for Memory {}

impl Memory {
    pub(in crate::fabric::software) fn read(&self) {
        self.0.with(|_| ());
    }

    pub(in crate::fabric::software) fn write(&self) {
        self.0.with_mut(|_| ());
    }
}

struct Table {
    entries: SharedArray<RegionEntry>,
    pins: SharedArray<SequentialU32>,
    memory: Memory,
    /// A byte of the memory, for a model of what is read from it in vain.
    byte: AtomicU32,
}

impl Table {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            entries: SharedArray::private(REGION_SLOTS).unwrap(),
            pins: SharedArray::private(REGION_SLOTS).unwrap(),
            memory: Memory::default(),
            byte: AtomicU32::new(0),
        })
    }

    fn entry(&self) -> &RegionEntry {
        self.entries.get(SLOT).unwrap()
    }

    fn pin(&self, key: u32) -> Option<Pinned<'_>> {
        RegionView { entries: &self.entries, pins: &self.pins }.pin(key).ok()
    }

    fn is_pinned(&self) -> bool {
        self.pins.get(SLOT).unwrap().load() != 0
    }
}

/// A region ends, and its slot serves another one, while a peer copies: the memory is taken back only when no thread has it, and
/// no thread takes one region for the other.
#[test]
fn memory_is_taken_back_only_when_no_thread_has_it() {
    loom::model(|| {
        let (table, keys) = (Table::new(), [key_of(SLOT, 1), key_of(SLOT, 2)]);
        table.entry().publish(keys[0], &range(0x1000), false);
        let peer = {
            let table = table.clone();
            loom::thread::spawn(move || {
                for (key, address) in [(keys[0], 0x1000), (keys[1], 0x2000)] {
                    if let Some(pinned) = table.pin(key) {
                        assert_eq!(pinned.range(), (address, 16));
                        table.memory.read();
                    }
                }
            })
        };
        table.entry().revoke();
        if !table.is_pinned() {
            table.memory.write();
            table.entry().publish(keys[1], &range(0x2000), false);
        }
        peer.join().unwrap();
    });
}

/// An owner that has waited for a pin in vain writes to the memory: a copy that has read that is not taken for a good one.
#[test]
fn a_copy_that_came_too_late_is_noticed() {
    loom::model(|| {
        let (table, key) = (Table::new(), key_of(SLOT, 1));
        table.entry().publish(key, &range(0x1000), false);
        let peer = {
            let table = table.clone();
            loom::thread::spawn(move || {
                let Some(pinned) = table.pin(key) else { return };
                let byte = table.byte.load(Ordering::Relaxed);
                end_of_copy();
                if pinned.is_live() {
                    assert_eq!(byte, 0);
                }
            })
        };
        table.entry().revoke();
        table.byte.store(1, Ordering::Relaxed);
        peer.join().unwrap();
    });
}

/// The slot of a queue pair that is destroyed serves the next one: each peer sees its own counterpart, or that it is gone.
#[test]
fn a_slot_of_queue_pairs_is_not_taken_for_another() {
    loom::model(|| {
        let entry = Arc::new((QueuePairEntry::default(), AtomicBool::new(false)));
        entry.0.acquire(1);
        entry.0.connect(7);
        let peers = [
            {
                let entry = entry.clone();
                loom::thread::spawn(move || assert_ne!(entry.0.counterpart(1, 7), Counterpart::NotYet))
            },
            {
                let entry = entry.clone();
                loom::thread::spawn(move || {
                    // The hello's answer names a queue pair that is there.
                    if entry.1.load(Ordering::Acquire) {
                        assert_ne!(entry.0.counterpart(2, 8), Counterpart::Gone);
                    }
                })
            },
        ];
        entry.0.mark_broken();
        entry.0.release();
        entry.0.acquire(2);
        entry.1.store(true, Ordering::Release);
        entry.0.connect(8);
        peers.into_iter().for_each(|peer| peer.join().unwrap());
    });
}
