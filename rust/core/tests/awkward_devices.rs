//! Devices that offer less than the usual ones, over the stand-in libibverbs: its profiles say which driver behaves so.
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

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{
    CompletionStatus, DeviceList, FabricChoice, FabricOptions, Opcode, Provider, QueuePairCaps,
};
use flagcx_p2p::internals::pool::{PoolOptions, WorkerPool};
use flagcx_p2p::internals::topology::CpuSet;
use flagcx_p2p::internals::transfer::{Failure, Iov, Outcome};
use nullverbs::{Live, Standin};
use support::{Pair, content, outcome, pattern};

/// One lane, so that requests fail in the order of their pieces.
const ONE_LANE: &[(&str, &str)] = &[
    ("FLAGCX_P2P_FABRIC", "verbs"),
    ("FLAGCX_P2P_BIND", "127.0.0.1"),
    ("FLAGCX_P2P_QPS_PER_CONN", "1"),
    ("FLAGCX_P2P_MAX_INLINE", "64"),
];

fn list(standin: &Standin, choice: FabricChoice) -> Arc<DeviceList> {
    let options = FabricOptions { choice, verbs: standin.options(), ..FabricOptions::default() };
    Arc::new(DeviceList::open(&options).unwrap())
}

fn engine(devices: &Arc<DeviceList>, config: &Arc<Config>) -> Arc<Engine> {
    let options = EngineOptions { gpu_index: 0, devices: Some(Arc::clone(devices)) };
    Engine::open(Arc::clone(config), options).unwrap()
}

fn pair(standin: &Standin, length: usize) -> Pair {
    let (devices, config) = (list(standin, FabricChoice::Verbs), support::config(ONE_LANE));
    Pair::between(engine(&devices, &config), engine(&devices, &config), length)
}

fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

/// What is known of a device without reliable connected queue pairs, where it is tried.
const NO_RC: &[&str] = &["ibv_create_qp on nv0 failed", "(errno 95)", "reliable connected", "FLAGCX_IB_HCA"];

#[test]
fn without_reliable_connections_software_takes_over_and_the_reason_is_said() {
    let standin = Standin::playing("efa", &[("devs", 2)]);
    let devices = list(&standin, FabricChoice::Auto);
    let selection = devices.selection();
    assert_eq!(selection.provider, Some(Provider::Software));
    expect(&selection.reason, NO_RC);
    expect(&selection.reason, &["nv1"]);
    assert_eq!(standin.live(), Live::default(), "nothing is left of the trial");
}

#[test]
fn a_device_that_cannot_be_used_keeps_its_place_and_refuses() {
    let standin = Standin::playing("efa", &[("devs", 2)]);
    let devices = list(&standin, FabricChoice::Verbs);
    let names: Vec<_> = devices.devices().iter().map(|device| device.attributes().name.as_str()).collect();
    assert_eq!(names, ["nv0", "nv1"]);
    let device = &devices.devices()[0];
    assert!(device.port().unwrap().active, "what it is can be asked");
    assert_eq!(device.gids().unwrap().len(), 2);
    let refusals = [
        device.check_use().unwrap_err(),
        Arc::clone(device).create_completion_queue(16).unwrap_err(),
        device.check_use().unwrap_err(),
    ];
    for error in refusals {
        expect(&error.to_string(), NO_RC);
    }
    assert!(device.event_fd().is_none() && device.poll_event().is_none());

    let engine = engine(&devices, &support::config(ONE_LANE));
    assert!(engine.device().is_none());
    let error = engine.connect("127.0.0.1", 1, 0, false).unwrap_err().to_string();
    expect(&error, NO_RC);
    assert_eq!(standin.live(), Live::default());
}

#[test]
fn an_engine_takes_a_device_that_can_be_used() {
    // The first of three has no reliable connected queue pairs.
    let standin = Standin::new(&[("devs", 3), ("no_rc", 1)]);
    for choice in [FabricChoice::Auto, FabricChoice::Verbs] {
        let devices = list(&standin, choice);
        assert_eq!(devices.selection().provider, Some(Provider::Verbs));
        assert_eq!(devices.devices().len(), 3);
        let engine = engine(&devices, &support::config(ONE_LANE));
        assert_eq!(engine.device().unwrap().attributes().name, "nv1");
    }
}

