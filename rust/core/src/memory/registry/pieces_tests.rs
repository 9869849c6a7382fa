//! Regions larger than the device can register at once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::fabric::{Access, Backing};
use crate::memory::limited_device::LimitedDevice;
use crate::memory::{MemoryKind, Registry, RegistryError, has_gpu_regions, region_in_process};

fn kernel_page() -> u64 {
    page_size() as u64
}

fn range(address: u64, length: u64) -> MemoryRange {
    MemoryRange {
        address,
        length,
        access: Access::FULL,
        dma_buf: Some(DmaBuf { fd: 7, offset: 1 << 20 }),
        file: None,
        cpu_address: Some(address + (1 << 40)),
        backing: Backing::Unknown,
        announced: true,
    }
}

fn pieces_of(range: &MemoryRange, largest: u64) -> Vec<MemoryRange> {
    let mut pieces = Vec::new();
    cut(range, largest, "test0", 0, &mut pieces).unwrap();
    pieces
}

fn register_all(device: &dyn Device, ranges: &[MemoryRange]) -> Result<Segments, FabricError> {
    let mut pieces = Pieces::on(device);
    pieces.add(ranges)?;
    pieces.finish()
}

fn memory(pages: u64) -> (Vec<u8>, u64) {
    let memory = vec![0_u8; ((pages + 1) * kernel_page()) as usize];
    let start = (memory.as_ptr().expose_provenance() as u64).next_multiple_of(kernel_page());
    (memory, start)
}

proptest::proptest! {
    /// Pieces follow each other, are no longer than allowed, and are cut at pages; each names its part of the dma-buf.
    #[test]
    fn pieces_tile_the_range(
        start in 1u64..(1 << 30), length in 1u64..(64 << 20), largest in kernel_page()..(32 << 20),
    ) {
        let whole = range(start, length);
        let pieces = pieces_of(&whole, largest);
        let mut at = start;
        for piece in &pieces {
            assert_eq!(piece.address, at);
            assert!(piece.length > 0 && piece.length <= largest);
            assert_eq!(piece.dma_buf.unwrap().offset, (1 << 20) + (at - start));
            assert_eq!(piece.cpu_address, Some(at + (1 << 40)));
            assert!(at == start || at.is_multiple_of(if largest >= 2 * HUGE_PAGE { HUGE_PAGE } else { kernel_page() }));
            at += piece.length;
        }
        assert_eq!(at, start + length);
        assert!(length > largest || pieces.len() == 1);
    }
}

#[test]
fn a_range_of_too_many_pieces_is_refused() {
    let mut pieces = Vec::new();
    let error =
        cut(&range(kernel_page(), MOST_PIECES * kernel_page()), kernel_page(), "test0", 0, &mut pieces)
            .unwrap_err()
            .to_string();
    assert!(error.contains("65536 pieces") && error.contains("test0"), "{error}");
    // Together, too.
    let device = LimitedDevice::new(kernel_page());
    let half = MOST_PIECES / 2 + 1;
    let ranges =
        [range(kernel_page(), half * kernel_page()), range((1 + half) * kernel_page(), half * kernel_page())];
    let error = register_all(&device, &ranges).unwrap_err().to_string();
    assert!(error.contains("65536 pieces"), "{error}");
    let mut pieces = Vec::new();
    let error = cut(&ranges[0], kernel_page(), "test0", MOST_PIECES as usize / 2, &mut pieces).unwrap_err();
    assert!(error.to_string().contains("65536 pieces"), "{error}");
    // As many allocations, none of which is cut.
    let error =
        cut(&range(kernel_page(), 1), u64::MAX, "test0", MOST_PIECES as usize, &mut pieces).unwrap_err();
    assert!(error.to_string().contains("more than 65536 pieces"), "{error}");
    // A limit below a page is no limit to cut at: the device decides.
    assert_eq!(pieces_of(&range(kernel_page(), 1 << 40), 0).len(), 1);
}

#[test]
fn several_threads_register_the_pieces() {
    let (memory, start) = memory(32);
    let device =
        Arc::new(LimitedDevice { pause: Duration::from_millis(20), ..LimitedDevice::new(kernel_page()) });
    let state = device.state();
    let registry = Registry::new(device);
    let id = registry
        .register((start, 32 * kernel_page()), MemoryKind::Host, Access::FULL, true, None, None)
        .unwrap();
    assert_eq!(state.lock().unwrap().registered.len(), 32);
    // The threads of a busy machine may be late, but there are never more.
    let most = state.lock().unwrap().most;
    assert!((2..=THREADS).contains(&most), "{most}");
    let region = registry.remove(id).unwrap().unwrap();
    assert_eq!(region.segments().map(|segment| segment.length).sum::<u64>(), 32 * kernel_page());
    drop(memory);
}

#[test]
fn one_piece_is_registered_by_the_caller_alone() {
    let (memory, start) = memory(2);
    let device = Arc::new(LimitedDevice::new(2 * kernel_page()));
    let state = device.state();
    let registry = Registry::new(device);
    registry.register((start, 2 * kernel_page()), MemoryKind::Host, Access::FULL, true, None, None).unwrap();
    assert_eq!(state.lock().unwrap().most, 1);
    drop(memory);
}

