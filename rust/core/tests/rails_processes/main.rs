//! Rails between two processes of a host: bytes by their own copies, by mappings and by sockets; rails that fail, and a peer that ends.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

#[path = "../nics/mod.rs"]
mod nics;
#[path = "../other_process/mod.rs"]
mod other_process;
mod peer;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};
use nics::{ENOUGH, Nics, carried, make_rails, moved, nic_number, up, use_again};
use peer::{LENGTH, PeerProcess, SETTINGS};
use support::own_time::OwnTime;
use support::{blocks, eventually, outcome};

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];

/// A part moves in milliseconds.
const MOVED: Duration = Duration::from_secs(2);

/// The buffers are large, and bounds on times are for a machine that does nothing else: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not a test of its own: what the other process of the tests below runs.
#[test]
fn peer_process() {
    peer::play();
}

struct Processes {
    nics: Nics,
    engine: Arc<Engine>,
    here: Arc<Connection>,
    near: RegisteredBuffer,
    peer: PeerProcess,
}

impl Processes {
    /// So many NICs at each end; bytes take `path`.
    fn new(count: u32, path: Option<PathKind>) -> Self {
        Self::of_nics([count; 2], path)
    }

    /// So many NICs here, and in the other process.
    fn of_nics([near, far]: [u32; 2], path: Option<PathKind>) -> Self {
        let mut peer = PeerProcess::start(far, path);
        let nics = Nics::on_path(near, path);
        let engine = nics.engine(SETTINGS);
        let near = engine.allocate(LENGTH).unwrap();
        let here = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
        if let Some(path) = path {
            assert_eq!(here.info().path, path);
        }
        assert_eq!(peer.ask("rails"), ["1"]);
        Self { nics, engine, here, near, peer }
    }

    fn with_rails(count: u32, path: Option<PathKind>) -> Self {
        let mut processes = Self::new(count, path);
        assert_eq!(LENGTH, ENOUGH);
        make_rails(&processes.here, &processes.near, processes.peer.address, count as usize);
        let peer = &mut processes.peer;
        eventually("the peer has the same rails", || peer.ask("rails") == [count.to_string()]);
        processes
    }

    fn submit(&self, opcode: Opcode) -> TransferId {
        let remote = self.here.describe_remote(self.peer.address, LENGTH as u32).unwrap();
        let region = Some(self.near.region());
        let iov = Iov { local: self.near.address(), length: LENGTH as u64, region, remote };
        self.here.submit(opcode, &[iov][..]).unwrap()
    }

    /// Where the bytes of `opcode` come from gets those of `seed`, the other end something else.
    fn fill(&mut self, opcode: Opcode, seed: u64) {
        let (near, far) = if opcode == Opcode::Write { (seed, seed + 1) } else { (seed + 1, seed) };
        assert!(self.near.write(0, &blocks(near, LENGTH)));
        self.peer.fill(far);
    }

    /// Both buffers hold the bytes of `seed`.
    fn compare(&mut self, seed: u64, what: &str) {
        assert!(support::content(&self.near) == blocks(seed, LENGTH), "{what}: other bytes here");
        assert!(self.peer.holds(seed), "{what}: other bytes in the other process");
    }

    /// Of the only rail, once both ends are known: the number of the NIC here, and of that in the other process.
    fn only_nics(&self) -> (usize, usize) {
        eventually("the NICs are known", || !self.here.rails()[0].peer_nic.is_empty());
        let rail = self.here.rails()[0].clone();
        (nic_number(&rail.nic), nic_number(&rail.peer_nic))
    }

    /// A transfer of the bytes of seed 1 begins, if it is to be held by this NIC, which takes its requests and ends none.
    fn begin_on_one(&mut self, opcode: Opcode, held: Option<usize>) -> (OwnTime, Option<TransferId>) {
        self.fill(opcode, 1);
        if let Some(nic) = held {
            self.nics.switches(nic).set_silent(true);
        }
        let begin = OwnTime::start();
        (begin, held.map(|_| self.submit(opcode)))
    }

    /// It is done, with the bytes of seed 1, soon after `begin`.
    fn finish_soon(&mut self, id: TransferId, begin: &OwnTime, what: &str) {
        assert_eq!(outcome(&self.here, id), Outcome::Done, "{what}: {:#?}", self.here.rails());
        let taken = begin.elapsed();
        println!("{what}: done after {taken:?}");
        self.compare(1, what);
        assert!(taken < MOVED, "{what}: it took {taken:?}");
    }