/// Of a device that grants what the engine's queues need, and refuses shorter ones.
#[test]
fn a_device_is_tried_with_queues_as_the_engine_has_them() {
    let standin = Standin::playing("long_queues", &[]);
    for choice in [FabricChoice::Auto, FabricChoice::Verbs] {
        let devices = list(&standin, choice);
        assert_eq!(devices.selection().provider, Some(Provider::Verbs), "{}", devices.selection().reason);
        devices.devices()[0].check_use().unwrap();
    }
    assert_eq!(standin.live(), Live::default());
    let pair = pair(&standin, 4096);
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 4096)][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
}

#[test]
fn devices_are_opened_by_their_first_use_and_once() {
    let standin = Standin::playing("eight_devices", &[]);
    for choice in [FabricChoice::Auto, FabricChoice::Verbs] {
        let devices = list(&standin, choice);
        assert_eq!(devices.devices().len(), 8);
        for device in devices.devices() {
            assert!(device.attributes().max_queue_pairs > 0 && device.port().unwrap().speed_mbps > 0);
        }
        assert_eq!(standin.live(), Live::default(), "listed, and closed again");
        let used = &devices.devices()[5];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| used.check_use().unwrap());
            }
        });
        let _queue = Arc::clone(used).create_completion_queue(16).unwrap();
        let (contexts, domains) = (standin.live().contexts, standin.live().domains);
        assert_eq!((contexts, domains), (1, 1));
        assert!(used.event_fd().is_some());
    }
    assert_eq!(standin.live(), Live::default());
}

/// A device that was listed long ago is asked again when it is opened.
#[test]
fn a_device_is_opened_with_the_address_that_it_has_then() {
    let standin = Standin::new(&[("address", 0x0a4d_0001)]);
    let devices = list(&standin, FabricChoice::Verbs);
    let device = &devices.devices()[0];
    standin.set("address", 0x0a4e_0002);
    device.check_use().unwrap();
    assert_eq!(device.port().unwrap().gid[12..], [10, 78, 0, 2]);
}

fn four_workers() -> PoolOptions {
    PoolOptions {
        workers: 4,
        submission_queues: 4,
        queue_depth: 16,
        cq_depth: 256,
        max_posted: 256,
        max_list: 16,
        poll_batch: 16,
        spin: std::time::Duration::ZERO,
        cpus: CpuSet::default(),
    }
}

#[test]
fn the_completion_queues_of_workers_are_spread_over_the_vectors() {
    for (vectors, expected) in [(16, vec![1; 4]), (2, vec![2; 2]), (1, vec![4])] {
        let standin = Standin::playing("eight_devices", &[("vectors", vectors)]);
        let devices = list(&standin, FabricChoice::Verbs);
        let _pool = WorkerPool::new(Arc::clone(&devices.devices()[0]), &four_workers()).unwrap();
        let used: Vec<_> =
            (0..vectors).map(|vector| standin.queues_on(vector)).filter(|count| *count > 0).collect();
        assert_eq!(used, expected, "{vectors} vectors");
    }
}

#[test]
fn a_vector_that_is_refused_is_replaced_by_the_first() {
    let standin = Standin::new(&[("vectors", 16)]);
    let devices = list(&standin, FabricChoice::Verbs);
    devices.devices()[0].check_use().unwrap();
    // The device still says that it has 16.
    standin.set("vectors", 1);
    let _pool = WorkerPool::new(Arc::clone(&devices.devices()[0]), &four_workers()).unwrap();
    assert_eq!(standin.queues_on(0), 4);
}

