//! An engine with several NICs: what is listed, what is registered on which, and how that ends.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::memory::RegisterOptions;
use super::*;
use crate::connection::{NicContext, OpenNicError};
use crate::fabric::{DeviceList, SoftwareOptions, software};
use crate::memory::{Hold, RegionId, is_allocated};

const LIMIT: Duration = Duration::from_secs(20);

fn engine(devices: u32, variables: &[(&str, &str)]) -> Arc<Engine> {
    let config = Config::from_source(&|name| {
        let set = variables.iter().chain(&[("FLAGCX_P2P_BIND", "127.0.0.1")]);
        set.into_iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    });
    let options = SoftwareOptions { device_count: devices, ..SoftwareOptions::default() };
    let devices = Some(Arc::new(DeviceList::of(software::open(&options).unwrap())));
    Engine::open(Arc::new(config), EngineOptions { gpu_index: -1, devices }).unwrap()
}

#[allow(unsafe_code, reason = "the memory outlives the registration")]
fn register(engine: &Engine, memory: &[u8]) -> RegionId {
    let range = (memory.as_ptr().expose_provenance() as u64, memory.len() as u64);
    // SAFETY: each test deregisters before it drops the memory, or closes the engine.
    unsafe { engine.register(range.0, range.1, RegisterOptions::default()) }.unwrap()
}

/// Waits until the NIC has the region, and takes it into use.
fn hold(nic: &NicContext, id: RegionId) -> Hold {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(region) = nic.registry.snapshot().by_id(id) {
            return region.hold().unwrap();
        }
        assert!(Instant::now() < end, "not registered within {LIMIT:?}");
        thread::yield_now();
    }
}

#[test]
fn nics_have_numbers_and_are_opened_once() {
    let engine = engine(3, &[]);
    let context = engine.context().unwrap();
    let names: Vec<_> = context.nics().iter().map(|nic| nic.name.as_str()).collect();
    assert_eq!((names, context.own_nic()), (vec!["sw0", "sw1", "sw2"], 0));
    let record = &context.nics()[1];
    assert_eq!((record.speed_mbps, record.mtu, record.link_layer), (10_000, 4096, 0x53));
    assert!(record.networks.iter().all(|network| network.contains(&engine.address())));
    let own = context.open_nic(0).unwrap();
    assert!(Arc::ptr_eq(&own.registry, &context.registry) && Arc::ptr_eq(&own.pool, &context.pool));
    assert!(context.nic_if_open(2).is_none() && context.opened_nics().count() == 1);
    let opened = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| context.open_nic(2).unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(opened.iter().all(|nic| Arc::ptr_eq(nic, &opened[0])));
    assert_eq!((opened[0].number, opened[0].device().attributes().name.as_str()), (2, "sw2"));
    assert!(!Arc::ptr_eq(&opened[0].pool, &context.pool) && opened[0].require_port().is_ok());
    let numbers: Vec<_> = context.opened_nics().map(|nic| nic.number).collect();
    assert_eq!(numbers, [0, 2]);
    assert!(context.is_nic_usable(1) && !context.is_nic_usable(3));
    assert!(matches!(context.open_nic(3), Err(OpenNicError::NoSuchNic { number: 3, count: 3 })));
}

#[test]
fn one_rail_leaves_the_other_nics_alone() {
    let engine = engine(3, &[("FLAGCX_P2P_RAILS", "1")]);
    let context = engine.context().unwrap();
    assert_eq!((context.nics().len(), context.own_nic()), (1, 0));
    assert!(matches!(context.open_nic(1), Err(OpenNicError::NoSuchNic { number: 1, count: 1 })));
    assert!(context.open_nic(0).is_ok());
}

#[test]
fn deregistering_waits_for_users_on_a_further_nic() {
    let (engine, memory) = (engine(2, &[]), vec![0; 8192]);
    let nic = engine.context().unwrap().open_nic(1).unwrap();
    let id = register(&engine, &memory);
    let used = hold(&nic, id);
    assert!(!engine.wait_for_users(id, Instant::now(), Duration::from_millis(1)));
    let is_released = AtomicBool::new(false);
    thread::scope(|scope| {
        let deregistered = scope.spawn(|| (engine.deregister(id), is_released.load(Ordering::SeqCst)));
        let end = Instant::now() + LIMIT;
        while used.region().hold().is_some() {
            assert!(Instant::now() < end, "it is still to be used");
            thread::yield_now();
        }
        is_released.store(true, Ordering::SeqCst);
        drop(used);
        assert_eq!(deregistered.join().unwrap(), (true, true));
    });
}

/// After the time of transfers.
#[test]
fn a_user_on_a_further_nic_that_does_not_end_is_an_answer() {
    let (engine, memory) = (engine(2, &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "1")]), vec![0; 8192]);
    let nic = engine.context().unwrap().open_nic(1).unwrap();
    let id = register(&engine, &memory);
    let _used = hold(&nic, id);
    assert!(!engine.deregister(id), "the memory must stay mapped");
}

#[test]
fn allocated_memory_is_given_back_with_further_nics() {
    let engine = engine(2, &[]);
    let nic = engine.context().unwrap().open_nic(1).unwrap();
    let (address, id) = engine.allocate_at_address(8192, AllocateOptions::default(), false).unwrap();
    drop(hold(&nic, id));
    engine.free(address).unwrap();
    assert!(!is_allocated(address, 8192) && nic.registry.snapshot().by_id(id).is_none());
}

#[test]
fn an_engine_that_closes_ends_all_on_all_nics() {
    let (engine, memory) = (engine(3, &[]), vec![0; 8192]);
    let context = Arc::clone(engine.context().unwrap());
    let nics = [1, 2].map(|number| context.open_nic(number).unwrap());
    let (id, buffer) = (register(&engine, &memory), engine.allocate(4096).unwrap());
    let regions = nics.each_ref().map(|nic| {
        let held = hold(nic, id);
        drop(hold(nic, buffer.region()));
        Arc::clone(held.region())
    });
    drop(buffer);
    engine.close();
    assert!(regions.iter().all(|region| region.hold().is_none() && !region.in_use()));
    assert!(nics.iter().all(|nic| nic.registry.snapshot().regions().is_empty()));
}
