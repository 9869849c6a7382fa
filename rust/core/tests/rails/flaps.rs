//! A port that goes down and up again and again, at either end: no transfer fails, no byte differs, and the other rail goes on meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::PauseReason;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::Outcome;

use crate::alone;
use crate::nics::{Nics, moved, up, use_again};
use crate::rail_pair::{GUARD, LENGTH, RailPair};
use crate::support::own_time::OwnTime;
use crate::support::{blocks, eventually, outcome};

/// The rail with the port that flaps, and the one that is left alone.
const RAIL: usize = 1;
const OTHER: usize = 0;

/// For so long the port is down, and then up.
const FLAP: Duration = Duration::from_millis(20);

/// How often it is down, in a second.
const FLAPS: u32 = 25;

/// Threads with a part of the buffers each, of which they write and read one piece after the other.
const MOVERS: usize = 3;

/// Long enough for parts on all rails that are up.
const PIECE: usize = 4 << 20;

/// A rail ends parts of a piece in milliseconds.
const PROGRESS: Duration = Duration::from_secs(1);

/// What the threads do.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    bytes: AtomicU64,
    longest_us: AtomicU64,
}

impl Load {
    /// Moves bytes while `meanwhile` runs. How many in a second, and how long the longest transfer took.
    fn run(pair: &RailPair, meanwhile: impl FnOnce()) -> (f64, Duration) {
        let (load, begin) = (Self::default(), Instant::now());
        std::thread::scope(|scope| {
            for mover in 0..MOVERS {
                let load = &load;
                scope.spawn(move || load.keep_moving(pair, mover));
            }
            let _end = EndOf(&load.is_over);
            meanwhile();
        });
        let bytes = load.bytes.load(Ordering::Relaxed) as f64;
        (
            bytes / begin.elapsed().as_secs_f64(),
            Duration::from_micros(load.longest_us.load(Ordering::Relaxed)),
        )
    }

    fn keep_moving(&self, pair: &RailPair, mover: usize) {
        let places = (0..LENGTH / PIECE).filter(|place| place % MOVERS == mover);
        for (turn, place) in places.cycle().enumerate() {
            if self.is_over.load(Ordering::Relaxed) {
                break;
            }
            let (opcode, at) = ([Opcode::Write, Opcode::Read][turn % 2], place * PIECE);
            let (from, to) = pair.ends(opcode);
            let bytes = blocks(turn as u64, PIECE);
            assert!(from.write(at, &bytes) && to.write(at, &vec![GUARD; PIECE]));
            let begin = Instant::now();
            let id = pair.submit(opcode, &[pair.iov(at as u64, at as u64, PIECE as u64)]);
            assert_eq!(outcome(&pair.here, id), Outcome::Done, "{opcode:?}: {:#?}", pair.here.rails());
            self.longest_us.fetch_max(begin.elapsed().as_micros() as u64, Ordering::Relaxed);
            let mut found = vec![0; PIECE];
            assert!(to.read(at, &mut found) && found == bytes, "{opcode:?}, byte {at} and on: other bytes");
            self.bytes.fetch_add(PIECE as u64, Ordering::Relaxed);
        }
    }
}

/// Also where an assertion fails: the threads are waited for.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the rail that is left alone has carried.
fn carried_by_other(connection: &Connection) -> u64 {
    let rail = &connection.rails()[OTHER];
    rail.written_bytes + rail.read_bytes
}

/// The first fall meets a part, which moves. The end that has the port has seen it.
fn fall_on_a_part(pair: &RailPair, nics: &Nics, of_port: &Connection) {
    let silent = |hold| nics.switches(RAIL).set_silent(hold);
    let held = pair.hold(Opcode::Write, RAIL, 1, silent);
    nics.set_port(RAIL, false);
    silent(false);
    pair.check_done(Opcode::Write, held.id, &held.bytes, Duration::ZERO);
    assert!(moved(&pair.here) > held.moved, "{:#?}", pair.here.rails());
    eventually("its port is seen to be down", || {
        of_port.rails()[RAIL].last_pause.is_some_and(|pause| pause.reason == PauseReason::PortDown)
    });
}

fn flap(nics: &Nics) {
    nics.set_port(RAIL, false);
    std::thread::sleep(FLAP);
    nics.set_port(RAIL, true);
    std::thread::sleep(FLAP);
}

/// The other rail carries something meanwhile, again and again.
fn flap_often(pair: &RailPair, nics: &Nics) {
    for _ in 0..FLAPS {
        let (before, time) = (carried_by_other(&pair.here), OwnTime::start());
        flap(nics);
        while carried_by_other(&pair.here) == before {
            assert!(!time.exceeds(PROGRESS), "the other rail stands still: {:#?}", pair.here.rails());
            flap(nics);
        }
    }
}

#[test]
fn no_transfer_fails_over_a_port_that_flaps() {
    let _alone = alone();
    for end in ["near", "far"] {
        let pair = RailPair::with_rails(2, 2, 2);
        let (nics, of_port) = if end == "near" { (&pair.near, &pair.here) } else { (&pair.far, &pair.there) };
        fall_on_a_part(&pair, nics, of_port);
        let (flapping, longest) = Load::run(&pair, || flap_often(&pair, nics));
        let [here, there] = [&pair.here, &pair.there].map(|connection| connection.rails().swap_remove(RAIL));
        let time = OwnTime::start();
        eventually("both rails are up at both ends", || {
            up(&pair.here).len() == 2 && up(&pair.there).len() == 2
        });
        let up_after = time.elapsed();
        use_again(&pair.here, RAIL, || pair.check_all(Opcode::Write, 1));
        nics.set_port(RAIL, false);
        eventually("the rail is down", || pair.here.rails()[RAIL].status != RailStatus::Up);
        let (alone, _) = Load::run(&pair, || std::thread::sleep(Duration::from_millis(500)));
        println!(
            "the port at the {end} end flaps: {} parts moved, {} pauses here and {} there, up after {up_after:?}; the longest transfer took \
             {longest:?}; {:.2} of the rate over the other rail alone",
            here.moved_parts,
            here.pauses,
            there.pauses,
            flapping / alone
        );
    }
}
