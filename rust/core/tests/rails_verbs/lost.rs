//! Devices that are lost, and queue pairs that do not drain.

use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::Outcome;

use crate::bench::{Bench, device_number};
use crate::nics::{ENOUGH, moved, up};
use crate::nullverbs::Event;
use crate::support::own_time::OwnTime;
use crate::support::{blocks, content, eventually, outcome};
use crate::{GUARD, MOVED, OPCODES, alone};

#[test]
fn a_lost_device_is_done_without() {
    let _alone = alone();
    for rail in [6, 0] {
        let bench = Bench::with_rails("eight_devices", &[], 8);
        let device = bench.device(rail);
        bench.standin.set("silent_devices", 1 << device);
        let started = bench.start(Opcode::Write, 1);
        bench.standin.raise_on(Event::DeviceFatal, device as i32);
        bench.finish(Opcode::Write, &started, "lost");
        for (seed, opcode) in OPCODES.into_iter().cycle().take(4).enumerate() {
            bench.check_all(opcode, 2 + seed as u64);
        }
        assert!(bench.pair.here.is_usable() && bench.pair.there.is_usable());
        assert_eq!(up(&bench.pair.here).len(), 7, "{:#?}", bench.pair.here.rails());
    }
}

/// The first rail is the only one when its device is lost: at both ends, as they are in one process.
#[test]
fn a_connection_outlives_its_only_device() {
    let _alone = alone();
    const EACH: u64 = 256 << 10;
    const COUNT: u64 = 12;
    for (opcode, is_stuck) in OPCODES.into_iter().flat_map(|opcode| [(opcode, false), (opcode, true)]) {
        let bench = Bench::new("eight_devices", &[("troubles", 1)]);
        let (pair, device) = (&bench.pair, bench.device(0));
        eventually("the NICs are known", || {
            [&pair.here, &pair.there].iter().all(|end| !end.rails()[0].peer_nic.is_empty())
        });
        let bytes = blocks(1, ENOUGH);
        let (from, to) = bench.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; ENOUGH]));
        bench.standin.set("silent_devices", 1 << device);
        if is_stuck {
            // As of a device that was pulled: nothing is flushed.
            bench.standin.set("stuck_devices", 1 << device);
        }
        let part = |at: u64| pair.here.submit(opcode, &[pair.iov(at * EACH, at * EACH, EACH)][..]).unwrap();
        let ids: Vec<_> = (0..COUNT).map(part).collect();
        assert_eq!(pair.here.rails().len(), 1);
        let begin = OwnTime::start();
        bench.standin.raise_on(Event::DeviceFatal, device as i32);
        for id in ids {
            let rails = || pair.here.rails();
            assert_eq!(outcome(&pair.here, id), Outcome::Done, "{opcode:?}, {is_stuck}: {:#?}", rails());
        }
        println!("{opcode:?}, stuck: {is_stuck}: done {:?} after the device was lost", begin.elapsed());
        let written = (COUNT * EACH) as usize;
        assert!(content(to)[..written] == bytes[..written]);
        assert!(to.write(0, &vec![GUARD; ENOUGH]));
        bench.standin.set("silent_devices", 0);
        std::thread::sleep(Duration::from_millis(20));
        assert!(content(to) == vec![GUARD; ENOUGH], "written after the end of the transfers");
        for seed in 0..4 {
            bench.check_all(opcode, 2 + seed);
        }
        assert!(pair.here.is_usable() && pair.there.is_usable());
    }
}

