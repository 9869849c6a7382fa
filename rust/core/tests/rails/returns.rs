//! A rail that has failed is used again soon after its NIC is back, and costs little meanwhile.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::alone;
use crate::nics::{Nics, has_all_lanes, up};
use crate::rail_pair::RailPair;
use crate::support::own_time::OwnTime;
use crate::support::{eventually, outcome};

const RAIL: usize = 1;

/// Moved at a time, so that the connection is busy.
const STEP: u64 = 4 << 20;

/// A lane has 256 KiB of a share at least, so these are on several.
const OF_TWO_LANES: u64 = 512 << 10;

/// Milliseconds where the machine does nothing else; a port at the other end took 3 s as long as its end did not answer when it came back.
const SOON: Duration = Duration::from_secs(1);

/// The longest pause of a rail that fails whenever it is asked.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Within so long a connection that is busy feels a fault.
const FELT: Duration = Duration::from_secs(2);

const FAULTS: [(Fault, &str); 7] = [
    (Fault::Port, "near"),
    (Fault::Port, "far"),
    (Fault::Silent, "near"),
    (Fault::Silent, "far"),
    (Fault::Broken, "near"),
    (Fault::Broken, "far"),
    (Fault::Failing, "near"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Port,
    Silent,
    Failing,
    Broken,
}

impl Fault {
    fn strike(self, nics: &Nics) {
        match self {
            Self::Port => nics.set_port(RAIL, false),
            Self::Silent => nics.switches(RAIL).set_silent(true),
            Self::Failing => nics.switches(RAIL).set_failing(1),
            Self::Broken => nics.devices[RAIL].break_queue_pairs(),
        }
    }
}

/// Two rails. But for what is to be found silent nothing is: a rail that is silent for a moment on a busy machine is left, and then what fails on
/// the only one that is up does not count.
fn pair(fault: Fault) -> RailPair {
    let pair =
        if fault == Fault::Silent { RailPair::with_rails(2, 2, 2) } else { RailPair::patient(2, 2, 2) };
    eventually("both rails have all of their lanes", || {
        move_some(&pair);
        has_all_lanes(&pair.here)
    });
    pair
}

fn move_some(pair: &RailPair) {
    let id = pair.submit(Opcode::Write, &[pair.iov(0, 0, STEP)]);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
}

fn move_for(pair: &RailPair, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        move_some(pair);
    }
}

/// The NIC fails; whether the rail was left for it. Some faults of the other end's NIC are not felt here.
fn strike(pair: &RailPair, fault: Fault, end: &str) -> bool {
    let nics = if end == "near" { &pair.near } else { &pair.far };
    let pauses = pair.here.rails()[RAIL].pauses;
    let time = OwnTime::start();
    if end == "near" && matches!(fault, Fault::Broken | Fault::Failing) {
        strike_held(pair, fault);
    } else {
        fault.strike(nics);
    }
    while !time.exceeds(FELT) {
        move_some(pair);
        let rail = &pair.here.rails()[RAIL];
        if rail.status != RailStatus::Up || rail.pauses > pauses {
            return true;
        }
    }
    false
}

/// The same for queue pairs that fail: two of them at once, as the rail is left for two failures within 100 ms.
fn strike_held(pair: &RailPair, fault: Fault) {
    let switches = pair.near.switches(RAIL);
    let held = (0..100).find_map(|_| {
        let held = pair.hold(Opcode::Write, RAIL, 1, |hold| switches.set_silent(hold));
        let is_enough = pair.here.rails()[RAIL].in_flight_bytes >= OF_TWO_LANES;
        if !is_enough {
            switches.set_silent(false);
            assert_eq!(outcome(&pair.here, held.id), Outcome::Done);
        }
        is_enough.then_some(held.id)
    });
    let id = held.unwrap_or_else(|| panic!("the rail gets little: {:#?}", pair.here.rails()));
    fault.strike(&pair.near);
    switches.set_silent(false);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
}

/// The NIC comes back: how long it takes until the rail is up.
fn time_of_return(pair: &RailPair, fault: Fault, nics: &Nics) -> Duration {
    nics.heal();
    let time = OwnTime::start();
    while pair.here.rails()[RAIL].status != RailStatus::Up {
        move_some(pair);
        assert!(!time.exceeds(Duration::from_secs(10)), "{fault:?}: {:#?}", pair.here.rails());
    }
    time.elapsed()
}

/// No fault of the rail has left the other one out for good.
fn expect_both(pair: &RailPair) {
    eventually("both rails are up", || {
        move_some(pair);
        up(&pair.here).len() == 2
    });
}

#[test]
fn a_nic_that_comes_back_is_used_soon() {
    let _alone = alone();
    for (fault, end) in FAULTS {
        for fails_for in [0, 30, 400] {
            let pair = pair(fault);
            let nics = if end == "near" { &pair.near } else { &pair.far };
            let felt = strike(&pair, fault, end);
            move_for(&pair, Duration::from_millis(fails_for));
            let taken = time_of_return(&pair, fault, nics);
            println!(
                "{fault:?} at the {end} end{} for {fails_for} ms: up {taken:?} after it is back; {} pauses",
                if felt { "" } else { " (not felt)" },
                pair.here.rails()[RAIL].pauses
            );
            assert!(felt || end == "far", "{fault:?}: {:#?}", pair.here.rails());
            let limit = if fault == Fault::Failing { LONGEST_PAUSE + SOON } else { SOON };
            assert!(taken < limit, "{fault:?} at the {end} end: up after {taken:?}");
            expect_both(&pair);
        }
    }
}

