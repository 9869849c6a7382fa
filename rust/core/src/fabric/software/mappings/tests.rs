#![allow(unsafe_code, reason = "writes to mapped memory")]

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::*;
use crate::fabric::software::file_mapping::Wanted;
use crate::fabric::software::table::{RegionEntry, RegionView, key_of};
use crate::fabric::{Access, Backing, MemoryRange};

const LENGTH: u64 = 4096;
const BASE: u64 = 1 << 40;

/// A peer's table as this process sees it, with its pins.
struct Table {
    entries: SharedArray<RegionEntry>,
    pins: SharedArray<SequentialU32>,
}

impl Table {
    fn new() -> Self {
        let entries = SharedArray::private(REGION_SLOTS).unwrap();
        Self { entries, pins: SharedArray::private(REGION_SLOTS).unwrap() }
    }

    fn region(&self, slot: usize, generation: u32) -> Pinned<'_> {
        let key = key_of(slot, generation);
        let range = MemoryRange {
            address: BASE,
            length: LENGTH,
            access: Access::FULL,
            dma_buf: None,
            file: None,
            cpu_address: None,
            backing: Backing::Mapped,
            announced: true,
        };
        self.entries.get(slot).unwrap().publish(key, &range, true);
        RegionView { entries: &self.entries, pins: &self.pins }.pin(key).unwrap()
    }

    fn end(&self, slot: usize) {
        self.entries.get(slot).unwrap().revoke();
    }

    fn is_live(&self, key: u32) -> bool {
        self.entries.get(slot_of(key)).unwrap().is_of(key)
    }
}

fn mapping(length: u64, writable: bool) -> FileMapping {
    let file: OwnedFd = memfd_create("region", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, length).unwrap();
    let wanted = Wanted { base: BASE, length, offset: 0, is_own: false, writable };
    FileMapping::make(&file, wanted).unwrap()
}

/// So many bytes in whole pages.
fn whole(bytes: u64) -> u64 {
    bytes.next_multiple_of(rustix::param::page_size() as u64)
}

fn is_mapped(mappings: &Mappings, pinned: &Pinned<'_>) -> bool {
    matches!(mappings.find(pinned, BASE, 1, Opcode::Write), Known::Mapped(_))
}

fn unmappable(passes: bool) -> Unmappable {
    Unmappable { reason: "full".to_owned(), passes }
}

#[test]
fn a_range_is_found_where_it_is_mapped_and_nowhere_else() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let pinned = table.region(7, 1);
    assert_eq!(mappings.find(&pinned, BASE, 1, Opcode::Read), Known::Nothing);
    let made = mapping(LENGTH, false);
    let start = made.start;
    mappings.insert(&pinned, made, &table.pins).unwrap();
    let found = |address, length, opcode| mappings.find(&pinned, address, length, opcode);
    let place = CheckedRange { space: AddressSpace::Mapped, address: start + 100, cannot_fault: false };
    assert_eq!(found(BASE + 100, LENGTH - 100, Opcode::Read), Known::Mapped(place));
    assert_eq!(found(BASE + 100, LENGTH - 99, Opcode::Read), Known::Refused, "beyond its end");
    assert_eq!(found(BASE - 1, 1, Opcode::Read), Known::Refused, "before it");
    assert_eq!(found(BASE, u64::MAX, Opcode::Read), Known::Refused);
    assert_eq!(found(BASE, 1, Opcode::Write), Known::Refused, "mapped for reading only");
}

#[test]
fn a_new_region_in_the_same_slot_is_not_taken_for_the_former_one() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let former = table.region(7, 1);
    mappings.insert(&former, mapping(LENGTH, true), &table.pins).unwrap();
    table.end(7);
    let new = table.region(7, 2);
    assert_eq!(mappings.find(&new, BASE, 1, Opcode::Write), Known::Nothing);
    mappings.insert(&new, mapping(LENGTH, true), &table.pins).unwrap();
    assert!(is_mapped(&mappings, &new) && !is_mapped(&mappings, &former));
    mappings.sweep(|key| table.is_live(key), &table.pins);
    assert!(is_mapped(&mappings, &new), "the end of the former one is not its own");
}

/// Two questions for one region may be under way.
#[test]
fn what_is_mapped_stays_so_whatever_a_second_answer_says() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let pinned = table.region(7, 1);
    mappings.insert(&pinned, mapping(LENGTH, true), &table.pins).unwrap();
    assert!(!mappings.refuse(pinned.key(), &unmappable(false)));
    mappings.insert(&pinned, mapping(LENGTH, true), &table.pins).unwrap();
    assert!(is_mapped(&mappings, &pinned));
    assert_eq!(lock(&mappings.kept).bytes, whole(LENGTH));
}

