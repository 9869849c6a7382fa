use super::*;
use proptest::prelude::*;

fn range(address: u64, length: u64, access: Access, backing: Backing) -> MemoryRange {
    MemoryRange {
        address,
        length,
        access,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing,
        announced: true,
    }
}

proptest! {
    #[test]
    fn keys_name_their_slot_and_are_never_zero(slot in 0..REGION_SLOTS, generation in 1..GENERATIONS) {
        let key = key_of(slot, generation);
        prop_assert_ne!(key, 0);
        prop_assert_eq!((slot_of(key), generation_of(key)), (slot, generation));
    }

    #[test]
    fn a_range_is_inside_exactly_when_arithmetic_says_so(base: u64, size in 1..=u64::MAX, address: u64, length: u64) {
        let entries = SharedArray::<RegionEntry>::private(4).unwrap();
        let pins = SharedArray::<SequentialU32>::private(4).unwrap();
        let key = key_of(2, 9);
        let access = Access { remote_write: false, ..Access::FULL };
        let announced = address & 1 == 1;
        let range = MemoryRange { announced, ..range(base, size, access, Backing::Anonymous) };
        entries.get(2).unwrap().publish(key, &range, false);
        let view = RegionView { entries: &entries, pins: &pins };
        let pinned = view.pin(key).unwrap();
        let (low, high) = (u128::from(address), u128::from(address) + u128::from(length));
        let inside = low >= u128::from(base) && high <= u128::from(base) + u128::from(size);
        prop_assert_eq!(pinned.check(address, length, Right::RemoteRead).is_ok(), inside);
        prop_assert_eq!(pinned.check(base, size, Right::RemoteWrite), Err(Violation::Range));
        prop_assert!(pinned.cannot_fault());
        prop_assert_eq!(pinned.is_announced(), announced);
    }
}

#[test]
fn a_pin_needs_the_exact_key_and_leaves_no_trace_when_refused() {
    let entries = SharedArray::<RegionEntry>::private(4).unwrap();
    let pins = SharedArray::<SequentialU32>::private(4).unwrap();
    let view = RegionView { entries: &entries, pins: &pins };
    let key = key_of(1, 1);
    let refused = |key| view.pin(key).is_err_and(|reason| reason == Violation::UnknownKey);
    assert!(refused(key));
    entries.get(1).unwrap().publish(key, &range(64, 64, Access::FULL, Backing::Unknown), false);
    assert!(refused(key_of(1, 2)) && refused(key_of(3, 1)) && refused(0));
    let pinned = view.pin(key).unwrap();
    assert!(!pinned.cannot_fault());
    assert_eq!(pins.get(1).unwrap().load(), 1);
    entries.get(1).unwrap().revoke();
    assert!(!pinned.is_live());
    drop(pinned);
    assert!((0..4).all(|slot| pins.get(slot).unwrap().load() == 0));
}
