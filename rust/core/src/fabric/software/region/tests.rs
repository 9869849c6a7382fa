use super::*;
use crate::sync::SequentialU32;
use std::os::fd::AsRawFd;

use crate::fabric::software::table::Right;
use crate::fabric::{Access, SharedFile};

fn range(buffer: &[u8]) -> MemoryRange {
    let address = buffer.as_ptr() as u64;
    MemoryRange {
        address,
        length: buffer.len() as u64,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Unknown,
        announced: true,
    }
}

#[test]
fn revoking_waits_for_pins_and_names_the_process_that_holds_them() {
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
    let (pins, file) = SharedArray::<SequentialU32>::published("pins", REGION_SLOTS).unwrap();
    let (peer, _) = table.add_peer(4711, file.as_fd()).unwrap();
    let pin = RegionView { entries: &table.shared, pins: &pins }.pin(region.rkey()).unwrap();
    let error = region.revoke(Instant::now()).unwrap_err().to_string();
    assert!(error.contains("process 4711"), "{error}");
    table.remove_peer(&peer);
    region.revoke(Instant::now()).unwrap();
    drop(pin);
}

/// Pins that are never given back cost the patience of one region, and its slot until they are.
#[test]
fn a_peer_that_was_late_is_not_waited_for_again() {
    let table = Arc::new(RegionTable::new("sw0").unwrap());
    let buffer = vec![0_u8; 128];
    let (pins, file) = SharedArray::<SequentialU32>::published("pins", REGION_SLOTS).unwrap();
    let regions: Vec<_> = (0..50).map(|_| table.register(&range(&buffer)).unwrap()).collect();
    let pinned = |count| regions.iter().for_each(|region| pins.get(region.slot).unwrap().store(count));
    pinned(1);
    let (mut peer, _) = table.add_peer(4711, file.as_fd()).unwrap();
    let begun = Instant::now();
    for (number, region) in regions.iter().enumerate() {
        assert!(region.revoke(Instant::now() + LATE + Duration::from_millis(100)).is_err());
        if number == 20 {
            // Another link of the process changes nothing.
            let (next, _) = table.add_peer(4711, file.as_fd()).unwrap();
            table.remove_peer(&std::mem::replace(&mut peer, next));
        }
    }
    assert!(begun.elapsed() < LATE * 4, "{:?}", begun.elapsed());
    // A second process that has not been late has its time.
    let (others, file) = SharedArray::<SequentialU32>::published("pins", REGION_SLOTS).unwrap();
    let (other, _) = table.add_peer(4712, file.as_fd()).unwrap();
    let region = table.register(&range(&buffer)).unwrap();
    let pin = RegionView { entries: &table.entries, pins: &others }.pin(region.rkey()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(100));
            drop(pin);
        });
        region.revoke(begun + LATE * 20).unwrap();
    });
    table.remove_peer(&other);
    assert_eq!(lock(&table.slots).pinned.len(), 0);
    pinned(1);
    let count = regions.len();
    let slots = |table: &RegionTable| {
        let slots = lock(&table.slots);
        (slots.pinned.len(), slots.keys.live())
    };
    drop(regions);
    assert_eq!(slots(&table), (count, count), "a slot that is pinned is not used again");
    table.remove_peer(&peer);
    assert_eq!(slots(&table), (0, 0), "it is once its process is gone");
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
        let (pins, file) = SharedArray::<SequentialU32>::published("pins", REGION_SLOTS).unwrap();
        let (peer, grants) = table.add_peer(pid, file.as_fd()).unwrap();
        (peer, pins, SharedArray::<RegionEntry>::open(grants.as_fd(), REGION_SLOTS).unwrap())
    });
    let [first, second] = &peers;
    let pin = |peer: &(_, SharedArray<SequentialU32>, _)| {
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
fn the_file_of_a_region_is_given_to_a_peer_that_sees_the_region_until_it_ends() {
    let table = Arc::new(RegionTable::new("sw0").unwrap());
    let (_pins, pins_file) = SharedArray::<SequentialU32>::published("pins", REGION_SLOTS).unwrap();
    let (peer, _grants) = table.add_peer(1, pins_file.as_fd()).unwrap();
    let buffer = vec![0_u8; 128];
    let memfd = rustix::fs::memfd_create("region", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memfd, 1 << 20).unwrap();
    // At the same place of a page as the buffer.
    let page = rustix::param::page_size() as u64;
    let offset = page + buffer.as_ptr() as u64 % page;
    let file = Some(SharedFile { fd: memfd.as_raw_fd(), offset, is_own: true });
    let shared = MemoryRange { file, backing: Backing::Mapped, ..range(&buffer) };
    let announced = table.register(&shared).unwrap();
    let hidden = table.register(&MemoryRange { announced: false, ..shared }).unwrap();
    let plain = table.register(&range(&buffer)).unwrap();
    let given = |region: &TableRegion| table.file_for(&peer, region.rkey()).map(|file| file.offset);
    assert_eq!(given(&announced), Some(offset));
    assert_eq!((given(&hidden), given(&plain)), (None, None));
    assert!(table.grant(&peer, hidden.rkey()));
    assert_eq!(given(&hidden), Some(offset));
    let pin = |region: &TableRegion| table.view().pin(region.rkey()).unwrap();
    assert!(pin(&announced).is_mappable() && pin(&announced).cannot_fault() && !pin(&plain).is_mappable());
    announced.close();
    assert_eq!(given(&announced), None);
    assert_eq!(lock(&table.files).len(), 1);
    drop(hidden);
    assert!(lock(&table.files).is_empty(), "its descriptor is closed with it");
}

/// As a pool is registered block by block.
#[test]
fn regions_of_one_file_share_a_descriptor() {
    let table = Arc::new(RegionTable::new("sw0").unwrap());
    let memfd = rustix::fs::memfd_create("one-for-all-regions", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&memfd, 1 << 20).unwrap();
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| entry.unwrap().path().read_link().ok());
        links.filter(|link| link.to_string_lossy().contains("one-for-all-regions")).count()
    };
    let register = |block: u64| {
        let file = Some(SharedFile { fd: memfd.as_raw_fd(), offset: block * 4096, is_own: false });
        let range = MemoryRange { file, backing: Backing::Mapped, ..range(&[]) };
        table.register(&MemoryRange { address: (1 << 40) + block * 4096, length: 4096, ..range }).unwrap()
    };
    let blocks: Vec<_> = (0..256).map(register).collect();
    assert_eq!(open(), 2, "that of this test and one more");
    drop(blocks);
    assert_eq!(open(), 1);
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
    let file = Some(SharedFile { fd: -1, offset: 0, is_own: false });
    assert_eq!(errno(&MemoryRange { file, ..range(&buffer) }), libc::EBADF);
}
