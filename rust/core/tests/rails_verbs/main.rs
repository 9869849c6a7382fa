//! Rails over eight devices of the stand-in libibverbs, of which some are silent, slow, fail, have no link or refuse.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod bench;
mod lanes;
mod lost;
#[path = "../nics/mod.rs"]
mod nics;
#[path = "../nullverbs/mod.rs"]
mod nullverbs;
mod segments;
mod slow_destroy;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bench::{Bench, device_number};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};
use nics::{ENOUGH, carried, moved, up};
use nullverbs::Event;
use support::own_time::OwnTime;
use support::{content, eventually, outcome};

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];
const GUARD: u8 = 0xa5;
const MOVED: Duration = Duration::from_secs(2);

/// So many transfers one after the other do not all avoid a rail that works.
const MOST_TURNS: u64 = 100;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_byte_arrives_over_eight_devices() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &[], 8);
    let before = carried(&bench.pair.here);
    for (seed, opcode) in OPCODES.into_iter().cycle().take(40).enumerate() {
        bench.check_all(opcode, seed as u64);
        let now = carried(&bench.pair.here);
        let shares: Vec<_> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        // Which ones a transfer takes depends on rates that were measured.
        if seed >= 8 && shares.iter().all(|share| *share > 0) {
            return println!("bytes of the rails: {shares:?}");
        }
    }
    panic!("a rail carries nothing: {:#?}", bench.pair.here.rails());
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Silent,
    Failing,
    Port,
    QueuePairs,
}

#[test]
fn a_transfer_outlives_a_device_in_any_trouble() {
    let _alone = alone();
    let bench = Bench::watchful(&[("fail_every", 1)]);
    let standin = &bench.standin;
    let mut seed = 0;
    for trouble in [Trouble::Silent, Trouble::Failing, Trouble::Port, Trouble::QueuePairs] {
        for (rail, opcode) in [(5, Opcode::Write), (5, Opcode::Read), (0, Opcode::Write)] {
            let device = bench.device(rail);
            let what = format!("{trouble:?}, rail {rail}, {opcode:?}");
            seed += 1000;
            let (id, bytes, before) = bench.hold(opcode, rail, seed);
            let time = OwnTime::start();
            match trouble {
                Trouble::Silent => {}
                Trouble::Failing => {
                    standin.set("failing_devices", 1 << device);
                    standin.set("silent_devices", 0);
                }
                Trouble::Port => standin.raise_on(Event::PortDown, device as i32),
                Trouble::QueuePairs => standin.raise_on(Event::QueuePairFatal, device as i32),
            }
            bench.finish(opcode, &(id, bytes), &what);
            let taken = time.elapsed();
            assert!(taken < MOVED, "{what}: it took {taken:?}");
            assert!(moved(&bench.pair.here) > before, "{what}: {:#?}", bench.pair.here.rails());
            assert!(bench.ends(opcode).1.write(0, &vec![GUARD; ENOUGH]));
            standin.set("silent_devices", 0);
            standin.set("failing_devices", 0);
            if matches!(trouble, Trouble::Port) {
                standin.raise_on(Event::PortUp, device as i32);
            }
            std::thread::sleep(Duration::from_millis(20));
            let quiet = content(bench.ends(opcode).1) == vec![GUARD; ENOUGH];
            assert!(quiet, "{what}: written after the end of the transfer");
            let returned = bench.expect_return(rail);
            println!("{what}: done after {taken:?}, used again after {returned:?}");
        }
    }
    bench.expect_all();
}

#[test]
fn one_silent_one_slow_and_one_failing_device_at_a_time() {
    let _alone = alone();
    let slow = Duration::from_millis(5).as_nanos() as u64;
    let bench = Bench::watchful(&[("fail_every", 3), ("slow_ns", slow)]);
    bench.standin.set("silent_devices", 1 << bench.device(2));
    bench.standin.set("slow_devices", 1 << bench.device(3));
    bench.standin.set("failing_devices", 1 << bench.device(4));
    let begin = Instant::now();
    for (seed, opcode) in OPCODES.into_iter().cycle().take(20).enumerate() {
        bench.check_all(opcode, seed as u64);
    }
    println!("20 transfers in {:?}: {:?}", begin.elapsed(), carried(&bench.pair.here));
    for setting in ["silent_devices", "slow_devices", "failing_devices"] {
        bench.standin.set(setting, 0);
    }
    for rail in [2, 3, 4] {
        bench.expect_return(rail);
    }
    bench.expect_all();
}

