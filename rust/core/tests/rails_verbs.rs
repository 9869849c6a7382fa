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

mod nics;
mod nullverbs;
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, TransferId};
use nics::{ENOUGH, PATIENT, carried, make_rails, moved, up, use_again};
use nullverbs::{Event, Standin};
use support::own_time::OwnTime;
use support::{Pair, blocks, content, eventually, outcome};

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];
const GUARD: u8 = 0xa5;
const MOVED: Duration = Duration::from_secs(2);

/// So many transfers one after the other do not all avoid a rail that works.
const MOST_TURNS: u64 = 100;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine(standin: &Standin, settings: &[(&str, &str)]) -> Arc<Engine> {
    let options =
        FabricOptions { choice: FabricChoice::Verbs, verbs: standin.options(), ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let all = [
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_P2P_BIND", "127.0.0.1"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "10000"),
    ];
    Engine::open(support::config(&[settings, &all].concat()), EngineOptions { gpu_index: 0, devices })
        .unwrap()
}

/// Eight devices, or what `profile` and `settings` make of them, and two engines that have all of them.
struct Bench {
    standin: Standin,
    pair: Pair,
}

impl Bench {
    /// No rail of it is found silent.
    fn new(profile: &str, settings: &[(&str, u64)]) -> Self {
        Self::of(profile, settings, &[PATIENT])
    }

    fn of(profile: &str, settings: &[(&str, u64)], of_engines: &[(&str, &str)]) -> Self {
        let standin = Standin::playing(profile, settings);
        let [client, server] = [(); 2].map(|()| engine(&standin, of_engines));
        Self { standin, pair: Pair::between(client, server, ENOUGH) }
    }

    /// No rail of it is found silent.
    fn with_rails(profile: &str, settings: &[(&str, u64)], count: usize) -> Self {
        Self::new(profile, &[settings, &[("troubles", 1)]].concat()).make_rails(count)
    }

    /// Eight devices, of which rails that are silent are found, as by default.
    fn watchful(settings: &[(&str, u64)]) -> Self {
        Self::of("eight_devices", &[settings, &[("troubles", 1)]].concat(), &[]).make_rails(8)
    }

    fn make_rails(self, count: usize) -> Self {
        make_rails(&self.pair.here, &self.pair.source, self.pair.target.address(), count);
        self
    }

    /// Begins a transfer of which `rail` has a part that waits, as its device is silent. Which rails a transfer takes depends on rates that were
    /// measured, so one that has met the others only is followed by another one. Also how many parts were moved before.
    fn hold(&self, opcode: Opcode, rail: usize, seed: u64) -> (TransferId, Vec<u8>, u64) {
        for turn in 0..MOST_TURNS {
            let (all, before) = (moved(&self.pair.here), self.pair.here.rails()[rail].moved_parts);
            self.standin.set("silent_devices", 1 << self.device(rail));
            let (id, bytes) = self.start(opcode, seed + turn);
            let found = &self.pair.here.rails()[rail];
            // On a busy machine its silence may have been found already.
            if found.in_flight_bytes > 0 || found.moved_parts > before {
                return (id, bytes, all);
            }
            self.finish(opcode, &(id, bytes), "without the rail");
            self.standin.set("silent_devices", 0);
            // A question may have found it silent: then it is left for a moment, and avoided for longer.
            use_again(&self.pair.here, rail, || self.check_all(Opcode::Write, seed + turn));
        }
        panic!("no part came to rail {rail}: {:#?}", self.pair.here.rails())
    }

    fn start(&self, opcode: Opcode, seed: u64) -> (TransferId, Vec<u8>) {
        let bytes = blocks(seed, ENOUGH);
        let (from, to) = self.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; ENOUGH]));
        (self.pair.here.submit(opcode, &[self.pair.iov(0, 0, ENOUGH as u64)][..]).unwrap(), bytes)
    }

    fn ends(&self, opcode: Opcode) -> (&RegisteredBuffer, &RegisteredBuffer) {
        match opcode {
            Opcode::Write => (&self.pair.source, &self.pair.target),
            Opcode::Read => (&self.pair.target, &self.pair.source),
        }
    }

    fn finish(&self, opcode: Opcode, (id, bytes): &(TransferId, Vec<u8>), what: &str) {
        let rails = || self.pair.here.rails();
        assert_eq!(outcome(&self.pair.here, *id), Outcome::Done, "{what}: {:#?}", rails());
        assert!(content(self.ends(opcode).1) == *bytes, "{what}: done, and other bytes are there");
    }

    fn check_all(&self, opcode: Opcode, seed: u64) {
        self.finish(opcode, &self.start(opcode, seed), &format!("{opcode:?} {seed}"));
    }

    /// The device of rail `rail`, by its number.
    fn device(&self, rail: usize) -> u64 {
        let name = self.pair.here.rails()[rail].nic.clone();
        name.trim_start_matches("nv").split(':').next().and_then(|digits| digits.parse().ok()).unwrap()
    }

    /// Until `rail` is up and used. On a busy machine another one may be silent just then.
    fn expect_return(&self, rail: usize) -> Duration {
        let (time, before) = (OwnTime::start(), carried(&self.pair.here)[rail]);
        let is_up = || self.pair.here.rails()[rail].status == RailStatus::Up;
        while !is_up() || carried(&self.pair.here)[rail] == before {
            self.check_all(Opcode::Write, 3);
            assert!(!time.exceeds(Duration::from_secs(6)), "{:#?}", self.pair.here.rails());
        }
        time.elapsed()
    }

    /// No fault of a device has left another one's rail out for good.
    fn expect_all(&self) {
        eventually("all rails are up", || {
            self.check_all(Opcode::Write, 3);
            up(&self.pair.here).len() == 8
        });
    }
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

