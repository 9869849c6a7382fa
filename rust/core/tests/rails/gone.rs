//! Nothing is left to go over: the end comes in bounded time, and says why.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Outcome;

use crate::alone;
use crate::nics::{moved, nic_number};
use crate::rail_pair::{GUARD, LENGTH, RailPair};
use crate::support::own_time::OwnTime;
use crate::support::{content, eventually, outcome};

const TIMEOUT: &[(&str, &str)] = &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "500")];
/// The time-out, 50 ms and the drain; and a second.
const TIMED_OUT: Duration = Duration::from_millis(500 + 50 + 2000 + 1000);

fn pair() -> RailPair {
    let pair = RailPair::with([2, 2], None, [TIMEOUT, TIMEOUT]);
    pair.make_rails(2);
    pair
}

#[test]
fn a_lost_device_moves_its_parts_and_its_rail_stays_away() {
    let _alone = alone();
    for end in ["near", "far"] {
        let pair = RailPair::with_rails(2, 2, 2);
        let nics = if end == "near" { &pair.near } else { &pair.far };
        let nic = 1;
        let rail = pair.here.rails().iter().position(|rail| nic_number(&rail.nic) == nic).unwrap();
        let held = pair.hold(Opcode::Write, rail, 1, |hold| nics.switches(nic).set_silent(hold));
        let time = OwnTime::start();
        nics.lose(nic);
        pair.check_done(Opcode::Write, held.id, &held.bytes, Duration::from_millis(20));
        let taken = time.elapsed();
        println!("{end}: done {taken:?} after the device was lost");
        assert!(taken < Duration::from_secs(2), "{end}: it took {taken:?}");
        assert!(moved(&pair.here) > held.moved, "{end}: {:#?}", pair.here.rails());
        for seed in 2..6 {
            pair.check_all(Opcode::Read, seed);
        }
        assert!(pair.here.is_usable() && pair.there.is_usable(), "{end}");
    }
}

/// The device that the connection began with is no other one.
#[test]
fn the_connection_outlives_its_first_device() {
    let _alone = alone();
    let pair = RailPair::with_rails(2, 2, 2);
    let bytes = pair.fill(Opcode::Write, 1);
    pair.near.switches(0).set_silent(true);
    let id = pair.submit_all(Opcode::Write);
    pair.near.lose(0);
    pair.check_done(Opcode::Write, id, &bytes, Duration::from_millis(20));
    pair.check_all(Opcode::Read, 2);
    assert!(pair.here.is_usable() && pair.there.is_usable());
}

#[test]
fn without_any_device_the_connection_ends_at_once() {
    let _alone = alone();
    let pair = pair();
    pair.fill(Opcode::Write, 1);
    let time = OwnTime::start();
    (0..2).for_each(|nic| pair.near.switches(nic).set_silent(true));
    let id = pair.submit_all(Opcode::Write);
    (0..2).for_each(|nic| pair.near.lose(nic));
    let ended = outcome(&pair.here, id);
    assert!(matches!(ended, Outcome::Failed(_) | Outcome::TimedOut), "{ended:?}");
    eventually("both ends end", || !pair.here.is_usable() && !pair.there.is_usable());
    let taken = time.elapsed();
    println!("{ended:?} after {taken:?}");
    assert!(taken < TIMED_OUT, "it took {taken:?}");
    let refused = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64)][..]).unwrap_err();
    println!("{refused}");
}

#[test]
fn while_all_rails_are_silent_or_down_transfers_end_by_their_time_out() {
    let _alone = alone();
    let pair = pair();
    for ports in [false, true] {
        let bytes = pair.fill(Opcode::Write, 1);
        let time = OwnTime::start();
        (0..2).for_each(|nic| pair.near.switches(nic).set_silent(true));
        let id = pair.submit_all(Opcode::Write);
        if ports {
            (0..2).for_each(|nic| pair.near.set_port(nic, false));
        }
        let ended = outcome(&pair.here, id);
        let taken = time.elapsed();
        println!("{ended:?} after {taken:?}");
        assert!(matches!(ended, Outcome::Failed(_) | Outcome::TimedOut), "{ended:?}");
        assert!(taken < TIMED_OUT, "it took {taken:?}");
        pair.near.heal();
        // What was not done may have been written in part, and nowhere else than there.
        let written = content(&pair.target);
        assert!(written.iter().zip(&bytes).all(|(found, sent)| found == sent || *found == GUARD));
        let back = Instant::now();
        eventually("a transfer is done again", || {
            let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)][..]).unwrap();
            outcome(&pair.here, id) == Outcome::Done
        });
        println!("done again {:?} after the NICs came back", back.elapsed());
        pair.check_all(Opcode::Write, 2);
        eventually("both rails are up", || crate::nics::up(&pair.here).len() == 2);
    }
}