    fn move_all(&mut self, opcode: Opcode, seed: u64) {
        self.fill(opcode, seed);
        let id = self.submit(opcode);
        assert_eq!(outcome(&self.here, id), Outcome::Done, "{opcode:?}: {:#?}", self.here.rails());
        self.compare(seed, &format!("{opcode:?} {seed}"));
    }
}

const PATHS: [Option<PathKind>; 3] = [None, Some(PathKind::CrossMemory), Some(PathKind::Tcp)];

#[test]
fn every_byte_arrives_in_the_other_process_over_two_rails_and_over_eight() {
    let _alone = alone();
    for (count, path) in PATHS.into_iter().flat_map(|path| [(2, path), (8, path)]) {
        let mut processes = Processes::with_rails(count, path);
        let before = carried(&processes.here);
        for (seed, opcode) in OPCODES.into_iter().cycle().take(40).enumerate() {
            processes.move_all(opcode, 2 * seed as u64);
            let now = carried(&processes.here);
            let shares: Vec<_> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
            // Which ones a transfer takes depends on rates that were measured.
            if seed >= 5 && shares.iter().all(|share| *share > 0) {
                println!("{count} rails, path {path:?}: {shares:?}");
                break;
            }
            assert!(seed < 39, "{count} rails, path {path:?}: {shares:?}: {:#?}", processes.here.rails());
        }
    }
}

/// What a NIC at this end does, or the one at the other end.
#[derive(Clone, Copy, Debug)]
enum Fault {
    SilentBoth,
    PortHere,
    PortThere,
    BrokenHere,
    BrokenThere,
    FailingHere,
}

const FAULTS: [Fault; 6] = [
    Fault::SilentBoth,
    Fault::PortHere,
    Fault::PortThere,
    Fault::BrokenHere,
    Fault::BrokenThere,
    Fault::FailingHere,
];

/// So many transfers one after the other do not all avoid a rail that works.
const MOST_TURNS: u64 = 100;

impl Processes {
    /// Begins a transfer of which rail 1 has a part that waits, as its NIC `nic` here is silent. Which rails a transfer takes depends on rates that
    /// were measured, so one that has met the others only is followed by another one. Its seed, and how many parts were moved before.
    fn hold(&mut self, opcode: Opcode, nic: usize, is_failing: bool, seed: u64) -> (TransferId, u64, u64) {
        for seed in (seed..).step_by(2).take(MOST_TURNS as usize) {
            let (all, before) = (moved(&self.here), self.here.rails()[1].moved_parts);
            self.fill(opcode, seed);
            self.nics.switches(nic).set_silent(true);
            if is_failing {
                self.nics.switches(nic).set_failing(1);
            }
            let id = self.submit(opcode);
            let found = &self.here.rails()[1];
            // On a busy machine its silence may have been found already.
            if found.in_flight_bytes > 0 || found.moved_parts > before {
                return (id, seed, all);
            }
            assert_eq!(outcome(&self.here, id), Outcome::Done);
            self.nics.heal();
            // A question may have found it silent: then it is left for a moment, and avoided for longer.
            let here = Arc::clone(&self.here);
            use_again(&here, 1, || self.move_all(Opcode::Write, seed));
        }
        panic!("no part came to rail 1: {:#?}", self.here.rails())
    }
}

fn fail_one(processes: &mut Processes, fault: Fault, opcode: Opcode, seed: u64) {
    let rail = processes.here.rails()[1].clone();
    let (here, there) = (nic_number(&rail.nic), nic_number(&rail.peer_nic));
    let (id, seed, before) = processes.hold(opcode, here, matches!(fault, Fault::FailingHere), seed);
    let time = OwnTime::start();
    match fault {
        Fault::SilentBoth => processes.peer.order(&format!("silent {there}")),
        Fault::PortHere => processes.nics.set_port(here, false),
        Fault::PortThere => processes.peer.order(&format!("port {there} down")),
        Fault::BrokenHere => processes.nics.devices[here].break_queue_pairs(),
        Fault::BrokenThere => processes.peer.order(&format!("broken {there}")),
        Fault::FailingHere => processes.nics.switches(here).set_silent(false),
    }
    assert_eq!(
        outcome(&processes.here, id),
        Outcome::Done,
        "{fault:?} {opcode:?}: {:#?}",
        processes.here.rails()
    );
    let taken = time.elapsed();
    processes.compare(seed, &format!("{fault:?} {opcode:?}"));
    assert!(taken < MOVED, "{fault:?} {opcode:?}: it took {taken:?}");
    assert!(moved(&processes.here) > before, "{fault:?} {opcode:?}: {:#?}", processes.here.rails());
    processes.nics.heal();
    processes.peer.order("heal");
    let (time, carried_before) = (OwnTime::start(), carried(&processes.here)[1]);
    let is_up = |processes: &Processes| processes.here.rails()[1].status == RailStatus::Up;
    let mut seed = seed;
    while !is_up(processes) || carried(&processes.here)[1] == carried_before {
        seed += 2;
        processes.move_all(opcode, seed);
        assert!(!time.exceeds(Duration::from_secs(6)), "{fault:?}: {:#?}", processes.here.rails());
    }
    println!("{fault:?} {opcode:?}: done after {taken:?}, used again after {:?}", time.elapsed());
}

