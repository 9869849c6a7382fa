//! Commands of a slow device, to register memory and to create and destroy queue pairs, keep only those waiting that need them.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod nullverbs;
mod support;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::{Connection, Context};
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use support::{Pair, outcome};

/// How long a command takes here.
const COMMAND: Duration = Duration::from_millis(400);
/// All lanes share one worker.
const SETTINGS: &[(&str, &str)] = &[("FLAGCX_P2P_WORKERS_PER_POOL", "1"), ("FLAGCX_P2P_QPS_PER_CONN", "1")];

/// Two engines on a device of its own.
fn pair(standin: &nullverbs::Standin) -> Pair {
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let open = || {
        let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
        Engine::open(support::config(SETTINGS), options).unwrap()
    };
    Pair::between(open(), open(), 4096)
}

/// The longest of the transfers that are done one after the other while `work` goes on.
fn longest_transfer_during(connection: &Connection, iov: Iov, work: impl FnOnce() + Send) -> Duration {
    thread::scope(|scope| {
        let working = scope.spawn(work);
        let mut longest = Duration::ZERO;
        while !working.is_finished() {
            let begun = Instant::now();
            let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
            assert_eq!(outcome(connection, id), Outcome::Done);
            longest = longest.max(begun.elapsed());
        }
        longest
    })
}

#[test]
fn different_ranges_are_registered_at_the_same_time() {
    let standin = nullverbs::Standin::new(&[]);
    let pair = pair(&standin);
    standin.set("reg_ns", COMMAND.as_nanos() as u64);
    let begun = Instant::now();
    let engine = &pair.client;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let memory = vec![0_u8; 4096];
                let (address, length) = (memory.as_ptr() as u64, memory.len() as u64);
                // SAFETY: `memory` lives until its registration has ended.
                let region = unsafe { engine.register(address, length, RegisterOptions::default()) }.unwrap();
                assert!(engine.deregister(region));
            });
        }
    });
    assert!((COMMAND..COMMAND * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

#[test]
fn transfers_go_on_while_queue_pairs_are_created() {
    let standin = nullverbs::Standin::new(&[]);
    let pair = pair(&standin);
    standin.set("create_qp_ns", COMMAND.as_nanos() as u64);
    let longest = longest_transfer_during(&pair.here, pair.iov(0, 0, 4096), || {
        let begun = Instant::now();
        drop(support::connect(&pair.client, &pair.server));
        assert!(begun.elapsed() >= COMMAND, "the device was not slow");
    });
    assert!(longest < COMMAND / 2, "a transfer of another lane took {longest:?}");
}

#[test]
fn transfers_go_on_while_queue_pairs_are_destroyed() {
    let standin = nullverbs::Standin::new(&[]);
    let pair = pair(&standin);
    let (other, _there) = support::connect(&pair.client, &pair.server);
    standin.set("destroy_qp_ns", COMMAND.as_nanos() as u64);
    let longest = longest_transfer_during(&pair.here, pair.iov(0, 0, 4096), || {
        let begun = Instant::now();
        other.close();
        assert!(begun.elapsed() >= COMMAND, "the device was not slow");
    });
    standin.set("destroy_qp_ns", 0);
    assert!(longest < COMMAND / 2, "a transfer of another lane took {longest:?}");
}

/// How long `work` takes while `slow` goes on, which begins before.
fn time_during(slow: impl FnOnce() + Send, work: impl FnOnce()) -> Duration {
    thread::scope(|scope| {
        let (begun, begins) = std::sync::mpsc::channel();
        let slow = scope.spawn(move || {
            begun.send(()).unwrap();
            slow();
        });
        begins.recv().unwrap();
        // It is in its command by then.
        thread::sleep(COMMAND / 8);
        let start = Instant::now();
        work();
        let took = start.elapsed();
        assert!(!slow.is_finished(), "the device was not slow");
        took
    })
}

#[test]
fn connects_and_transfers_go_on_while_memory_is_registered() {
    let standin = nullverbs::Standin::new(&[]);
    let pair = pair(&standin);
    let memory = vec![0_u8; 4096];
    let slow = || {
        let (address, length) = (memory.as_ptr() as u64, memory.len() as u64);
        // SAFETY: `memory` lives until its registration has ended.
        let region = unsafe { pair.client.register(address, length, RegisterOptions::default()) }.unwrap();
        assert!(pair.client.deregister(region));
    };
    standin.set("reg_ns", COMMAND.as_nanos() as u64);
    let took = time_during(slow, || {
        let (other, _there) = support::connect(&pair.client, &pair.server);
        let id = other.submit(Opcode::Write, &[pair.iov(0, 0, 4096)][..]).unwrap();
        assert_eq!(outcome(&other, id), Outcome::Done);
    });
    assert!(took < COMMAND / 2, "a connect and a transfer took {took:?}");
}

/// More connects than the event loop has helper threads: what it does itself goes on.
#[test]
fn regions_are_announced_while_many_queue_pairs_are_created() {
    let standin = nullverbs::Standin::new(&[]);
    let pair = pair(&standin);
    pair.server.start_rpc_server().unwrap();
    let port = pair.server.rpc_port().unwrap();
    standin.set("create_qp_ns", COMMAND.as_nanos() as u64);
    let slow = || {
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| pair.client.connect("127.0.0.1", port, 0, false));
            }
        });
    };
    let took = time_during(slow, || {
        let late = pair.server.allocate(4096).unwrap();
        support::eventually("the peer knows of it", || {
            pair.here.describe_remote(late.address(), 4096).is_some()
        });
    });
    standin.set("create_qp_ns", 0);
    assert!(took < COMMAND / 2, "a region was known after {took:?}");
}

/// A device is tried by its first use, which is a command: that of its pool, where no engine has chosen it before.
#[test]
fn engines_of_other_devices_open_while_a_slow_one_is_tried() {
    let standin = nullverbs::Standin::playing("slow_commands", &[]);
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = DeviceList::open(&options).unwrap();
    let slow = || drop(Context::open(&support::config(SETTINGS), &devices.devices()[0]).unwrap());
    let took = time_during(slow, || drop(support::engine(&[("FLAGCX_P2P_FABRIC", "software")])));
    assert!(took < COMMAND / 2, "another engine took {took:?} to open");
}

/// Two slow devices are tried at the same time.
#[test]
fn a_device_is_opened_while_another_one_is_tried() {
    let standin = nullverbs::Standin::playing("slow_commands", &[("devs", 2)]);
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = DeviceList::open(&options).unwrap();
    let begun = Instant::now();
    thread::scope(|scope| {
        for device in devices.devices() {
            scope.spawn(|| device.check_use().unwrap());
        }
    });
    assert!((COMMAND..COMMAND * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}
