//! A rail fails in the middle of a transfer: its parts move, the transfer is done, and nothing is written after that.

use std::time::Duration;

use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::observe::RailStatus;

use crate::alone;
use crate::nics::{Nics, carried, moved, nic_number, up};
use crate::rail_pair::{LENGTH, RailPair};
use crate::support::eventually;
use crate::support::own_time::OwnTime;

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];

/// How late flushed WRITEs arrive at a queue pair that is not in ERROR.
const LATE: Duration = Duration::from_millis(20);

/// A part moves in milliseconds. The transfer time-out is 10 s.
const MOVED: Duration = Duration::from_secs(2);

/// Pauses of a rail that answers nothing are 8 ms at most; of one that fails they double up to 1 s.
const USED_AGAIN: Duration = Duration::from_secs(6);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Accepts requests and completes none.
    Silent,
    /// Its port goes down, with an event.
    Port,
    /// Each of its requests fails.
    Failing,
    /// Its queue pairs go to ERROR, and are told by nothing else than completions.
    Broken,
}

const FAULTS: [Fault; 4] = [Fault::Silent, Fault::Port, Fault::Failing, Fault::Broken];

impl Fault {
    /// The NIC fails; what was given to it has not been carried out.
    fn strike(self, nics: &Nics, nic: usize) {
        match self {
            Self::Silent => {}
            Self::Port => nics.set_port(nic, false),
            Self::Failing => nics.switches(nic).set_silent(false),
            Self::Broken => nics.devices[nic].break_queue_pairs(),
        }
    }
}

/// A transfer of all bytes meets the fault of `nic` at one end, which is of `rail`. How long it took from the fault on.
fn fail_one(
    pair: &RailPair,
    opcode: Opcode,
    fault: Fault,
    nics: &Nics,
    (rail, nic): (usize, usize),
    seed: u64,
) -> Duration {
    let held = pair.hold(opcode, rail, seed, |hold| {
        if hold {
            pair.near.switches(nic).set_late(LATE);
            nics.switches(nic).set_silent(true);
            if fault == Fault::Failing {
                pair.near.switches(nic).set_failing(1);
            }
        } else {
            pair.near.heal();
            pair.far.heal();
        }
    });
    let time = OwnTime::start();
    fault.strike(nics, nic);
    pair.check_done(opcode, held.id, &held.bytes, Duration::ZERO);
    let taken = time.elapsed();
    // The target was overwritten: what comes late, or from a NIC that goes on with what it was given, would be seen.
    nics.heal();
    std::thread::sleep(2 * LATE);
    pair.check_guards(opcode);
    assert!(taken < MOVED, "{opcode:?} {fault:?}: it took {taken:?}");
    let total = |carried: &[u64]| carried.iter().sum::<u64>();
    assert_eq!(
        total(&carried(&pair.here)) - total(&held.carried),
        LENGTH as u64,
        "each byte ends once as done"
    );
    assert!(moved(&pair.here) > held.moved, "{opcode:?} {fault:?}: no part moved: {:#?}", pair.here.rails());
    taken
}

/// A rail is used again when its NIC is back. On a busy machine another one may be silent just then.
fn expect_return(pair: &RailPair, rail: usize) -> Duration {
    let (time, before) = (OwnTime::start(), carried(&pair.here)[rail]);
    while pair.here.rails()[rail].status != RailStatus::Up || carried(&pair.here)[rail] == before {
        pair.check_all(Opcode::Write, 3);
        assert!(!time.exceeds(USED_AGAIN), "rail {rail} is not used again: {:#?}", pair.here.rails());
    }
    time.elapsed()
}

/// No fault of a rail has left another one out for good.
fn expect_all(pair: &RailPair, count: usize) {
    eventually("all rails are up", || {
        pair.check_all(Opcode::Write, 3);
        up(&pair.here).len() == count
    });
}

fn every_fault(pair: &RailPair, count: usize, rails: &[usize], ends: &[&str]) {
    let mut seed = 0;
    for (&rail, fault) in rails.iter().flat_map(|rail| FAULTS.map(|fault| (rail, fault))) {
        for (opcode, end) in OPCODES.into_iter().flat_map(|opcode| ends.iter().map(move |end| (opcode, *end)))
        {
            // What fails is what this end posts; the other end's device only answers.
            if end == "far" && matches!(fault, Fault::Failing) {
                continue;
            }
            let info = pair.here.rails()[rail].clone();
            let (nics, name) = match end {
                "near" => (&pair.near, &info.nic),
                _ => (&pair.far, &info.peer_nic),
            };
            seed += 1000;
            let taken = fail_one(pair, opcode, fault, nics, (rail, nic_number(name)), seed);
            let returned = expect_return(pair, rail);
            println!(
                "{fault:?} of {name} ({end}), rail {rail}, {opcode:?}: done after {taken:?}, used again after {returned:?}"
            );
        }
    }
    expect_all(pair, count);
}