#[test]
fn the_failure_of_one_piece_undoes_the_others() {
    let (memory, start) = memory(16);
    for failing in [0, 5, 15] {
        let fails_at = Some(start + failing * kernel_page());
        let device = Arc::new(LimitedDevice { fails_at, ..LimitedDevice::new(kernel_page()) });
        let state = device.state();
        let registry = Registry::new(device);
        let register = |pages| {
            registry.register(
                (start, pages * kernel_page()),
                MemoryKind::Host,
                Access::FULL,
                true,
                None,
                None,
            )
        };
        let error = register(16).unwrap_err();
        assert!(matches!(error, RegistryError::Fabric(_)), "{error}");
        assert!(state.lock().unwrap().registered.is_empty(), "{failing}");
        assert!(registry.snapshot().regions().is_empty());
        assert!(registry.announced().table().0.is_empty());
    }
    drop(memory);
}

/// One id, one entry of each segment for peers, and all of them end together.
#[test]
fn segments_are_announced_each_and_end_together() {
    let (memory, start) = memory(9);
    let device = Arc::new(LimitedDevice::new(3 * kernel_page()));
    let registry = Registry::new(device);
    let (address, length) = (start + 100, 8 * kernel_page());
    let register =
        || registry.register((address, length), MemoryKind::Host, Access::FULL, true, None, None).unwrap();
    let id = register();
    assert_eq!(register(), id, "the same range is the same region");
    let snapshot = registry.snapshot();
    let region = snapshot.by_id(id).unwrap();
    assert_eq!(region.segment_count(), 3);
    assert_eq!(snapshot.by_address(address, length).map(|region| region.id), Some(id));
    let (table, _) = registry.announced().table();
    let told: Vec<_> =
        table.iter().map(|entry| (entry.base, entry.size, entry.rkey, entry.continues)).collect();
    let segments = region.segments().enumerate();
    let expected: Vec<_> =
        segments.map(|(at, segment)| (segment.address, segment.length, segment.rkey, at > 0)).collect();
    assert_eq!(told, expected);
    assert_eq!(told.iter().map(|entry| entry.1).sum::<u64>(), length);
    // By the key of any of them all of the region is known in this process.
    for segment in region.segments() {
        let found = region_in_process(segment.rkey, address, length);
        assert_eq!(found.map(|found| found.kind), Some(MemoryKind::Host));
    }
    // A key for a range inside one segment, none across two.
    let boundary = region.segments().next().unwrap().end();
    for (at, size) in [(address, 100), (boundary - 100, 100), (boundary, 100)] {
        let key = region.segment_holding(at, size).map(|segment| segment.lkey);
        assert_eq!(
            (registry.host_key(Some(id), at, size, true), registry.host_key(None, at, size, true)),
            (key, key)
        );
        assert!(key.is_some());
    }
    assert_eq!(registry.host_key(Some(id), boundary - 50, 100, true), None);
    assert!(registry.remove(id).unwrap().is_none(), "another owner is left");
    assert_eq!(registry.announced().table().0.len(), 3);
    let keys: Vec<_> = region.segments().map(|segment| segment.rkey).collect();
    let region = registry.remove(id).unwrap().unwrap();
    assert!(registry.announced().table().0.is_empty() && region.hold().is_none());
    assert!(keys.iter().all(|key| region_in_process(*key, address, 1).is_none()));
    assert!(!has_gpu_regions());
    drop(memory);
}

/// Memory of several dma-bufs: each is a segment of its own, and cut where it is longer than allowed.
#[test]
fn a_list_of_ranges_becomes_one_region() {
    let (memory, start) = memory(8);
    let device = LimitedDevice::new(2 * kernel_page());
    let plain = |page: u64, pages: u64| MemoryRange {
        dma_buf: None,
        cpu_address: None,
        ..range(start + page * kernel_page(), pages * kernel_page())
    };
    let segments = register_all(&device, &[plain(0, 1), plain(1, 5), plain(6, 2)]).unwrap();
    let pages: Vec<_> = segments.iter().map(|segment| segment.length / kernel_page()).collect();
    assert_eq!(pages, [1, 2, 2, 1, 2]);
    assert!(register_all(&device, &[]).is_err());
    drop(memory);
}

#[test]
fn a_step_that_fails_undoes_those_before() {
    let (memory, start) = memory(8);
    let fails_at = Some(start + 5 * kernel_page());
    let device = LimitedDevice { fails_at, ..LimitedDevice::new(2 * kernel_page()) };
    let plain = |page: u64, pages: u64| MemoryRange {
        dma_buf: None,
        cpu_address: None,
        ..range(start + page * kernel_page(), pages * kernel_page())
    };
    let mut pieces = Pieces::on(&device);
    pieces.add(&[plain(0, 1), plain(1, 1)]).unwrap();
    pieces.add(&[plain(2, 1)]).unwrap();
    assert_eq!(device.state().lock().unwrap().registered.len(), 3);
    assert!(pieces.add(&[plain(3, 5)]).is_err());
    drop(pieces);
    assert!(device.state().lock().unwrap().registered.is_empty());
    drop(memory);
}

/// Its owner gives one key to peers.
#[test]
fn a_range_apart_is_of_one_segment_or_refused() {
    let (memory, start) = memory(5);
    let device = Arc::new(LimitedDevice::new(4 * kernel_page()));
    let state = device.state();
    let registry = Registry::new(device);
    let apart =
        |length| registry.register_apart((start, length), MemoryKind::Host, Access::FULL, false, None, None);
    assert!(apart(3 * kernel_page()).is_ok());
    let error = apart(4 * kernel_page() + 1).unwrap_err().to_string();
    assert!(error.contains("needs 2 registrations"), "{error}");
    assert_eq!(state.lock().unwrap().registered.len(), 1);
    drop(memory);
}
