//! What the engine itself costs per piece, over a stand-in NIC that costs next to nothing.
//!
//! `FLAGCX_P2P_NULLVERBS=path/to/libibverbs.so.1 cargo bench --bench overhead [-- ROW...]`; `./x bench overhead` builds
//! the stand-in first. A row PIECESxCALLS is a ratio to a bare post-and-poll loop on the same device, run right before it;
//! `connections` is what idle ones cost, `pause` what the first write after one does, `counting` what the counting of transfers does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program of its own, which ends with the first surprise"
)]

mod counting;
mod pause;
mod raw;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};

const POOL: usize = 256 << 20;
const PIECE: u64 = 4096;
const GAP: u64 = 64;

fn main() {
    let library =
        std::env::var("FLAGCX_P2P_NULLVERBS").expect("FLAGCX_P2P_NULLVERBS names the stand-in library");
    let mut options = FabricOptions { choice: FabricChoice::Verbs, ..FabricOptions::default() };
    options.verbs.library = Some(library);
    let list = Arc::new(DeviceList::open(&options).expect("the stand-in opens"));
    let device = list.devices()[0].clone();
    let pair = Pair::new(&list);
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if wanted.first().is_some_and(|argument| argument == "rates") {
        let options = FabricOptions { choice: FabricChoice::Software, ..FabricOptions::default() };
        let copied = Pair::new(&Arc::new(DeviceList::open(&options).expect("the software fabric opens")));
        let load = wanted.get(1).and_then(|load| load.parse().ok()).expect("the number of a load");
        return counting::print_rate(&pair, &copied, load);
    }
    if wanted.first().is_some_and(|argument| argument == "counting") {
        return counting::compare();
    }
    println!("{:>16} {:>10} {:>10} {:>7}", "load", "M pieces/s", "raw M/s", "ratio");
    for (pieces, in_flight) in [(4096, 8), (1024, 1), (64, 1), (1, 8), (1, 1)] {
        if !wanted.is_empty() && !wanted.contains(&format!("{pieces}x{in_flight}")) {
            continue;
        }
        let mut ratios = Vec::new();
        for _ in 0..5 {
            let raw = raw::rate(&device, &pair);
            let ours = run(&pair, pieces, in_flight);
            ratios.push((ours / raw, ours, raw));
        }
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, ours, raw) = ratios[2];
        println!("{:>16} {ours:>10.2} {raw:>10.2} {ratio:>7.2}", format!("{pieces} x {in_flight}"));
    }
    if wanted.is_empty() || wanted.contains(&"connections".to_owned()) {
        many_connections(&pair);
    }
    if wanted.is_empty() || wanted.contains(&"pause".to_owned()) {
        pause::run(&device, &pair);
    }
}

/// What connections cost that are open and idle: the same load on 8 of 1,000 as on one alone.
fn many_connections(pair: &Pair) {
    const BUSY: usize = 8;
    let connections: Vec<_> = (0..1000).map(|_| pair.connect()).collect();
    let busy: Vec<_> = connections.iter().step_by(connections.len() / BUSY).collect();
    let mut ratios: Vec<_> = (0..5)
        .map(|_| {
            let alone = run_on(&[&pair.client; BUSY], pair, 512);
            let among_many = run_on(&busy, pair, 512);
            (among_many / alone, among_many, alone)
        })
        .collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, many, alone) = ratios[2];
    println!("8 of 1000 connections: {many:.2} M pieces/s; one connection: {alone:.2} M/s; ratio {ratio:.2}");
}

struct Pair {
    client: Arc<Connection>,
    engines: [Arc<Engine>; 2],
    source: RegisteredBuffer,
    target: RegisteredBuffer,
}

impl Pair {
    /// Two engines with the default configuration, as a user gets them, but for the address.
    fn new(list: &Arc<DeviceList>) -> Self {
        let config = Config::from_source(&|name| (name == "FLAGCX_P2P_BIND").then(|| "127.0.0.1".to_owned()));
        let config = Arc::new(config);
        let options = EngineOptions { gpu_index: 0, devices: Some(Arc::clone(list)) };
        let client = Engine::open(Arc::clone(&config), options.clone()).unwrap();
        let server = Engine::open(config, options).unwrap();
        let (source, target) = (client.allocate(POOL).unwrap(), server.allocate(POOL).unwrap());
        // Touched, so that no run pays for page faults.
        for offset in (0..POOL).step_by(4096) {
            assert!(source.write(offset, &[1]) && target.write(offset, &[2]));
        }
        server.start_rpc_server().unwrap();
        let connection = connect(&client, &server);
        Self { client: connection, engines: [client, server], source, target }
    }

    fn connect(&self) -> Arc<Connection> {
        connect(&self.engines[0], &self.engines[1])
    }

    fn iovs(&self, count: usize, offset: &mut u64) -> Vec<Iov> {
        (0..count)
            .map(|_| {
                if *offset + PIECE > POOL as u64 {
                    *offset = 0;
                }
                let at = *offset;
                *offset += PIECE + GAP;
                Iov {
                    local: self.source.address() + at,
                    length: PIECE,
                    region: Some(self.source.region()),
                    remote: self.client.describe_remote(self.target.address() + at, PIECE as u32).unwrap(),
                }
            })
            .collect()
    }
}

fn connect(client: &Arc<Engine>, server: &Arc<Engine>) -> Arc<Connection> {
    client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap()
}

/// Pieces per microsecond through the connection.
fn run(pair: &Pair, pieces: usize, in_flight: usize) -> f64 {
    run_on(&vec![&pair.client; in_flight], pair, pieces)
}

/// The same with one call in flight on each of `connections`.
fn run_on(connections: &[&Arc<Connection>], pair: &Pair, pieces: usize) -> f64 {
    run_in_turn(connections, pair, pieces, 1)
}

/// The same, where each call moves the first of `places` sets of pieces, then the second, and so on.
fn run_in_turn(connections: &[&Arc<Connection>], pair: &Pair, pieces: usize, places: usize) -> f64 {
    let mut offset = 0;
    let sets: Vec<Vec<Iov>> = connections.iter().map(|_| pair.iovs(pieces * places, &mut offset)).collect();
    let mut calls: Vec<_> = connections
        .iter()
        .zip(&sets)
        .map(|(connection, set)| (*connection, set.chunks(pieces).cycle(), TransferId::COMPLETE))
        .collect();
    let start = Instant::now();
    let mut done = 0u64;
    while start.elapsed() < Duration::from_millis(300) {
        for (connection, places, id) in &mut calls {
            match connection.status(*id) {
                Status::Pending => {}
                Status::Ended(Outcome::Done) => {
                    done += pieces as u64;
                    *id = connection.submit(Opcode::Write, places.next().unwrap()).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let rate = done as f64 / start.elapsed().as_secs_f64() / 1e6;
    for (connection, _, id) in calls {
        while connection.status(id) == Status::Pending {}
    }
    rate
}