/// Both ends have traffic of their own. Whichever leaves the rail, and also if both do at once, both use it again.
#[test]
fn a_rail_that_one_end_or_both_have_left_is_used_by_both() {
    let _alone = alone();
    for (fault, ends) in [Fault::Broken, Fault::Port, Fault::Failing]
        .into_iter()
        .flat_map(|fault| [["near", "near"], ["far", "far"], ["near", "far"]].map(|ends| (fault, ends)))
    {
        let pair = pair(fault);
        let remote = pair.there.describe_remote(pair.source.address(), STEP as u32).unwrap();
        let region = Some(pair.target.region());
        let back = Iov { local: pair.target.address(), length: STEP, region, remote };
        let move_both = || {
            let id = pair.there.submit(Opcode::Write, &[back][..]).unwrap();
            move_some(&pair);
            assert_eq!(outcome(&pair.there, id), Outcome::Done);
        };
        let are_up = || up(&pair.here).len() == 2 && up(&pair.there).len() == 2;
        let (begin, time) = (Instant::now(), OwnTime::start());
        while !are_up() || begin.elapsed() < Duration::from_millis(100) {
            move_both();
            assert!(!time.exceeds(SOON), "{:#?}", pair.there.rails());
        }
        let struck = Instant::now();
        for end in ends {
            fault.strike(if end == "near" { &pair.near } else { &pair.far });
        }
        while struck.elapsed() < Duration::from_millis(100) {
            move_both();
        }
        [&pair.near, &pair.far].into_iter().for_each(Nics::heal);
        let time = OwnTime::start();
        let limit = if fault == Fault::Failing { LONGEST_PAUSE + SOON } else { SOON };
        while !are_up() {
            move_both();
            let rails = (pair.here.rails(), pair.there.rails());
            assert!(!time.exceeds(limit), "{fault:?} at {ends:?}: {rails:#?}");
        }
        println!("{fault:?} at {ends:?}: both ends use it {:?} after it is back", time.elapsed());
    }
}

/// A port that went down while nothing is moved, and comes back then, is found up by the next transfer.
#[test]
fn the_rail_of_an_idle_connection_comes_back_by_itself() {
    let _alone = alone();
    for end in ["near", "far"] {
        let pair = RailPair::with_rails(2, 2, 2);
        let nics = if end == "near" { &pair.near } else { &pair.far };
        nics.set_port(RAIL, false);
        eventually("the rail is down", || up(&pair.here).len() == 1);
        std::thread::sleep(Duration::from_millis(300));
        nics.heal();
        let time = OwnTime::start();
        eventually("the rail is up", || up(&pair.here).len() == 2);
        let taken = time.elapsed();
        println!("idle, {end}: up {taken:?} after its port");
        assert!(taken < SOON, "{taken:?}");
    }
}

/// How often the thread of the event loops went to sleep, and its processor time and that of the process in ms. Where other programs run it
/// gives way to them as well.
fn costs() -> [u64; 3] {
    let [mut turns, mut time] = [0; 2];
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == "p2p-events" {
            let status = read("status");
            let lines = status.lines().filter(|line| line.starts_with("voluntary_ctxt_switches"));
            turns += lines.filter_map(|line| line.split('\t').next_back()?.parse::<u64>().ok()).sum::<u64>();
            time += milliseconds(&read("stat"));
        }
    }
    [turns, time, milliseconds(&std::fs::read_to_string("/proc/self/stat").unwrap())]
}

fn milliseconds(stat: &str) -> u64 {
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields.get(11..13).into_iter().flatten().map(|field| field.parse::<u64>().unwrap()).sum::<u64>() * 10
}

fn costs_of(time: Duration) -> [u64; 3] {
    let before = costs();
    std::thread::sleep(time);
    let after = costs();
    [0, 1, 2].map(|cost| after[cost] - before[cost])
}

#[test]
fn an_idle_connection_costs_nothing_and_a_dead_rail_little() {
    let _alone = alone();
    const SECONDS: u64 = 3;
    let idle = |what: &str, most: u64| {
        std::thread::sleep(Duration::from_secs(1));
        let [turns, time, of_all] = costs_of(Duration::from_secs(SECONDS));
        let a_second = turns / SECONDS;
        println!(
            "{what}: the event loop sleeps {a_second} times a second; {time} ms of the processor in {SECONDS} s, {of_all} ms with all threads"
        );
        assert!(turns <= most * SECONDS, "{what}: {turns} in {SECONDS} s");
        assert!(time <= SECONDS * 1000 / 10, "{what}: {time} ms in {SECONDS} s, a tenth at most");
    };
    let pair = RailPair::with_rails(2, 2, 2);
    idle("idle, all rails up", 10);
    drop(pair);
    for (fault, end) in FAULTS.into_iter().filter(|(fault, _)| *fault != Fault::Broken) {
        let pair = RailPair::with_rails(2, 2, 2);
        let nics = if end == "near" { &pair.near } else { &pair.far };
        let felt = strike(&pair, fault, end);
        idle(&format!("idle, {fault:?} at the {end} end, felt: {felt}"), 60);
        time_of_return(&pair, fault, nics);
        expect_both(&pair);
    }
}
