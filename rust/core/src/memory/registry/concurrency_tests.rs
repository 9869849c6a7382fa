//! Registrations at the same time, on a device that takes as long as a test says.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;

use super::*;
use crate::fabric::{DeviceAttributes, FabricError, MemoryRange, MemoryRegion, SoftwareOptions, software};
use crate::memory::delegating_device::delegate_to_inner;

/// The software device; each registration passes `gate` before it begins.
#[derive(Debug)]
struct Gated {
    inner: Arc<dyn Device>,
    gate: Gate,
    calls: AtomicUsize,
}

#[derive(Debug)]
enum Gate {
    /// So many registrations begin together.
    Together(Barrier),
    /// The first one begins when told, and fails if told so.
    FirstWaits { may_begin: Barrier, has_come: Barrier, fails: bool },
    /// Each takes a moment, and at most one of each start is under way.
    OneOfEachStart { under_way: Mutex<Vec<u64>>, overlapped: AtomicBool },
}

fn gated(gate: Gate) -> (Arc<Gated>, Registry) {
    let inner = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let device = Arc::new(Gated { inner, gate, calls: AtomicUsize::new(0) });
    (Arc::clone(&device), Registry::new(device))
}

impl Device for Gated {
    fn attributes(&self) -> &DeviceAttributes {
        self.inner.attributes()
    }
    delegate_to_inner!();
    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        let is_first = self.calls.fetch_add(1, Ordering::SeqCst) == 0;
        match &self.gate {
            Gate::Together(barrier) => drop(barrier.wait()),
            Gate::FirstWaits { may_begin, has_come, fails } if is_first => {
                has_come.wait();
                may_begin.wait();
                if *fails {
                    return Err(FabricError::call("register memory", "gated", libc::ENOMEM));
                }
            }
            Gate::FirstWaits { .. } => {}
            Gate::OneOfEachStart { under_way, overlapped } => {
                let mut starts = under_way.lock().unwrap();
                assert!(!starts.contains(&range.address), "a range is registered twice at a time");
                overlapped.fetch_or(!starts.is_empty(), Ordering::SeqCst);
                starts.push(range.address);
                drop(starts);
                thread::yield_now();
                let region = self.inner.register(range);
                under_way.lock().unwrap().retain(|start| *start != range.address);
                return region;
            }
        }
        self.inner.register(range)
    }
}

/// Pages of 64 bytes, each to be registered by itself.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        Self(vec![0; 8 * 64])
    }

    fn register(&self, registry: &Registry, index: u64) -> Result<RegionId, RegistryError> {
        let start = self.0.as_ptr().expose_provenance() as u64;
        registry.register((start + 64 * index, 64), MemoryKind::Host, Access::FULL, true, None, None)
    }
}

fn first_waits(fails: bool) -> Gate {
    Gate::FirstWaits { may_begin: Barrier::new(2), has_come: Barrier::new(2), fails }
}

fn gates(device: &Gated) -> (&Barrier, &Barrier) {
    let Gate::FirstWaits { may_begin, has_come, .. } = &device.gate else { unreachable!() };
    (may_begin, has_come)
}

/// A device that waits for four registrations before it begins with one: one after the other, none would ever end.
#[test]
fn different_ranges_are_registered_at_the_same_time() {
    let (_device, registry) = gated(Gate::Together(Barrier::new(4)));
    let memory = Memory::new();
    thread::scope(|scope| {
        for index in 0..4 {
            let (registry, memory) = (&registry, &memory);
            scope.spawn(move || memory.register(registry, index).unwrap());
        }
    });
    assert_eq!(registry.snapshot().regions().len(), 4);
}

#[test]
fn look_ups_and_deregistrations_do_not_wait_for_a_registration() {
    let (device, registry) = gated(first_waits(false));
    let (may_begin, has_come) = gates(&device);
    let memory = Memory::new();
    thread::scope(|scope| {
        let slow = scope.spawn(|| memory.register(&registry, 0).unwrap());
        has_come.wait();
        let id = memory.register(&registry, 1).unwrap();
        assert!(registry.snapshot().by_id(id).is_some());
        assert!(registry.remove(id).unwrap().is_some());
        may_begin.wait();
        let id = slow.join().unwrap();
        assert!(registry.snapshot().by_id(id).is_some());
    });
}

#[test]
fn the_same_range_waits_for_its_registration_and_shares_the_id() {
    let (device, registry) = gated(first_waits(false));
    let (may_begin, has_come) = gates(&device);
    let memory = Memory::new();
    let register = || memory.register(&registry, 0).unwrap();
    let ids = thread::scope(|scope| {
        let first = scope.spawn(register);
        has_come.wait();
        let others = [scope.spawn(register), scope.spawn(register)];
        thread::sleep(Duration::from_millis(20));
        assert!(others.iter().all(|other| !other.is_finished()));
        may_begin.wait();
        let others = others.map(|other| other.join().unwrap());
        [first.join().unwrap(), others[0], others[1]]
    });
    assert_eq!((ids[0], ids[0]), (ids[1], ids[2]));
    assert_eq!(device.calls.load(Ordering::SeqCst), 1, "the device registers it once");
    assert!(registry.remove(ids[0]).unwrap().is_none() && registry.remove(ids[0]).unwrap().is_none());
    assert!(registry.remove(ids[0]).unwrap().is_some(), "three owners");
}

