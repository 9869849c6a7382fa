//! What a connection takes of the process's memory, with one rail and with two, of which the second one is used or not.

use std::sync::Arc;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Status;
use procfs::process::Process;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::ends::{Devices, Ends};

const CONNECTIONS: usize = 200;

pub(crate) fn run() {
    // Both ends are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    println!("| {CONNECTIONS} connections over | rails | queue pairs | resident memory of one end, KiB |");
    println!("|---|---|---|---|");
    let mut all = Vec::new();
    for (name, devices) in [("stand-in NICs", Devices::StandIns), ("software devices", Devices::Software(2))]
    {
        for (rails, is_used) in [(1, true), (2, false), (2, true)] {
            let ends = Ends::new(devices, rails, 1 << 20, &[]);
            // What engines need once is there.
            let first = ends.connect(rails);
            use_once(&ends, &first);
            let before = resident();
            let connections: Vec<_> = (0..CONNECTIONS).map(|_| ends.connect(rails)).collect();
            connections.iter().filter(|_| is_used).for_each(|connection| use_once(&ends, connection));
            let each = (resident() - before) as f64 / (2 * CONNECTIONS) as f64;
            let queue_pairs = connections[0].info().lanes;
            println!("| {name} | {rails} | {queue_pairs} | {:.0} |", each / 1024.0);
            // Kept, so that the next row takes memory of its own.
            all.push((ends, first, connections));
        }
    }
    println!();
}

/// A transfer that takes each rail, and one more once a further rail has its lanes, that takes most of them.
fn use_once(ends: &Ends, connection: &Arc<Connection>) {
    let iovs = ends.iovs(64, 96 << 10, &mut 0);
    loop {
        let rails = connection.rails();
        let has_all = rails.iter().skip(1).all(|rail| rail.healthy_lanes > rails[0].lanes);
        let id = connection.submit(Opcode::Write, &iovs[..]).unwrap();
        while connection.status(id) == Status::Pending {
            std::thread::yield_now();
        }
        if has_all {
            return;
        }
    }
}

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    Process::myself().and_then(|process| process.statm()).unwrap().resident * procfs::page_size()
}