/// The largest region of the first device, and how much larger that of each further one is: hardly any two segments end at the same place.
const IN_SEGMENTS: [(&str, u64); 2] = [("max_region", 1 << 20), ("region_step", 49 << 12)];

/// Pieces of both buffers, all but the first `shift` bytes of the peer's.
#[derive(Clone, Copy, Debug)]
struct Pieces {
    length: u64,
    shift: u64,
}

impl Pieces {
    /// In one segment of the first device each, in several, and all in one, also where a segment of one end never ends with one of the other.
    const ALL: [Self; 5] = [
        Self { length: 1 << 17, shift: 0 },
        Self { length: 777_777, shift: 0 },
        Self { length: 3_000_001, shift: 5 << 12 },
        Self { length: ENOUGH as u64, shift: 0 },
        Self { length: ENOUGH as u64, shift: 123_457 },
    ];

    /// Starts a transfer of them; answers what is to be in the whole buffer that it writes to.
    fn start(self, bench: &Bench, opcode: Opcode, seed: u64) -> (TransferId, Vec<u8>) {
        let (bytes, mut expected) = (blocks(seed, ENOUGH), vec![GUARD; ENOUGH]);
        let (from, to) = bench.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &expected));
        let (shift, moved) = (self.shift as usize, ENOUGH - self.shift as usize);
        match opcode {
            Opcode::Write => expected[shift..].copy_from_slice(&bytes[..moved]),
            Opcode::Read => expected[..moved].copy_from_slice(&bytes[shift..]),
        }
        let iovs = (0..moved as u64).step_by(self.length as usize);
        let iovs = iovs.map(|at| bench.pair.iov(at, at + self.shift, self.length.min(moved as u64 - at)));
        let id = bench.pair.here.submit(opcode, &iovs.collect::<Vec<_>>()[..]).unwrap();
        (id, expected)
    }
}

/// Each segment has a key of its own on each device, and ends elsewhere.
#[test]
fn regions_in_segments_go_over_all_rails() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &IN_SEGMENTS, 8);
    let segments = |buffer: &RegisteredBuffer, engine: &Engine| {
        engine.find_region(buffer.address(), 1).unwrap().segment_count()
    };
    assert!(segments(&bench.pair.source, &bench.pair.client) >= 32);
    assert!(segments(&bench.pair.target, &bench.pair.server) >= 32);
    for pieces in Pieces::ALL {
        for opcode in OPCODES {
            let before = carried(&bench.pair.here);
            let unused = || {
                let now = carried(&bench.pair.here);
                now.iter().zip(&before).filter(|(now, before)| now == before).count()
            };
            let mut seed = 0;
            // Which ones a transfer takes depends on rates that were measured.
            while seed == 0 || unused() > 0 {
                assert!(
                    seed < 40,
                    "{pieces:?}, {opcode:?}: a rail carries nothing: {:#?}",
                    bench.pair.here.rails()
                );
                bench.finish(opcode, &pieces.start(&bench, opcode, seed), &format!("{pieces:?} {opcode:?}"));
                seed += 1;
            }
        }
    }
}

/// Requests that are in one segment on the device that fails are in several on the others, here and at the peer.
#[test]
fn what_crosses_segments_on_another_device_moves_there() {
    let _alone = alone();
    let bench = Bench::watchful(&IN_SEGMENTS);
    for (rail, pieces, opcode) in [
        (7, Pieces::ALL[3], Opcode::Write),
        (7, Pieces::ALL[4], Opcode::Read),
        (4, Pieces::ALL[4], Opcode::Write),
        (0, Pieces::ALL[2], Opcode::Write),
        (0, Pieces::ALL[3], Opcode::Read),
    ] {
        let what = format!("rail {rail}, {pieces:?}, {opcode:?}");
        let before = moved(&bench.pair.here);
        let time = OwnTime::start();
        // Until the plan has given it something.
        for seed in 0.. {
            bench.standin.set("silent_devices", 1 << bench.device(rail));
            bench.finish(opcode, &pieces.start(&bench, opcode, seed), &what);
            let has_moved = moved(&bench.pair.here) > before;
            assert!(bench.ends(opcode).1.write(0, &vec![GUARD; ENOUGH]));
            bench.standin.set("silent_devices", 0);
            bench.expect_return(rail);
            if has_moved {
                break;
            }
            assert!(!time.exceeds(Duration::from_secs(10)), "{what}: {:#?}", bench.pair.here.rails());
        }
    }
    bench.expect_all();
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
    let number = |name: &str| -> u64 {
        name.trim_start_matches("nv").split(':').next().and_then(|digits| digits.parse().ok()).unwrap()
    };
    for rail in &rails {
        assert_eq!(number(&rail.peer_nic), far(number(&rail.nic)), "{rails:#?}");
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
    let Bench { standin, pair } = bench;
    pair.client.close();
    pair.server.close();
    drop(pair);
    eventually("nothing is alive", || {
        let live = standin.live();
        (live.queue_pairs, live.regions, live.completion_queues) == (0, 0, 0)
    });
}

/// No queue pair, region or completion queue of any device stays.
#[test]
fn nothing_is_left_of_rails_when_their_engines_are_closed() {
    let _alone = alone();
    let bench = Bench::with_rails("eight_devices", &[], 8);
    bench.check_all(Opcode::Write, 1);
    let Bench { standin, pair } = bench;
    pair.client.close();
    pair.server.close();
    drop(pair);
    eventually("nothing is alive", || {
        let live = standin.live();
        (live.queue_pairs, live.regions, live.completion_queues) == (0, 0, 0)
    });
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