#[test]
fn queue_pairs_with_less_than_was_asked_for_move_everything() {
    const LENGTH: usize = 1 << 20;
    let asked = QueuePairCaps { send_depth: 512, max_sge: 4, max_inline: 64 };
    for (profile, expected) in [
        ("small_caps", QueuePairCaps { send_depth: 24, max_sge: 2, max_inline: 16 }),
        ("inline_above_cap", QueuePairCaps { max_inline: 16, ..asked }),
        ("small_queues", QueuePairCaps { send_depth: 128, max_sge: 4, max_inline: 64 }),
    ] {
        let standin = Standin::playing(profile, &[]);
        let pair = pair(&standin, LENGTH);
        let device = pair.client.device().unwrap();
        let queue = Arc::clone(device).create_completion_queue(16).unwrap();
        let queue_pair = Arc::clone(device).create_queue_pair(&queue.handle(), &asked).unwrap();
        assert_eq!(queue_pair.caps(), expected, "{profile}");
        // Pieces of many sizes, neighbours at the peer and not here, more than there is room for at a time.
        let sizes = [8_u64, 20, 64, 300, 1024];
        let (mut at, mut pieces) = (0, Vec::new());
        for size in sizes.iter().cycle().take(2000) {
            pieces.push(pair.iov(LENGTH as u64 / 2 + at - at % 3, at, *size));
            at += size;
        }
        pieces.retain(|piece| piece.local + piece.length <= pair.source.address() + LENGTH as u64);
        for opcode in [Opcode::Write, Opcode::Read] {
            let bytes = pattern(7, LENGTH);
            assert!(pair.source.write(0, &bytes));
            let id = pair.here.submit(opcode, &pieces[..]).unwrap();
            assert_eq!(outcome(&pair.here, id), Outcome::Done, "{profile}, {opcode:?}");
            let (source, target) = (content(&pair.source), content(&pair.target));
            for piece in pieces.iter().rev().take(5) {
                let local = (piece.local - pair.source.address()) as usize;
                let remote = (piece.remote.address - pair.target.address()) as usize;
                let length = piece.length as usize;
                assert!(source[local..local + length] == target[remote..remote + length], "{profile}");
            }
        }
    }
}

/// The failure of a transfer of which piece `bad` has a key that the peer does not know.
fn failure_of(pair: &Pair, count: u64, bad: usize) -> Failure {
    // No neighbours: each piece is a request.
    let mut pieces: Vec<Iov> = (0..count).map(|at| pair.iov(at * 256, at * 256, 128)).collect();
    pieces[bad].remote.rkey ^= 0x00ff_ff00;
    let id = pair.here.submit(Opcode::Write, &pieces[..]).unwrap();
    match outcome(&pair.here, id) {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_piece_that_failed_is_named_by_devices_that_know_it() {
    let standin = Standin::new(&[]);
    let failure = failure_of(&pair(&standin, 1 << 16), 100, 70);
    assert_eq!((failure.status, failure.iov, failure.last_iov), (CompletionStatus::RemoteAccess, 70, 70));
    expect(&failure.to_string(), &["remote access error", "at piece 70 of"]);
}

/// bnxt_re and irdma report the oldest request.
#[test]
fn a_device_that_does_not_know_the_piece_names_those_that_it_may_be() {
    for profile in ["bnxt", "irdma"] {
        let standin = Standin::playing(profile, &[]);
        for bad in [0, 3, 63, 64, 99] {
            let failure = failure_of(&pair(&standin, 1 << 16), 100, bad);
            assert_eq!(failure.status, CompletionStatus::RemoteAccess);
            let suspects = failure.iov..=failure.last_iov;
            assert!(suspects.contains(&bad), "{profile}: piece {bad} is none of {suspects:?}");
            // Lists have 64 requests: a failure tells at least which of them it was in.
            assert!(suspects.clone().count() <= 64, "{suspects:?}");
            let named =
                format!("at one of the pieces {} to {} (the device does not", failure.iov, failure.last_iov);
            expect(&failure.to_string(), &["remote access error", &named]);
        }
        // Alone, it is known.
        let failure = failure_of(&pair(&standin, 1 << 16), 1, 0);
        expect(&failure.to_string(), &["at piece 0 of"]);
    }
}