#[test]
fn a_transfer_between_processes_outlives_a_rail() {
    let _alone = alone();
    for path in PATHS {
        let mut processes = Processes::with_rails(2, path);
        let cases = FAULTS.into_iter().flat_map(|fault| OPCODES.map(|opcode| (fault, opcode)));
        for (seed, (fault, opcode)) in cases.enumerate() {
            fail_one(&mut processes, fault, opcode, 1000 * seed as u64);
        }
        eventually("both rails are up", || {
            processes.move_all(Opcode::Write, 2);
            up(&processes.here).len() == 2
        });
    }
}

/// Each connection has one rail when its device is lost, here or in the other process, with work and without.
#[test]
fn a_connection_between_processes_outlives_its_only_device() {
    let _alone = alone();
    let cases = [true, false].into_iter().flat_map(|here| OPCODES.map(|opcode| (here, opcode)));
    for (path, (here, opcode)) in
        PATHS.into_iter().flat_map(|path| cases.clone().map(move |case| (path, case)))
    {
        for is_busy in [true, false] {
            let what = format!("{path:?}, here: {here}, {opcode:?}, busy: {is_busy}");
            let mut processes = Processes::new(2, path);
            let (own, peers) = processes.only_nics();
            let (begin, id) = processes.begin_on_one(opcode, is_busy.then_some(own));
            match here {
                true => processes.nics.lose(own),
                false => processes.peer.order(&format!("lose {peers}")),
            }
            let id = id.unwrap_or_else(|| {
                eventually("there is another rail", || {
                    up(&processes.here).len() == 1 && processes.here.rails().len() == 2
                });
                processes.submit(opcode)
            });
            processes.finish_soon(id, &begin, &what);
            processes.move_all(opcode, 3);
        }
    }
}

/// Here or in the other process there is a single NIC, and the one that it was connected to is lost; with work and without.
#[test]
fn a_single_nic_goes_on_with_another_one_of_the_other_process() {
    let _alone = alone();
    let cases = [[1, 2], [2, 1]].into_iter().flat_map(|nics| OPCODES.map(|opcode| (nics, opcode)));
    for (path, (nics, opcode)) in
        PATHS.into_iter().flat_map(|path| cases.clone().map(move |case| (path, case)))
    {
        for is_busy in [true, false] {
            let what = format!("{path:?}, NICs: {nics:?}, {opcode:?}, busy: {is_busy}");
            let mut processes = Processes::of_nics(nics, path);
            let (own, peers) = processes.only_nics();
            let (begin, id) = processes.begin_on_one(opcode, is_busy.then_some(own));
            match nics {
                [1, _] => processes.peer.order(&format!("lose {peers}")),
                _ => processes.nics.lose(own),
            }
            eventually("the first rail is down", || processes.here.rails()[0].status == RailStatus::Down);
            processes.nics.switches(own).set_silent(false);
            eventually("there is another rail", || {
                up(&processes.here).len() == 1 && processes.here.rails().len() == 2
            });
            let id = id.unwrap_or_else(|| processes.submit(opcode));
            processes.finish_soon(id, &begin, &what);
            processes.move_all(opcode, 3);
        }
    }
}

/// The control channel tells of its end, and no rail goes on without it.
#[test]
fn the_end_of_the_peer_ends_all_rails_at_once() {
    let _alone = alone();
    for path in PATHS {
        let processes = Processes::with_rails(8, path);
        (0..8).for_each(|nic| processes.nics.switches(nic).set_silent(true));
        let ids: Vec<_> = (0..4).map(|_| processes.submit(Opcode::Write)).collect();
        let Processes { nics: _nics, engine, here, near, mut peer } = processes;
        let time = OwnTime::start();
        peer.kill();
        for id in ids {
            let ended = outcome(&here, id);
            assert!(matches!(ended, Outcome::Failed(_) | Outcome::TimedOut), "{path:?}: {ended:?}");
        }
        eventually("the connection ends", || !here.is_usable());
        let taken = time.elapsed();
        println!("{path:?}: all ended {taken:?} after the peer was killed");
        assert!(taken < Duration::from_secs(4), "{path:?}: it took {taken:?}");
        engine.close();
        drop(near);
    }
}