#[test]
fn a_transfer_outlives_one_of_eight_rails() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    every_fault(&pair, 8, &[3], &["near", "far"]);
}

/// The first rail is one like the others, once there are others.
#[test]
fn a_transfer_outlives_either_of_two_rails() {
    let _alone = alone();
    let pair = RailPair::with_rails(2, 2, 2);
    every_fault(&pair, 2, &[0, 1], &["near"]);
}

#[test]
fn a_transfer_outlives_a_rail_of_which_bytes_go_by_sockets() {
    let _alone = alone();
    let pair = RailPair::with([2, 2], Some(PathKind::Tcp), [&[], &[]]);
    pair.make_rails(2);
    every_fault(&pair, 2, &[1], &["near", "far"]);
}

/// Faults of several rails one after the other, until one is left; then they are back.
#[test]
fn a_transfer_outlives_seven_of_eight_rails() {
    let _alone = alone();
    let pair = RailPair::patient(8, 8, 8);
    for (seed, opcode) in OPCODES.into_iter().enumerate() {
        let rails = pair.here.rails();
        let bytes = pair.fill(opcode, seed as u64);
        for rail in &rails[..7] {
            let nic = nic_number(&rail.nic);
            pair.near.switches(nic).set_silent(true);
            pair.near.switches(nic).set_late(LATE);
        }
        let time = OwnTime::start();
        let id = pair.submit_all(opcode);
        for rail in &rails[..7] {
            pair.near.set_port(nic_number(&rail.nic), false);
        }
        pair.check_done(opcode, id, &bytes, 2 * LATE);
        let taken = time.elapsed();
        println!("{opcode:?}: done {taken:?} after seven ports went down");
        assert!(taken < MOVED, "it took {taken:?}");
        pair.near.heal();
        eventually("all rails are up", || up(&pair.here).len() == 8);
        for rail in 0..8 {
            expect_return(&pair, rail);
        }
    }
    expect_all(&pair, 8);
}

/// The only other rail has lanes, to be asked on, and is silent: parts that came to it leave it once another one works again. Silence is not
/// looked for on a rail that is not up, so this is a matter of its questions.
#[test]
fn parts_that_came_to_a_rail_that_answers_nothing_leave_it_again() {
    let _alone = alone();
    let pair = RailPair::with_rails(2, 2, 2);
    let [first, second] = [0, 1].map(|rail| nic_number(&pair.here.rails()[rail].nic));
    let (mut longest, mut tries, mut seed) = (Duration::ZERO, 0, 0);
    for opcode in OPCODES {
        let mut met = 0;
        while met < 3 {
            tries += 1;
            assert!(tries < 60, "no part came to the silent rail: {:#?}", pair.here.rails());
            pair.near.switches(second).set_silent(true);
            eventually("the silent rail is left, and has lanes to be asked on", || {
                seed += 1;
                pair.check_all(Opcode::Write, seed);
                let rail = pair.here.rails().swap_remove(1);
                rail.status != RailStatus::Up && rail.healthy_lanes > 0
            });
            let before = pair.here.rails()[1].moved_parts;
            let bytes = pair.fill(opcode, seed);
            pair.near.switches(first).set_silent(true);
            let id = pair.submit_all(opcode);
            let time = OwnTime::start();
            pair.near.devices[first].break_queue_pairs();
            pair.near.switches(first).set_silent(false);
            pair.check_done(opcode, id, &bytes, Duration::ZERO);
            longest = longest.max(time.elapsed());
            met += u64::from(pair.here.rails()[1].moved_parts > before);
            pair.near.heal();
            eventually("both rails are up", || up(&pair.here).len() == 2);
        }
    }
    println!("{tries} times, the longest took {longest:?}");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}

/// A slow NIC gets less, and delays no transfer by much.
#[test]
fn a_slow_rail_does_not_hold_up_the_others() {
    let _alone = alone();
    let pair = RailPair::patient(2, 2, 2);
    let nic = nic_number(&pair.here.rails()[1].nic);
    pair.near.switches(nic).set_slow(100);
    for seed in 0..20 {
        pair.check_all(OPCODES[seed as usize % 2], seed);
    }
    let before = carried(&pair.here);
    for seed in 0..10 {
        pair.check_all(Opcode::Write, seed);
    }
    let shares: Vec<_> = carried(&pair.here).iter().zip(before).map(|(now, before)| now - before).collect();
    println!("shares with a slow rail 1: {shares:?}");
    assert!(shares[0] > shares[1], "{shares:?}");
    pair.near.heal();
    expect_return(&pair, 1);
    expect_all(&pair, 2);
}
