//! What a connection must do, whatever its rails are and do: the cases of the provider's conformance suite that make sense between two
//! engines, over two and eight software devices and over eight devices of the stand-in libibverbs, of which one is silent, one slow and one
//! fails; with every kind of memory, that of played GPUs too, both opcodes, and every way to start a transfer and to learn of its end.
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
#[cfg(feature = "verbs")]
#[allow(dead_code, unreachable_pub, missing_debug_implementations, missing_docs, reason = "shared helpers")]
#[path = "../gpu_suite/cuda.rs"]
mod cuda;
#[cfg(feature = "verbs")]
mod gpu_memory;
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
use window::Kinds;

/// Bounds on times are for a machine that does nothing else: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every case with every kind of host memory.
fn run(what: &str, bench: &Bench) {
    let carried = run_with(what, bench, &Kinds::OF_HOSTS);
    assert!(carried.iter().filter(|bytes| **bytes > 0).count() > 1, "rails were not used: {carried:?}");
}

/// Every case with these kinds of memory; answers what each rail has carried of that.
fn run_with(what: &str, bench: &Bench, kinds: &[Kinds]) -> Vec<u64> {
    let (begin, before) = (Instant::now(), carried(&bench.here));
    for kinds in kinds {
        for (name, case) in CASES {
            let started = Instant::now();
            bench.set_case(format!("{what}, {kinds:?}: {name}"));
            case(bench, *kinds);
            bench.expect_recovery();
            let taken = started.elapsed();
            if taken.as_millis() > 500 {
                let pauses = |rail: &RailInfo| (rail.status, rail.pauses, rail.last_pause);
                let pauses: Vec<_> = bench.here.rails().iter().map(pauses).collect();
                println!("{what}, {kinds:?}: {name} took {taken:?}: {pauses:?}");
            }
        }
    }
    let carried: Vec<_> =
        carried(&bench.here).iter().zip(&before).map(|(now, before)| now - before).collect();
    println!("{what}: {:?}, bytes of the rails: {carried:?}", begin.elapsed());
    carried
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
    use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode};
    use flagcx_p2p::internals::transfer::{Iov, Outcome};

    use super::*;
    use crate::gpu_memory::Installed;
    use crate::nics::{ENOUGH, up};
    use crate::nullverbs::Standin;
    use crate::window::{Kind, Window};

    fn engine(standin: &Standin, settings: &[(&str, &str)]) -> Arc<Engine> {
        let choice = FabricChoice::Verbs;
        let options = FabricOptions { choice, verbs: standin.options(), ..FabricOptions::default() };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        let verbs = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
        let settings = [settings, &verbs, bench::SETTINGS].concat();
        Engine::open(support::config(&settings), EngineOptions { gpu_index: 0, devices }).unwrap()
    }

    fn standin(settings: &[(&str, u64)]) -> (Standin, Bench) {
        let standin = Standin::playing("eight_devices", &[settings, &[("troubles", 1)]].concat());
        let bench = Bench::new(engine(&standin, &[]), engine(&standin, &[]), 8);
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

    /// Memory of a GPU at one end or both, over so many devices. Those that are `near` are the fastest; the next one is the spare. The
    /// faults come once the rails are made.
    fn over_gpus(what: &str, devices: u64, near: u64, needs_flush: bool, faults: &[(&str, u64)]) {
        let _alone = alone();
        let _runtime = Installed::new();
        let settings = [
            ("devs", devices),
            ("narrow_ports", !0 << near),
            ("late_writes", needs_flush.into()),
            ("troubles", 1),
        ];
        let standin = Standin::playing("eight_devices", &settings);
        let flush = [("FLAGCX_GDR_WRITE_REQUIRES_FLUSH", if needs_flush { "1" } else { "0" })];
        let [client, server] = [(); 2].map(|()| engine(&standin, &flush));
        let mut bench = Bench::as_of_two_processes(client, server, devices as usize);
        bench.is_flushed = needs_flush;
        faults.iter().for_each(|(setting, value)| standin.set(setting, *value));
        let carried = run_with(what, &bench, &Kinds::OF_GPUS);
        for (rail, bytes) in bench.here.rails().iter().zip(&carried) {
            let device: u64 = rail.nic.trim_start_matches("nv").split(':').next().unwrap().parse().unwrap();
            let is_whole = faults.is_empty() && device < near;
            assert!(!is_whole || *bytes > 0, "{what}: {device} is near, and carries nothing");
            assert!(device <= near || *bytes == 0, "{what}: {device} is neither near nor the spare");
        }
        let used = carried.iter().filter(|bytes| **bytes > 0).count();
        assert!(used > 1 || near == 1, "{what}: further rails were not used: {carried:?}");
        for (setting, _) in faults {
            standin.set(setting, 0);
        }
    }

    #[test]
    fn memory_of_gpus_over_two_devices() {
        over_gpus("GPUs, two devices", 2, 1, false, &[]);
    }

    #[test]
    fn memory_of_gpus_that_is_flushed_over_eight_devices() {
        over_gpus("GPUs with flush, eight devices", 8, 3, true, &[]);
    }

    #[test]
    fn memory_of_gpus_over_devices_of_which_one_near_is_silent_and_one_fails() {
        let faults = [("silent_devices", 1 << 1), ("failing_devices", 1 << 2), ("fail_every", 3)];
        over_gpus("GPUs with flush, eight devices, 1 silent, 2 failing", 8, 3, true, &faults);
    }

    /// Near the GPU are two devices, and one is the spare: rails over the others would carry none of its memory.
    #[test]
    fn memory_of_gpus_makes_rails_over_the_devices_that_have_it() {
        let _alone = alone();
        let _runtime = Installed::new();
        let standin = Standin::playing("eight_devices", &[("narrow_ports", !0 << 2)]);
        let [client, server] = [(); 2].map(|()| engine(&standin, &[]));
        let (here, _there) = bench::connect_as_of_two_processes(&client, &server);
        let bytes = support::blocks(1, ENOUGH);
        let near = Window::new(&client, Kind::Gpu, &bytes);
        let far = Window::new(&server, Kind::Gpu, &vec![0; ENOUGH]);
        let mut remote = None;
        support::eventually("the peer's region is known", || {
            remote = here.describe_remote(far.address(), ENOUGH as u32);
            remote.is_some()
        });
        let iov = Iov {
            local: near.address(),
            length: ENOUGH as u64,
            region: Some(near.region),
            remote: remote.unwrap(),
        };
        let write = || {
            let id = here.submit(Opcode::Write, &[iov][..]).unwrap();
            assert_eq!(support::outcome(&here, id), Outcome::Done);
        };
        support::eventually("each of them is a rail", || {
            write();
            up(&here).len() == 3
        });
        (0..40).for_each(|_| write());
        let made: Vec<_> = here.rails().into_iter().map(|rail| rail.nic).collect();
        assert_eq!(made.len(), 3, "{made:?}");
        assert!(
            ["nv0", "nv1", "nv2"].iter().all(|near| made.iter().any(|nic| nic.starts_with(near))),
            "{made:?}"
        );
        assert!(far.bytes() == bytes);
    }
}