/// What is under way when the connection is closed, or its peer, ends; nothing is left behind.
#[test]
fn closing_ends_the_transfers_of_all_rails() {
    let _alone = alone();
    for closes_here in [true, false] {
        let pair = RailPair::with_rails(8, 8, 8);
        pair.fill(Opcode::Write, 1);
        (0..8).for_each(|nic| pair.near.switches(nic).set_delay(Duration::from_millis(50)));
        let ids: Vec<_> = (0..4).map(|_| pair.submit_all(Opcode::Write)).collect();
        let time = OwnTime::start();
        if closes_here {
            pair.here.close()
        } else {
            pair.there.close()
        }
        for id in ids {
            let ended = outcome(&pair.here, id);
            assert!(matches!(ended, Outcome::Failed(_) | Outcome::Cancelled | Outcome::Done), "{ended:?}");
        }
        let taken = time.elapsed();
        println!("closed after {taken:?}");
        assert!(taken < Duration::from_secs(4), "it took {taken:?}");
        pair.client.close();
        pair.server.close();
    }
}

/// A rail may lose its last lane after a transfer was planned over it, and before its parts are given to lanes: to build so many requests
/// takes longer than to lose a device.
#[test]
fn transfers_that_begin_while_devices_are_lost_are_done() {
    let _alone = alone();
    const IOVS: usize = 200_000;
    const EACH: u64 = 64;
    let pair = RailPair::with_rails(4, 4, 4);
    let bytes = pair.fill(Opcode::Write, 1);
    let iovs: Vec<_> = (0..IOVS as u64).map(|iov| pair.iov(iov * EACH, iov * EACH, EACH)).collect();
    for nic in 0..3 {
        let begin = Instant::now();
        let before = pair.submit(Opcode::Write, &iovs);
        let takes = begin.elapsed();
        assert_eq!(outcome(&pair.here, before), Outcome::Done);
        let id = std::thread::scope(|threads| {
            let submitter = threads.spawn(|| pair.submit(Opcode::Write, &iovs));
            std::thread::sleep(takes / 4);
            pair.near.lose(nic);
            submitter.join().unwrap()
        });
        println!("submitted in {takes:?}, which has met the loss of NIC {nic}");
        assert_eq!(outcome(&pair.here, id), Outcome::Done, "{:#?}", pair.here.rails());
    }
    let written = content(&pair.target);
    for iov in 0..IOVS {
        let at = iov * EACH as usize;
        assert!(written[at..at + EACH as usize] == bytes[at..at + EACH as usize], "iov {iov}");
    }
    assert!(pair.here.is_usable());
}

/// Also of those parts that are on their way from one rail to another.
#[test]
fn closing_cancels_what_is_moving() {
    let _alone = alone();
    const PARTS: u64 = 3_000;
    const EACH: u64 = 4096;
    let mut cancelled = 0;
    for round in 0..8_u64 {
        let pair = RailPair::with_rails(2, 2, 2);
        (0..2).for_each(|nic| pair.near.switches(nic).set_silent(true));
        let read = |part| pair.submit(Opcode::Read, &[pair.iov(part * EACH, part * EACH, EACH)]);
        let ids: Vec<_> = (0..PARTS).map(read).collect();
        let busier = pair.here.rails().into_iter().max_by_key(|rail| rail.in_flight_bytes).unwrap();
        pair.near.set_port(nic_number(&busier.nic), false);
        std::thread::sleep(Duration::from_millis(1 + 2 * round));
        pair.here.close();
        for id in ids {
            let ended = outcome(&pair.here, id);
            assert!(matches!(ended, Outcome::Cancelled | Outcome::Done), "{round}: {ended:?}");
            cancelled += usize::from(ended == Outcome::Cancelled);
        }
        pair.client.close();
        pair.server.close();
    }
    println!("{cancelled} were cancelled");
    assert!(cancelled > 0);
}
