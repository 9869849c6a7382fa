//! What a connection must do, whatever its rails are and do: the cases of the provider's conformance suite that make sense between two
//! engines, over two and eight software devices and over eight devices of the stand-in libibverbs, of which one is silent, one slow and one
//! fails; with every kind of memory, both opcodes, and every way to start a transfer and to learn of its end.
#![allow(unsafe_code, reason = "registers memory by address")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod bench;
mod cases;
#[allow(dead_code, unreachable_pub, missing_debug_implementations, missing_docs, reason = "shared helpers")]
#[path = "../conformance/memory.rs"]
mod mapped;
#[path = "../nics/mod.rs"]
mod nics;
#[cfg(feature = "verbs")]
#[path = "../nullverbs/mod.rs"]
mod nullverbs;
#[path = "../support/mod.rs"]
mod support;
mod window;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bench::Bench;
use cases::CASES;
use flagcx_p2p::internals::fabric::PathKind;
use flagcx_p2p::internals::observe::RailInfo;
use nics::{Nics, carried};
use window::Kind;

/// Bounds on times are for a machine that does nothing else: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every case with every kind of memory.
fn run(what: &str, bench: &Bench) {
    let begin = Instant::now();
    for kind in Kind::ALL {
        for (name, case) in CASES {
            let started = Instant::now();
            bench.set_case(format!("{what}, {kind:?}: {name}"));
            case(bench, kind);
            bench.expect_recovery();
            let taken = started.elapsed();
            if taken.as_millis() > 500 {
                let pauses = |rail: &RailInfo| (rail.status, rail.pauses, rail.last_pause);
                let pauses: Vec<_> = bench.here.rails().iter().map(pauses).collect();
                println!("{what}, {kind:?}: {name} took {taken:?}: {pauses:?}");
            }
        }
    }
    let carried = carried(&bench.here);
    println!("{what}: {:?}, bytes of the rails: {carried:?}", begin.elapsed());
    assert!(carried.iter().filter(|bytes| **bytes > 0).count() > 1, "rails were not used: {carried:?}");
}

fn over_software(count: u32, path: Option<PathKind>) {
    let _alone = alone();
    let nics = [(); 2].map(|()| Nics::on_path(count, path));
    let [client, server] = nics.each_ref().map(|nics| nics.engine(bench::SETTINGS));
    run(&format!("{count} software devices, {path:?}"), &Bench::new(client, server, count as usize));
}

#[test]
fn two_software_devices() {
    over_software(2, None);
}

#[test]
fn eight_software_devices() {
    over_software(8, None);
}

#[test]
fn eight_software_devices_by_sockets() {
    over_software(8, Some(PathKind::Tcp));
}

/// As between processes: the kernel copies.
#[test]
fn two_software_devices_by_copies_of_the_kernel() {
    over_software(2, Some(PathKind::CrossMemory));
}

#[cfg(feature = "verbs")]
mod verbs {
    use std::sync::Arc;
    use std::time::Duration;

    use flagcx_p2p::internals::engine::{Engine, EngineOptions};
    use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions};

    use super::*;
    use crate::nullverbs::Standin;

    fn engine(standin: &Standin) -> Arc<Engine> {
        let choice = FabricChoice::Verbs;
        let options = FabricOptions { choice, verbs: standin.options(), ..FabricOptions::default() };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let verbs = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
        let settings = [&verbs, bench::SETTINGS].concat();
        Engine::open(support::config(&settings), EngineOptions { gpu_index: 0, devices }).unwrap()
    }

    fn standin(settings: &[(&str, u64)]) -> (Standin, Bench) {
        let standin = Standin::playing("eight_devices", &[settings, &[("troubles", 1)]].concat());
        let bench = Bench::new(engine(&standin), engine(&standin), 8);
        (standin, bench)
    }

    #[test]
    fn eight_devices() {
        let _alone = alone();
        let (_standin, bench) = standin(&[]);
        run("eight devices", &bench);
    }

    #[test]
    fn eight_devices_of_which_one_is_silent_one_slow_and_one_fails() {
        let _alone = alone();
        let slow = Duration::from_millis(2).as_nanos() as u64;
        let (standin, bench) = standin(&[("fail_every", 3), ("slow_ns", slow)]);
        standin.set("silent_devices", 1 << 2);
        standin.set("slow_devices", 1 << 3);
        standin.set("failing_devices", 1 << 4);
        run("eight devices, 2 silent, 3 slow, 4 failing", &bench);
        for setting in ["silent_devices", "slow_devices", "failing_devices"] {
            standin.set(setting, 0);
        }
    }
}
