//! Transfers that are not polled, over a device that needs no polling to execute them.
#![cfg(feature = "verbs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod nullverbs;
mod support;

use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::transfer::{Outcome, Status};
use nullverbs::Standin;
use support::Pair;

#[test]
fn their_time_runs_all_the_same() {
    let standin = Standin::new(&[("delay_ns", 60_000_000_000)]);
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let config = support::config(&[
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_P2P_BIND", "127.0.0.1"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "200"),
    ]);
    let engine = || {
        Engine::open(Arc::clone(&config), EngineOptions { gpu_index: 0, devices: devices.clone() }).unwrap()
    };
    let pair = Pair::between(engine(), engine(), 4096);
    // Longer than threads take to go to rest.
    std::thread::sleep(Duration::from_millis(300));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)]).unwrap();
    // Its caller waits for something else meanwhile, a notification perhaps. Noticed, late, and its queue pair destroyed
    // as it does not flush, after this.
    std::thread::sleep(Duration::from_millis(250 + 200 + 2000 + 1000));
    assert_eq!(pair.here.status(id), Status::Ended(Outcome::TimedOut));
}
