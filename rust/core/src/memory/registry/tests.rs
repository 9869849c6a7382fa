//! Ids, rights and owners of registrations.

use super::*;
use crate::fabric::{SoftwareOptions, software};

#[test]
fn a_range_registered_apart_has_an_id_and_keys_of_its_own() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let registry = Registry::new(device);
    let memory = vec![0_u8; 4096];
    let start = memory.as_ptr().expose_provenance() as u64;
    let apart = |length| {
        registry.register_apart((start, length), MemoryKind::Host, Access::FULL, false, None, None).unwrap()
    };
    let shared =
        || registry.register((start, 4096), MemoryKind::Host, Access::FULL, true, None, None).unwrap();
    let (first, second, third) = (apart(4096), apart(4096), apart(100));
    let id = shared();
    assert_eq!(shared(), id);
    let snapshot = registry.snapshot();
    let keys: Vec<_> =
        [first, second, third, id].map(|id| snapshot.by_id(id).unwrap().rkey()).into_iter().collect();
    assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)), "{keys:?}");
    // Its end does not touch the others.
    for id in [first, third] {
        registry.remove(id).unwrap().unwrap();
        assert!(registry.remove(id).is_err());
    }
    assert_eq!(shared(), id);
    assert!(registry.snapshot().by_id(second).is_some());
}

/// One id for one range: a second registration must ask for the rights that it has.
#[test]
fn the_same_range_with_other_rights_is_refused() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let registry = Registry::new(device);
    let memory = vec![0_u8; 8192];
    let start = memory.as_ptr().expose_provenance() as u64;
    let constant: &'static [u8] = b"not writable, whatever is asked for";
    let constant = (constant.as_ptr().expose_provenance() as u64, constant.len() as u64);
    let register = |range, access| registry.register(range, MemoryKind::Host, access, true, None, None);
    for (page, first, then) in [(0, Access::FULL, Access::READ_ONLY), (1, Access::READ_ONLY, Access::FULL)] {
        let range = (start + 4096 * page, 4096);
        let id = register(range, first).unwrap();
        let error = register(range, then).unwrap_err();
        assert!(matches!(error, RegistryError::OtherRights { .. }), "{error}");
        assert!(error.to_string().contains("local read, "), "{error}");
        assert_eq!(register(range, first).unwrap(), id);
        // The refused one is no owner.
        assert!(registry.remove(id).unwrap().is_none() && registry.remove(id).unwrap().is_some());
        assert_ne!(register(range, then).unwrap(), id);
    }
    // Memory that is not writable gives the same rights to both.
    for (first, then) in [(Access::FULL, Access::READ_ONLY), (Access::READ_ONLY, Access::FULL)] {
        let id = register(constant, first).unwrap();
        assert_eq!(register(constant, then).unwrap(), id);
        assert_eq!(registry.snapshot().by_id(id).unwrap().access, Access::READ_ONLY);
        assert!(registry.remove(id).unwrap().is_none() && registry.remove(id).unwrap().is_some());
    }
}

#[test]
fn a_region_says_whether_all_of_it_is_anonymous() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let registry = Registry::new(device);
    let (heap, constant) = (vec![0_u8; 64], "in the program's file");
    let anonymous = |bytes: &[u8]| {
        let range = (bytes.as_ptr().expose_provenance() as u64, bytes.len() as u64);
        let id = registry.register(range, MemoryKind::Host, Access::FULL, true, None, None).unwrap();
        registry.snapshot().by_id(id).unwrap().anonymous
    };
    assert!(anonymous(&heap) && !anonymous(constant.as_bytes()));
}

/// What a thread remembers of its last look-up is not used after a change, nor by another registry.
#[test]
fn the_key_of_host_memory_is_that_of_the_regions_as_they_are() {
    let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let (registry, other) = (Registry::new(Arc::clone(&device)), Registry::new(device));
    let memory = vec![0_u8; 8192];
    let start = memory.as_ptr().expose_provenance() as u64;
    let register = |registry: &Registry, offset, length, access| {
        let range = (start + offset, length);
        registry.register_apart(range, MemoryKind::Host, access, true, None, None).unwrap()
    };
    let key_of = |id| registry.snapshot().by_id(id).map(|region| region.lkey());
    let wide = register(&registry, 0, 8192, Access::FULL);
    let by_address = |offset, length| registry.host_key(None, start + offset, length, true);
    assert_eq!(by_address(4096, 4096), key_of(wide));
    assert_eq!(by_address(4096, 4096), key_of(wide), "and again");
    assert_eq!(by_address(4096, 4097), None);
    assert_eq!(registry.host_key(Some(wide), start, 1, true), key_of(wide));
    assert_eq!(registry.host_key(Some(wide), start - 1, 1, true), None);
    assert_eq!(other.host_key(Some(wide), start, 1, true), None);
    assert_eq!(other.host_key(None, start, 1, true), None);
    // The innermost one, as everywhere.
    let narrow = register(&registry, 4096, 64, Access::READ_ONLY);
    assert_eq!(registry.host_key(None, start + 4096, 64, false), key_of(narrow));
    assert_eq!(by_address(4096, 64), None, "it is for reading only");
    assert_eq!(by_address(4096, 65), key_of(wide));
    assert_eq!(registry.host_key(Some(narrow), start, 1, false), None, "it is in another one");
    for id in [narrow, wide] {
        let key = key_of(id);
        assert_eq!(registry.host_key(Some(id), start + 4096, 64, false), key);
        registry.remove(id).unwrap().unwrap();
        assert_eq!(registry.host_key(Some(id), start + 4096, 64, false), None);
    }
    assert_eq!(registry.host_key(None, start, 1, false), None);
}