/// One end has a single device, and the one that it was connected to is lost.
#[test]
fn a_single_device_goes_on_with_another_one_of_the_peer() {
    let _alone = alone();
    for (seed, opcode) in OPCODES.into_iter().enumerate() {
        for (devices, is_near) in [(["nv0", "nv1,nv2"], false), (["nv1,nv2", "nv0"], true)] {
            for is_stuck in [false, true] {
                let bench = Bench::of_devices(devices);
                let pair = &bench.pair;
                let what = format!("{devices:?}, {opcode:?}, stuck: {is_stuck}");
                eventually("the NICs are known", || {
                    [&pair.here, &pair.there].iter().all(|end| !end.rails()[0].peer_nic.is_empty())
                });
                let device =
                    if is_near { bench.device(0) } else { device_number(&pair.here.rails()[0].peer_nic) };
                let lost = 1 << device;
                bench.standin.set("silent_devices", lost | 1 << bench.device(0));
                if is_stuck {
                    bench.standin.set("stuck_devices", lost);
                }
                let started = bench.start(opcode, seed as u64);
                let begin = OwnTime::start();
                bench.standin.raise_on(Event::DeviceFatal, device as i32);
                let is_down = |end: &Connection| end.rails()[0].status == RailStatus::Down;
                eventually("the rail is down", || is_down(&pair.here) && is_down(&pair.there));
                // The single device works.
                bench.standin.set("silent_devices", lost);
                bench.finish(opcode, &started, &what);
                println!("{what}: done {:?} after the device was lost", begin.elapsed());
                assert!(begin.elapsed() < MOVED, "{what}: it took {:?}", begin.elapsed());
                assert!(moved(&pair.here) > 0, "{what}: {:#?}", pair.here.rails());
                assert!(bench.ends(opcode).1.write(0, &vec![GUARD; ENOUGH]));
                bench.standin.set("silent_devices", 0);
                std::thread::sleep(Duration::from_millis(20));
                assert!(content(bench.ends(opcode).1) == vec![GUARD; ENOUGH], "{what}: written later");
                OPCODES.into_iter().for_each(|opcode| bench.check_all(opcode, 9));
                assert_eq!([&pair.here, &pair.there].map(|end| end.rails().len()), [2, 2], "{what}");
            }
        }
    }
}

/// Its requests stay outstanding until it is destroyed; or it works on although it was to go to ERROR. Then nothing of it may arrive later.
#[test]
fn a_queue_pair_that_does_not_drain_is_destroyed_and_its_parts_move() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &[], 8);
    let mut seed = 10;
    for (trouble, errno) in
        [("stuck_devices", 0), ("stiff_devices", libc::EIO), ("stiff_devices", libc::EBUSY)]
    {
        for (rail, opcode) in [(5, Opcode::Write), (5, Opcode::Read), (0, Opcode::Write)] {
            let (device, before) = (bench.device(rail), moved(&bench.pair.here));
            let what = format!("{trouble}, errno {errno}, rail {rail}, {opcode:?}");
            bench.standin.set("stiff_errno", errno as u64);
            // A transfer may get no part on that rail: then it is another one's turn.
            while moved(&bench.pair.here) == before {
                assert!(seed < 200, "{what}: nothing has moved: {:#?}", bench.pair.here.rails());
                bench.expect_return(rail);
                bench.standin.set(trouble, 1 << device);
                bench.standin.set("silent_devices", 1 << device);
                seed += 1;
                let started = bench.start(opcode, seed);
                let begin = OwnTime::start();
                bench.standin.raise_on(Event::PortDown, device as i32);
                bench.finish(opcode, &started, &what);
                let taken = begin.elapsed();
                println!("{what}: done after {taken:?}");
                assert!(taken < MOVED, "{what}: it took {taken:?}");
                if moved(&bench.pair.here) == before {
                    ["silent_devices", trouble].iter().for_each(|setting| bench.standin.set(setting, 0));
                    bench.standin.raise_on(Event::PortUp, device as i32);
                }
            }
            assert!(bench.ends(opcode).1.write(0, &vec![GUARD; ENOUGH]));
            for setting in ["silent_devices", trouble] {
                bench.standin.set(setting, 0);
            }
            bench.standin.raise_on(Event::PortUp, device as i32);
            std::thread::sleep(Duration::from_millis(20));
            let quiet = content(bench.ends(opcode).1) == vec![GUARD; ENOUGH];
            assert!(quiet, "{what}: written after the end of the transfer");
            bench.expect_return(rail);
        }
    }
    bench.expect_all();
}