#[test]
fn a_registration_that_fails_leaves_the_range_to_the_one_that_waits() {
    let (device, registry) = gated(first_waits(true));
    let (may_begin, has_come) = gates(&device);
    let memory = Memory::new();
    let register = || memory.register(&registry, 0);
    let id = thread::scope(|scope| {
        let first = scope.spawn(register);
        has_come.wait();
        let second = scope.spawn(register);
        may_begin.wait();
        assert!(matches!(first.join().unwrap(), Err(RegistryError::Fabric(_))));
        second.join().unwrap().unwrap()
    });
    assert!(registry.remove(id).unwrap().is_some());
}

/// What is registered while all regions are taken out is not kept, nor does the device keep it.
#[test]
fn a_registration_during_which_the_engine_closes_is_refused() {
    let (device, registry) = gated(first_waits(false));
    let (may_begin, has_come) = gates(&device);
    let memory = Memory::new();
    thread::scope(|scope| {
        let slow = scope.spawn(|| memory.register(&registry, 0));
        has_come.wait();
        let begun = Instant::now();
        assert!(registry.remove_all().is_empty());
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        may_begin.wait();
        let error = slow.join().unwrap().unwrap_err();
        assert!(matches!(error, RegistryError::Closed { .. }), "{error}");
    });
    assert!(registry.snapshot().regions().is_empty());
}

#[test]
fn a_registration_after_the_engine_has_closed_is_refused() {
    let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
    let memory = Memory::new();
    let id = memory.register(&registry, 0).unwrap();
    let regions = registry.remove_all();
    assert_eq!(regions.iter().map(|region| region.id).collect::<Vec<_>>(), [id]);
    let error = memory.register(&registry, 0).unwrap_err();
    assert!(matches!(error, RegistryError::Closed { .. }), "{error}");
    assert!(registry.snapshot().regions().is_empty());
}

/// No peer has used it: its memory is given back whole.
#[test]
fn a_refused_registration_of_an_allocation_leaves_nothing_mapped() {
    let (device, registry) = gated(first_waits(false));
    let (may_begin, has_come) = gates(&device);
    let allocation = crate::memory::Allocation::anonymous(4096).unwrap();
    let range = (allocation.address(), allocation.length());
    thread::scope(|scope| {
        let slow = scope.spawn(|| registry.register(range, MemoryKind::Host, Access::FULL, true, None, None));
        has_come.wait();
        registry.remove_all();
        may_begin.wait();
        let error = slow.join().unwrap().unwrap_err();
        assert!(matches!(error, RegistryError::Closed { .. }), "{error}");
    });
    allocation.release();
    assert!(crate::memory::inspect(range.0, 1).is_err(), "still mapped");
}

/// Otherwise its memory would be unmapped beneath the registration.
#[test]
fn memory_that_is_being_freed_is_not_registered() {
    let registry = Registry::new(software::open(&SoftwareOptions::default()).unwrap().remove(0));
    let allocation = crate::memory::Allocation::anonymous(8192).unwrap();
    let register = || {
        let part = (allocation.address() + 4096, 100);
        registry.register(part, MemoryKind::Probe, Access::FULL, true, None, None)
    };
    allocation.close_unless_used(0).unwrap();
    let error = register().unwrap_err();
    assert!(matches!(error, RegistryError::BeingFreed { .. }), "{error}");
    allocation.reopen();
    let id = register().unwrap();
    registry.remove(id).unwrap().unwrap().end_allocation_use(true);
    allocation.release();
}

#[test]
fn many_threads_that_register_and_deregister_leave_nothing_behind() {
    let gate = Gate::OneOfEachStart { under_way: Mutex::default(), overlapped: AtomicBool::new(false) };
    let (device, registry) = gated(gate);
    let memory = Memory::new();
    thread::scope(|scope| {
        for number in 0..8_u64 {
            let (registry, memory) = (&registry, &memory);
            scope.spawn(move || {
                for round in 0..300 {
                    let id = memory.register(registry, (number + round) % 3).unwrap();
                    assert!(
                        registry.snapshot().by_id(id).is_some(),
                        "it is there for as long as it has an owner"
                    );
                    drop(registry.remove(id).unwrap());
                }
            });
        }
    });
    assert!(registry.snapshot().regions().is_empty());
    let state = registry.regions.lock();
    assert!(state.by_id.is_empty() && state.by_start.is_empty() && state.registering.is_empty());
    let Gate::OneOfEachStart { overlapped, .. } = &device.gate else { unreachable!() };
    assert!(overlapped.load(Ordering::SeqCst), "no two registrations were under way at the same time");
}