/// Threads write to what they find while another one maps and unmaps it: a byte of an unmapped page would end the process.
#[test]
fn no_copy_meets_an_unmapped_page() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let key = table.region(7, 1).key();
    let (stop, found) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut unmapped_in_all = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let view = RegionView { entries: &table.entries, pins: &table.pins };
                    let pinned = view.pin(key).unwrap();
                    if let Known::Mapped(place) = mappings.find(&pinned, BASE, LENGTH, Opcode::Write) {
                        // SAFETY: mapped until the pin is dropped, which is what is tested.
                        unsafe { std::ptr::write_bytes(place.address as *mut u8, 1, LENGTH as usize) };
                        found.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(pinned);
                    std::thread::yield_now();
                }
            });
        }
        let begun = Instant::now();
        let mut unmapped = 0;
        let is_over = |time: Duration| {
            let is_busy = found.load(Ordering::Relaxed) == 0 && time < Duration::from_secs(10);
            time >= Duration::from_millis(200) && !is_busy
        };
        while !is_over(begun.elapsed()) {
            let view = RegionView { entries: &table.entries, pins: &table.pins };
            let pinned = view.pin(key).unwrap();
            // Refused while as many wait for the end of a copy as the cache holds.
            let _ = mappings.insert(&pinned, mapping(LENGTH, true), &table.pins);
            drop(pinned);
            // The others may have no core of their own.
            std::thread::yield_now();
            unmapped += mappings.sweep(|_| false, &table.pins).0.len();
        }
        stop.store(true, Ordering::Relaxed);
        unmapped_in_all = unmapped;
    });
    assert!(unmapped_in_all > 0);
    assert!(found.load(Ordering::Relaxed) > 0);
}

#[test]
fn an_ended_region_is_unmapped_once_no_copy_uses_it() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let pinned = table.region(7, 1);
    mappings.insert(&pinned, mapping(LENGTH, true), &table.pins).unwrap();
    let sweep = || {
        let (gone, is_left) = mappings.sweep(|key| table.is_live(key), &table.pins);
        (gone.len(), is_left)
    };
    assert_eq!(sweep(), (0, true), "it has not ended");
    table.end(7);
    assert_eq!(sweep(), (0, true), "it is pinned");
    assert!(!is_mapped(&mappings, &pinned), "no further copy finds it");
    drop(pinned);
    assert_eq!(sweep(), (1, false));
}

#[test]
fn a_full_cache_gives_up_what_was_not_used_for_longest_and_not_what_is_pinned() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let held = table.region(0, 1);
    mappings.insert(&held, mapping(LENGTH, true), &table.pins).unwrap();
    for slot in 1..MOST {
        mappings.insert(&table.region(slot, 1), mapping(LENGTH, true), &table.pins).unwrap();
    }
    // The hand goes round once and clears what is used; then one is used again.
    mappings.insert(&table.region(MOST, 1), mapping(LENGTH, true), &table.pins).unwrap();
    let used = table.region(9, 1);
    assert!(is_mapped(&mappings, &used));
    drop(used);
    for slot in MOST + 1..MOST + 20 {
        mappings.insert(&table.region(slot, 1), mapping(LENGTH, true), &table.pins).unwrap();
    }
    let known = |slot| mappings.find(&table.region(slot, 1), BASE, 1, Opcode::Write);
    assert!(matches!(known(9), Known::Mapped(_)), "it has been used");
    assert!((10..20).all(|slot| matches!(known(slot), Known::Evicted(_))), "they have not");
    assert!((MOST..MOST + 20).all(|slot| matches!(known(slot), Known::Mapped(_))));
    assert_eq!(lock(&mappings.kept).entries.iter().flatten().count(), MOST);
    assert_eq!(lock(&mappings.kept).bytes, MOST as u64 * whole(LENGTH));
    let first = lock(&mappings.kept)
        .entries
        .iter()
        .flatten()
        .find(|entry| entry.key == held.key())
        .unwrap()
        .is_leaving;
    assert!(first, "unmapped only when its copy has ended");
}

/// The address space is bounded as well; sparse files cost nothing else.
#[test]
fn large_mappings_push_others_out_and_too_large_ones_are_refused() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let half = MOST_BYTES / 2;
    for slot in 0..3 {
        mappings.insert(&table.region(slot, 1), mapping(half, true), &table.pins).unwrap();
    }
    assert_eq!(lock(&mappings.kept).bytes, MOST_BYTES);
    let too_large = mapping(MOST_BYTES + 1, true);
    assert!(!mappings.insert(&table.region(3, 1), too_large, &table.pins).unwrap_err().passes);
    assert_eq!(lock(&mappings.kept).bytes, MOST_BYTES, "nothing has gone for it");
}

#[test]
fn a_refusal_holds_for_its_time_and_is_told_once() {
    let (table, mappings) = (Table::new(), Mappings::new().unwrap());
    let pinned = table.region(7, 1);
    assert!(mappings.refuse(pinned.key(), &unmappable(false)));
    assert!(!mappings.refuse(pinned.key(), &unmappable(true)), "the same reason");
    assert_eq!(mappings.find(&pinned, BASE, 1, Opcode::Read), Known::Refused);
    assert_eq!(mappings.reason(pinned.key()).as_deref(), Some("full"));
    assert_eq!(mappings.held_off(REFUSED), Known::Nothing, "its second has passed");
    let later = mappings.second_after(Some(EXHAUSTED_FOR));
    assert_eq!(mappings.held_off(REFUSED | later), Known::Refused);
    assert!(matches!(mappings.held_off(EVICTED | 3600), Known::Evicted(_)));
}
