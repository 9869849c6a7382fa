//! Regions larger than a NIC can register at once, over the stand-in libibverbs: in segments, of which callers see nothing.
#![cfg(feature = "verbs")]
#![allow(unsafe_code, reason = "registers memory by address")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod nullverbs;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, SubmitError};
use nullverbs::Standin;
use support::{Pair, connect, content, eventually, outcome, pattern};

/// The largest region of the profile `small_regions`.
const LARGEST: u64 = 64 << 10;
/// Each buffer: more than 16 segments, enough for a transfer to go over several lanes.
const LENGTH: u64 = (1 << 20) + 5000;

fn engine(standin: &Standin) -> Arc<Engine> {
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let settings = &[("FLAGCX_P2P_QPS_PER_CONN", "4"), ("FLAGCX_P2P_SLICE_SIZE", "100000")];
    Engine::open(support::config(settings), EngineOptions { gpu_index: 0, devices }).unwrap()
}

fn split_pair() -> (Standin, Pair) {
    let standin = Standin::playing("small_regions", &[]);
    let pair = Pair::between(engine(&standin), engine(&standin), LENGTH as usize);
    (standin, pair)
}

fn segments_of(engine: &Engine, address: u64) -> usize {
    engine.find_region(address, 1).unwrap().segment_count()
}

/// Offsets here and there, and lengths: across no boundary, one, many, all of it.
fn spots() -> Vec<(u64, u64, u64)> {
    let mut spots = vec![
        (0, 0, LENGTH),
        (0, 0, 1),
        (LARGEST - 1, 3, 2),
        (3, LARGEST - 1, 2),
        (LARGEST, LARGEST, LARGEST),
        (LENGTH - 1, 0, 1),
        (100, 200, 0),
    ];
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..60 {
        let (local, remote) = (random(LENGTH), random(LENGTH));
        let most = if round % 3 == 0 { 300 } else { 300_000 };
        spots.push((local, remote, random(most).min(LENGTH - local).min(LENGTH - remote)));
    }
    spots
}

