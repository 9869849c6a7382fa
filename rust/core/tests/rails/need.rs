//! A connection with one rail gets another one when it needs it, whatever its transfers are like, and when its rail is lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};

use crate::alone;
use crate::nics::{carried, moved, nic_number, up};
use crate::rail_pair::{LENGTH, RailPair};
use crate::support::own_time::OwnTime;
use crate::support::{content, outcome};

const ONE_LANE: &[(&str, &str)] = &[("FLAGCX_P2P_QPS_PER_CONN", "1")];
const ALL: &[(&str, &str)] = &[];

/// A rail is made in milliseconds. A transfer may take 10 s.
const SOON: Duration = Duration::from_secs(2);

fn pair(settings: &'static [(&str, &str)]) -> RailPair {
    RailPair::with([2, 2], None, [settings, settings])
}

/// The buffers as the end that was connected to names them, from its own to that of the other end.
fn iov_back(pair: &RailPair, at: u64, length: u64) -> Iov {
    let remote = pair.there.describe_remote(pair.source.address() + at, length as u32).unwrap();
    Iov { local: pair.target.address() + at, length, region: Some(pair.target.region()), remote }
}

/// Keeps `depth` transfers under way until there are two rails, and then for some more; all are done. How long it took.
fn move_until_two(
    connection: &Connection,
    depth: usize,
    length: u64,
    iov: impl Fn(u64, u64) -> Iov,
) -> Duration {
    let (time, places) = (OwnTime::start(), LENGTH as u64 / length);
    let (mut under_way, mut number, mut more): (VecDeque<TransferId>, _, _) = (VecDeque::new(), 0, 200);
    let mut taken = None;
    while more > 0 {
        while under_way.len() < depth {
            let at = number % places * length;
            under_way.push_back(connection.submit(Opcode::Write, &[iov(at, length)][..]).unwrap());
            number += 1;
        }
        let id = under_way.pop_front().unwrap();
        assert_eq!(outcome(connection, id), Outcome::Done);
        if up(connection).len() == 2 {
            taken.get_or_insert_with(|| time.elapsed());
            more -= 1;
        }
        assert!(taken.is_some() || !time.exceeds(SOON), "{:#?}", connection.rails());
    }
    under_way.into_iter().for_each(|id| assert_eq!(outcome(connection, id), Outcome::Done));
    taken.unwrap()
}

/// No transfer has two parts, and most take the shortest path, which asks nothing.
#[test]
fn transfers_of_one_part_get_a_second_rail() {
    let _alone = alone();
    for (what, settings, depth, length) in [
        ("large ones on one queue pair", ONE_LANE, 4, 4 << 20),
        ("small ones on one queue pair", ONE_LANE, 512, 64 << 10),
        ("small ones", ALL, 512, 64 << 10),
    ] {
        for leads in [true, false] {
            let pair = pair(settings);
            let bytes = pair.fill(if leads { Opcode::Write } else { Opcode::Read }, 1);
            let taken = if leads {
                move_until_two(&pair.here, depth, length, |at, length| pair.iov(at, at, length))
            } else {
                move_until_two(&pair.there, depth, length, |at, length| iov_back(&pair, at, length))
            };
            let (connection, to) =
                if leads { (&pair.here, &pair.target) } else { (&pair.there, &pair.source) };
            let carried = carried(connection);
            println!("{what}, leads: {leads}: two rails after {taken:?}, which have carried {carried:?}");
            assert!(carried.iter().all(|bytes| *bytes > 0), "{carried:?}");
            let written = content(to);
            // As many as were written at least: the first ones.
            assert!(written[..length as usize] == bytes[..length as usize]);
        }
    }
}

/// A connection that moves little keeps its one rail.
#[test]
fn a_connection_with_little_under_way_gets_no_second_rail() {
    let _alone = alone();
    for _ in 0..20 {
        let pair = pair(ALL);
        let (begin, time) = (Instant::now(), OwnTime::start());
        while begin.elapsed() < Duration::from_millis(500) {
            let id = pair.submit(Opcode::Write, &[pair.iov(0, 0, 64 << 10)]);
            assert_eq!(outcome(&pair.here, id), Outcome::Done);
        }
        // A rail that has ended nothing for 100 ms gets a second one beside it, rightly: once more where the machine stood still.
        if time.stalled() < Duration::from_millis(50) {
            return assert_eq!(pair.here.rails().len(), 1);
        }
    }
    println!("not run: the machine stands still again and again");
}

/// Whether the rail was the only one when its port went down.
fn lose_the_only_rail(settings: &'static [(&str, &str)], end: &str, opcode: Opcode) -> bool {
    let pair = pair(settings);
    let nics = if end == "near" { &pair.near } else { &pair.far };
    let bytes = pair.fill(opcode, 1);
    let nic = nic_number(&pair.here.rails()[0].nic);
    nics.switches(nic).set_silent(true);
    pair.near.switches(nic).set_silent(true);
    let length = 256 << 10;
    let all = |at: u64| pair.submit(opcode, &[pair.iov(at * length, at * length, length)]);
    let ids: Vec<_> = (0..LENGTH as u64 / length).map(all).collect();
    nics.set_port(nic, false);
    let (is_only, time) = (pair.here.rails().len() == 1, OwnTime::start());
    ids.into_iter().for_each(|id| assert_eq!(outcome(&pair.here, id), Outcome::Done));
    let taken = time.elapsed();
    println!("{settings:?}, {end}, {opcode:?}: done {taken:?} after the port went down");
    assert!(content(pair.ends(opcode).1) == bytes);
    assert!(moved(&pair.here) > 0, "{:#?}", pair.here.rails());
    assert!(taken < SOON, "it took {taken:?}");
    is_only
}

/// The port of the only rail goes down, and stays so: what waits goes on over another rail, which is made then.
#[test]
fn a_connection_that_loses_its_only_rail_gets_another_one() {
    let _alone = alone();
    for (settings, end, opcode) in [
        (ONE_LANE, "near", Opcode::Write),
        (ONE_LANE, "far", Opcode::Read),
        (ALL, "near", Opcode::Read),
        (ALL, "far", Opcode::Write),
    ] {
        // What waits has a second rail made in some milliseconds: on a busy machine that may be before the port is down.
        let is_met = (0..20).any(|_| lose_the_only_rail(settings, end, opcode));
        assert!(is_met, "{settings:?}, {end}, {opcode:?}: there was another rail each time");
    }
}

/// Nothing waits when the port goes down: the next transfer has the rail made, however small it is.
#[test]
fn a_small_transfer_behind_the_loss_of_the_only_rail_gets_another_one() {
    let _alone = alone();
    for leads in [true, false] {
        let pair = pair(ALL);
        pair.near.set_port(nic_number(&pair.here.rails()[0].nic), false);
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!((pair.here.rails().len(), pair.there.rails().len()), (1, 1), "neither end needs one");
        let time = OwnTime::start();
        let (connection, iov) = match leads {
            true => (&pair.here, pair.iov(0, 0, 64)),
            false => (&pair.there, iov_back(&pair, 0, 64)),
        };
        let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
        assert_eq!(outcome(connection, id), Outcome::Done);
        let taken = time.elapsed();
        println!("leads: {leads}: done after {taken:?}");
        assert!(taken < SOON, "it took {taken:?}");
    }
}
