//! Engines on software NICs of which each has faults of its own: what the tests of several NICs stand on.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod nics;
mod support;

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{Device, Opcode, PathKind};
use flagcx_p2p::internals::transfer::{Outcome, Status};
use nics::Nics;
use support::{Pair, content, eventually, outcome, pattern};

const LENGTH: usize = 256 << 10;
const EIGHT: u32 = 8;

/// Two engines, each on NIC `nic` of its end.
fn pair_on(nic: usize, near: &Nics, far: &Nics) -> Pair {
    Pair::between(near.only(nic).engine(&[]), far.only(nic).engine(&[]), LENGTH)
}

fn start(pair: &Pair, seed: u64) -> (flagcx_p2p::internals::transfer::TransferId, Vec<u8>) {
    let bytes = pattern(seed, LENGTH);
    assert!(pair.source.write(0, &bytes));
    (pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)]).unwrap(), bytes)
}

fn write(pair: &Pair, seed: u64) {
    let (id, bytes) = start(pair, seed);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(content(&pair.target) == bytes);
}

#[test]
fn an_engine_runs_on_each_of_eight_nics_and_a_silent_one_disturbs_no_other() {
    let (near, far) = (Nics::open(EIGHT), Nics::open(EIGHT));
    let pairs: Vec<_> = (0..EIGHT as usize).map(|nic| pair_on(nic, &near, &far)).collect();
    for (nic, pair) in pairs.iter().enumerate() {
        assert_eq!(pair.client.device().unwrap().attributes().name, format!("sw{nic}"));
        write(pair, nic as u64);
    }
    for (silent, pair) in pairs.iter().enumerate() {
        let (id, bytes) = {
            near.switches(silent).set_silent(true);
            start(pair, 10 + silent as u64)
        };
        for (nic, other) in pairs.iter().enumerate().filter(|(nic, _)| *nic != silent) {
            write(other, 20 + nic as u64);
        }
        assert_eq!(pair.here.status(id), Status::Pending, "NIC {silent}");
        near.switches(silent).set_silent(false);
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
        assert!(content(&pair.target) == bytes);
    }
}

#[test]
fn an_engine_with_eight_nics_begins_with_the_first_one() {
    let (near, far) = (Nics::open(EIGHT), Nics::open(EIGHT));
    let pair = Pair::between(near.engine(&[]), far.engine(&[]), LENGTH);
    write(&pair, 1);
    for engine in [&pair.client, &pair.server] {
        assert_eq!(engine.device().unwrap().attributes().name, "sw0");
    }
}

#[test]
fn a_transfer_waits_for_a_software_port_that_comes_back() {
    for path in [PathKind::InProcess, PathKind::Tcp] {
        let (near, far) = (Nics::on_path(1, Some(path)), Nics::on_path(1, Some(path)));
        let pair = pair_on(0, &near, &far);
        write(&pair, 1);
        near.set_port(0, false);
        eventually("the lanes leave working order", || pair.here.info().healthy_lanes == 0);
        let (id, bytes) = start(&pair, 2);
        assert_eq!(pair.here.wait(id, Duration::from_millis(50)), Status::Pending, "{path}");
        near.set_port(0, true);
        assert_eq!(outcome(&pair.here, id), Outcome::Done, "{path}");
        assert!(content(&pair.target) == bytes, "{path}");
    }
}

#[test]
fn a_lost_software_device_ends_its_connections() {
    let (near, far) = (Nics::open(2), Nics::open(2));
    let (lost, other) = (pair_on(0, &near, &far), pair_on(1, &near, &far));
    write(&lost, 1);
    let start = Instant::now();
    near.lose(0);
    eventually("both ends end", || !lost.here.is_usable() && !lost.there.is_usable());
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
    assert!(near.devices[0].check_use().is_err());
    write(&other, 2);
}

/// Lanes are rebuilt with both ends: what arrives late has been refused by then.
#[test]
fn nothing_arrives_after_a_transfer_of_which_lanes_were_rebuilt() {
    let (near, far) = (Nics::open(1), Nics::open(1));
    let pair = pair_on(0, &near, &far);
    near.switches(0).set_late(Duration::from_millis(3));
    for round in 0..20 {
        near.switches(0).set_silent(true);
        let (id, bytes) = start(&pair, round);
        std::thread::sleep(Duration::from_millis(1));
        near.devices[0].break_queue_pairs();
        near.switches(0).set_silent(false);
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
        assert!(content(&pair.target) == bytes, "round {round}");
        assert!(near.switches(0).left() > round, "nothing was under way");
        assert!(pair.target.write(0, &vec![0xa5; LENGTH]));
        std::thread::sleep(Duration::from_millis(6));
        assert!(content(&pair.target).iter().all(|byte| *byte == 0xa5), "round {round}: late bytes");
    }
}
