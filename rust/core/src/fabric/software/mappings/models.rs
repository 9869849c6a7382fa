//! A mapping is taken away while a thread copies, under every order of events. There is one place for mappings here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::fabric::software::file_mapping::Wanted;
use crate::fabric::software::table::models::{Memory, range};
use crate::fabric::software::table::{RegionEntry, RegionView, key_of};
use crate::sync::Arc;

const LENGTH: u64 = 16;
const BASES: [u64; 2] = [0x1000, 0x2000];

struct Link {
    entries: SharedArray<RegionEntry>,
    pins: SharedArray<SequentialU32>,
    mappings: Mappings,
    /// What the first mapping shows.
    memory: Memory,
}

impl Link {
    fn new() -> Arc<Self> {
        let link = Self {
            entries: SharedArray::private(REGION_SLOTS).unwrap(),
            pins: SharedArray::private(REGION_SLOTS).unwrap(),
            mappings: Mappings::new().unwrap(),
            memory: Memory::default(),
        };
        for (slot, base) in BASES.into_iter().enumerate() {
            link.entries.get(slot).unwrap().publish(key_of(slot, 1), &range(base), true);
        }
        Arc::new(link)
    }

    fn pin(&self, slot: usize) -> Pinned<'_> {
        RegionView { entries: &self.entries, pins: &self.pins }.pin(key_of(slot, 1)).unwrap()
    }
}

fn mapping(slot: usize) -> FileMapping {
    let file: OwnedFd = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LENGTH).unwrap();
    let wanted = Wanted { base: BASES[slot], length: LENGTH, offset: 0, is_own: false, writable: true };
    FileMapping::make(&file, wanted).unwrap()
}

/// A thread finds the first region's mapping while that goes and the second one's takes its place: it has the memory of the
/// region that it has asked for, until it has copied.
#[test]
fn a_mapping_goes_only_when_no_thread_has_it() {
    let mut model = loom::model::Builder::new();
    // All orders in which threads are interrupted at most three times.
    model.preemption_bound = Some(3);
    model.check(|| {
        let link = Link::new();
        let first = mapping(0);
        let start = first.start;
        {
            let pinned = link.pin(0);
            link.mappings.insert(&pinned, first, &link.pins).unwrap();
        }
        let copies = {
            let link = link.clone();
            loom::thread::spawn(move || {
                let pinned = link.pin(0);
                if let Known::Mapped(place) = link.mappings.find(&pinned, BASES[0], LENGTH, Opcode::Read) {
                    assert_eq!(place.address, start);
                    link.memory.read();
                }
            })
        };
        let (gone, _) = link.mappings.sweep(|_| false, &link.pins);
        if !gone.is_empty() {
            link.memory.write();
            let pinned = link.pin(1);
            link.mappings.insert(&pinned, mapping(1), &link.pins).unwrap();
        }
        // Still mapped, so that the place of the second one is another.
        drop(gone);
        copies.join().unwrap();
    });
}
