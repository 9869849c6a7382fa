//! Eight devices of the stand-in libibverbs, of which some are silent, slow, fail or have no link: an engine on each.
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
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode, VerbsOptions};
use flagcx_p2p::internals::transfer::{Outcome, Status, TransferId};
use nullverbs::{Event, Standin};
use support::{Pair, content, eventually, outcome, pattern};

const LENGTH: usize = 1 << 16;
const SILENT: usize = 2;
const SLOW: usize = 3;
const FAILING: usize = 4;
const SLOWNESS: Duration = Duration::from_millis(250);

fn eight() -> Standin {
    let slow_ns = SLOWNESS.as_nanos() as u64;
    Standin::playing("eight_devices", &[("troubles", 1), ("slow_ns", slow_ns), ("fail_every", 5)])
}

fn engine(standin: &Standin, nic: usize) -> Arc<Engine> {
    let verbs = VerbsOptions { hca: format!("=nv{nic}"), ..standin.options() };
    let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let settings = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
    Engine::open(support::config(&settings), EngineOptions { gpu_index: 0, devices }).unwrap()
}

fn pairs(standin: &Standin) -> Vec<Pair> {
    (0..8).map(|nic| Pair::between(engine(standin, nic), engine(standin, nic), LENGTH)).collect()
}

fn start(pair: &Pair, seed: u64) -> (TransferId, Vec<u8>) {
    let bytes = pattern(seed, LENGTH);
    assert!(pair.source.write(0, &bytes));
    (pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)]).unwrap(), bytes)
}

/// A WRITE that arrives whole, and how long it took.
fn write(pair: &Pair, seed: u64) -> Duration {
    let begin = Instant::now();
    let (id, bytes) = start(pair, seed);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    let taken = begin.elapsed();
    assert!(content(&pair.target) == bytes);
    taken
}

fn is_whole(connection: &Connection) -> bool {
    connection.info().healthy_lanes == connection.info().lanes
}

#[test]
fn each_of_eight_devices_has_its_own_trouble() {
    let standin = eight();
    let pairs = pairs(&standin);
    for (nic, pair) in pairs.iter().enumerate() {
        assert_eq!(pair.client.device().unwrap().attributes().name, format!("nv{nic}"));
        write(pair, nic as u64);
    }
    standin.set("silent_devices", 1 << SILENT);
    standin.set("slow_devices", 1 << SLOW);
    standin.set("failing_devices", 1 << FAILING);
    let (lost, _) = start(&pairs[SILENT], 9);
    for (nic, pair) in pairs.iter().enumerate().filter(|(nic, _)| *nic != SILENT) {
        let taken = write(pair, 10 + nic as u64);
        assert_eq!(taken >= SLOWNESS, nic == SLOW, "NIC {nic}: {taken:?}");
    }
    for round in 0..8 {
        write(&pairs[FAILING], 20 + round);
    }
    assert_eq!(pairs[SILENT].here.status(lost), Status::Pending);

    standin.set("silent_devices", 0);
    assert_eq!(outcome(&pairs[SILENT].here, lost), Outcome::Done, "a lost request is sent again");
    standin.set("slow_devices", 0);
    standin.set("failing_devices", 0);
    for (nic, pair) in pairs.iter().enumerate() {
        eventually("all lanes are back", || is_whole(&pair.here));
        let taken = write(pair, 30 + nic as u64);
        assert!(taken < SLOWNESS || nic == SILENT, "NIC {nic}: {taken:?}");
    }
}

/// Its peer's end as well: requests to it are lost.
#[test]
fn nothing_reaches_a_device_that_is_silent_at_the_other_end() {
    let standin = eight();
    let pair = Pair::between(engine(&standin, 0), engine(&standin, 1), LENGTH);
    write(&pair, 1);
    standin.set("silent_devices", 0b10);
    let (id, _) = start(&pair, 2);
    assert_eq!(pair.here.wait(id, Duration::from_millis(50)), Status::Pending);
    assert!(pair.here.cancel(id));
    standin.set("silent_devices", 0);
    eventually("all lanes are back", || is_whole(&pair.here));
    write(&pair, 3);
}

#[test]
fn one_port_goes_down_and_comes_back() {
    let standin = eight();
    let pairs = pairs(&standin);
    standin.raise_on(Event::PortDown, 5);
    eventually("the lanes leave working order", || pairs[5].here.info().healthy_lanes == 0);
    for (nic, pair) in pairs.iter().enumerate() {
        assert_eq!(pair.client.device().unwrap().port().unwrap().active, nic != 5, "NIC {nic}");
        if nic != 5 {
            write(pair, nic as u64);
        }
    }
    let (id, bytes) = start(&pairs[5], 7);
    assert_eq!(pairs[5].here.wait(id, Duration::from_millis(50)), Status::Pending);
    standin.raise_on(Event::PortUp, 5);
    assert_eq!(outcome(&pairs[5].here, id), Outcome::Done);
    assert!(content(&pairs[5].target) == bytes);
}