/// Moves by both opcodes, alone and many at a time, and compares every byte of both buffers.
fn moves_every_byte(pair: &Pair) {
    let (mut here, mut there) = (pattern(1, LENGTH as usize), pattern(2, LENGTH as usize));
    pair.source.write(0, &here);
    pair.target.write(0, &there);
    let apply = |opcode, (local, remote, length): (u64, u64, u64), here: &mut [u8], there: &mut [u8]| {
        let (near, far) =
            (local as usize..(local + length) as usize, remote as usize..(remote + length) as usize);
        match opcode {
            Opcode::Write => there[far].copy_from_slice(&here[near]),
            Opcode::Read => here[near].copy_from_slice(&there[far]),
        }
    };
    for (round, spot) in spots().into_iter().enumerate() {
        let opcode = if round % 2 == 0 { Opcode::Write } else { Opcode::Read };
        let mut iov = pair.iov(spot.0, spot.1, spot.2);
        if round % 4 < 2 {
            iov.region = None;
        }
        let id = pair.here.submit(opcode, &[iov][..]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
        apply(opcode, spot, &mut here, &mut there);
        assert!(content(&pair.source) == here && content(&pair.target) == there, "{opcode:?} {spot:?}");
    }
    // Many in one transfer, side by side: all of it in pieces of a size that fits no segment.
    for piece in [777, 9_999, 70_001] {
        let offsets = (0..LENGTH).step_by(piece);
        let iovs: Vec<_> = offsets.map(|at| pair.iov(at, at, (piece as u64).min(LENGTH - at))).collect();
        for (opcode, seed) in [(Opcode::Write, 3), (Opcode::Read, 4)] {
            let bytes = pattern(seed + piece as u64, LENGTH as usize);
            let from = if opcode == Opcode::Write { &pair.source } else { &pair.target };
            from.write(0, &bytes);
            let id = pair.here.submit(opcode, &iovs[..]).unwrap();
            assert_eq!(outcome(&pair.here, id), Outcome::Done);
            assert!(content(&pair.source) == bytes && content(&pair.target) == bytes, "{opcode:?} {piece}");
        }
    }
}

#[test]
fn both_ends_in_segments() {
    let (_standin, pair) = split_pair();
    assert_eq!(segments_of(&pair.client, pair.source.address()), 17);
    assert_eq!(segments_of(&pair.server, pair.target.address()), 17);
    moves_every_byte(&pair);
}

#[test]
fn one_end_in_segments() {
    for split_source in [true, false] {
        let standin = Standin::new(&[]);
        let whole = engine(&standin);
        let whole_buffer = whole.allocate(LENGTH as usize).unwrap();
        standin.set("max_region", LARGEST);
        let split = engine(&standin);
        let split_buffer = split.allocate(LENGTH as usize).unwrap();
        assert_eq!(segments_of(&whole, whole_buffer.address()), 1);
        assert_eq!(segments_of(&split, split_buffer.address()), 17);
        let (client, server, source, target) = match split_source {
            true => (split, whole, split_buffer, whole_buffer),
            false => (whole, split, whole_buffer, split_buffer),
        };
        let (here, there) = connect(&client, &server);
        moves_every_byte(&Pair { client, server, here, there, source, target });
    }
}

/// A region that comes while the connection lives is known with all of its segments, and gone with all of them.
#[test]
fn segments_come_and_go_together() {
    let (_standin, pair) = split_pair();
    let late = pair.server.allocate(LENGTH as usize).unwrap();
    let bytes = pattern(5, LENGTH as usize);
    pair.source.write(0, &bytes);
    let remote = pair.here.describe_remote(late.address(), LENGTH as u32).unwrap();
    let iov = Iov { local: pair.source.address(), length: LENGTH, region: None, remote };
    let id = pair.here.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(content(&late) == bytes);
    let address = late.address();
    drop(late);
    eventually("the peer knows", || pair.here.known_region(address, LENGTH).is_none());
    for iov in [iov, Iov { length: LARGEST, ..iov }, Iov { length: LARGEST + 1, ..iov }] {
        let error = pair.here.submit(Opcode::Write, &[iov][..]).unwrap_err();
        assert!(matches!(error, SubmitError::Remote { iov: 0, .. }), "{error}");
        assert!(error.to_string().contains("has deregistered"), "{error}");
    }
}

#[test]
fn a_descriptor_across_a_boundary_is_refused_with_the_boundary() {
    let (_standin, pair) = split_pair();
    let (engine, region, start) = (&pair.server, pair.target.region(), pair.target.address());
    let boundary = engine.find_region(start, 1).unwrap().segments().next().unwrap().end();
    let error = engine.describe(region, start, LENGTH).unwrap_err().to_string();
    assert!(error.contains(&format!("{boundary:#x}")) && error.contains("segment"), "{error}");
    assert!(engine.describe(region, boundary - 1, 2).is_err());
    let before = engine.describe(region, boundary - 1, 1).unwrap();
    let behind = engine.describe(region, boundary, 1).unwrap();
    assert_ne!(before.rkey, behind.rkey);
    let error = engine.describe(region, start, LENGTH + 1).unwrap_err().to_string();
    assert!(error.contains("not inside the region"), "{error}");
}

/// A failed piece is named by the index that its iov has for the caller.
#[test]
fn a_failure_names_the_iov_of_the_caller() {
    let (_standin, pair) = split_pair();
    let good = pair.iov(0, 0, LENGTH);
    let bad =
        Iov { remote: RemoteRange { rkey: 0xbad_0000, ..pair.iov(0, 0, 16).remote }, ..pair.iov(0, 0, 16) };
    let id = pair.here.submit(Opcode::Write, &[good, pair.iov(9, 9, 70_000), bad, good][..]).unwrap();
    let Outcome::Failed(failure) = outcome(&pair.here, id) else { panic!("a key that does not exist") };
    assert_eq!(failure.iov, 2, "{failure}");
}

/// All segments end with their region, and a registration that fails half-way leaves none.
#[test]
fn no_segment_is_left() {
    let (standin, pair) = split_pair();
    let before = standin.live().regions;
    let memory = vec![0_u8; LENGTH as usize];
    let address = memory.as_ptr() as u64;
    let options = RegisterOptions::default();
    // SAFETY: `memory` lives until its registration has ended.
    let region = unsafe { pair.client.register(address, LENGTH, options) }.unwrap();
    assert!(standin.live().regions >= before + 17);
    assert!(pair.client.deregister(region));
    assert_eq!(standin.live().regions, before);
    // Room for half of the pieces.
    standin.set("locked_bytes", 2 * LENGTH + LENGTH / 2);
    // SAFETY: as above.
    let error = unsafe { pair.client.register(address, LENGTH, options) }.unwrap_err().to_string();
    assert!(error.contains("RLIMIT_MEMLOCK"), "{error}");
    assert_eq!(standin.live().regions, before);
    standin.set("locked_bytes", u64::MAX);
    // SAFETY: as above.
    let region = unsafe { pair.client.register(address, LENGTH, options) }.unwrap();
    assert!(pair.client.deregister(region));
}

/// Pieces are registered, and ended, by several threads: on a slow device in less time than one after the other.
#[test]
fn pieces_are_registered_at_the_same_time() {
    let command = Duration::from_millis(25);
    let (standin, pair) = split_pair();
    let memory = vec![0_u8; (16 * LARGEST) as usize];
    for name in ["reg_ns", "dereg_ns"] {
        standin.set(name, command.as_nanos() as u64);
    }
    let begun = Instant::now();
    // SAFETY: `memory` lives until its registration has ended.
    let region =
        unsafe { pair.client.register(memory.as_ptr() as u64, 16 * LARGEST, RegisterOptions::default()) };
    let registered = begun.elapsed();
    assert!(pair.client.deregister(region.unwrap()));
    let ended = begun.elapsed() - registered;
    println!("16 pieces at {command:?} each: registered in {registered:?}, ended in {ended:?}");
    assert!(registered < command * 12 && ended < command * 12, "{registered:?}, {ended:?}");
}