/// Those that have no reliable connections, as EFA.
#[test]
fn devices_that_refuse_make_no_rail_and_spoil_none() {
    let _alone = alone();
    let bench = Bench::new("eight_devices", &[("no_rc", 0b1001_0100)]);
    for (seed, opcode) in OPCODES.into_iter().cycle().take(20).enumerate() {
        bench.check_all(opcode, seed as u64);
    }
    eventually("the five others are rails", || {
        bench.check_all(Opcode::Write, 1);
        up(&bench.pair.here).len() == 5
    });
    let names: Vec<_> = up(&bench.pair.here).iter().map(|rail| rail.nic.clone()).collect();
    assert!(
        ["nv2", "nv4", "nv7"].iter().all(|refusing| !names.iter().any(|name| name.starts_with(refusing))),
        "{names:?}"
    );
}

/// The devices are connected one to one in another order than that of their names, and their network is the same.
#[test]
fn eight_devices_in_another_order_find_each_other() {
    let _alone = alone();
    let far = |device: u64| if device == 0 { 0 } else { 8 - device };
    let reached = (0..8).fold(0, |mask, device| mask | 1_u64 << (8 * device + far(device)));
    let begin = Instant::now();
    let bench = Bench::with_rails("eight_devices", &[("unreachable", !reached)], 8);
    println!("eight rails in another order after {:?}", begin.elapsed());
    let rails = bench.pair.here.rails();
    for rail in &rails {
        assert_eq!(device_number(&rail.peer_nic), far(device_number(&rail.nic)), "{rails:#?}");
    }
    for (seed, opcode) in OPCODES.into_iter().cycle().take(8).enumerate() {
        bench.check_all(opcode, seed as u64);
    }
}

/// One that reaches none of the peer's makes no rail, leaves the others as they are, and costs no queue pair.
#[test]
fn a_device_that_reaches_none_makes_no_rail() {
    let _alone = alone();
    let cut_off = (0..8).fold(0xff << 24, |mask, device| mask | 1_u64 << (8 * device + 3));
    let bench = Bench::with_rails("eight_devices", &[("unreachable", cut_off)], 7);
    for (seed, opcode) in OPCODES.into_iter().cycle().take(8).enumerate() {
        bench.check_all(opcode, seed as u64);
    }
    let names: Vec<_> = bench.pair.here.rails().iter().map(|rail| rail.nic.clone()).collect();
    assert!(names.len() == 7 && !names.iter().any(|name| name.starts_with("nv3")), "{names:?}");
    assert_eq!(up(&bench.pair.here).len(), 7, "no place is taken by another one");
    bench.close();
}

/// No queue pair, region or completion queue of any device stays.
#[test]
fn nothing_is_left_of_rails_when_their_engines_are_closed() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &[], 8);
    bench.check_all(Opcode::Write, 1);
    bench.close();
}

/// The end that refuses a request learns of it by an event of its device alone.
#[test]
fn wrong_keys_pause_no_rail_of_either_end() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &[], 8);
    let good = bench.pair.iov(0, 0, 4096);
    let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
    for _ in 0..20 {
        let ended = outcome(&bench.pair.here, bench.pair.here.submit(Opcode::Write, &[wrong][..]).unwrap());
        assert!(matches!(ended, Outcome::Failed(_)), "{ended:?}");
    }
    bench.check_all(Opcode::Write, 1);
    for end in [&bench.pair.here, &bench.pair.there] {
        assert!(end.rails().iter().all(|rail| rail.pauses == 0), "{:#?}", end.rails());
    }
}
