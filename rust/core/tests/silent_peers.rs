//! One of two hundred peers does not answer: the transfers with the others take as long as before. Over the stand-in libibverbs.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod nullverbs;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions, Opcode, VerbsOptions};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};
use nullverbs::Standin;
use support::{Pair, outcome};

/// Peers, the silent one included.
const PEERS: usize = 200;
/// Rounds of transfers with all of them.
const ROUNDS: usize = 10;
const TRIES: usize = 5;
/// Below this, times say nothing about credits on a machine that does other work as well.
const NOISE: Duration = Duration::from_millis(1);

/// An engine on the device called `name`.
fn engine(standin: &Standin, name: &str, settings: &[(&str, &str)]) -> Arc<Engine> {
    let verbs = VerbsOptions { hca: format!("={name}"), ..standin.options() };
    let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
    let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
    let all = [&[("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")], settings].concat();
    Engine::open(support::config(&all), EngineOptions { gpu_index: 0, devices }).unwrap()
}

/// Pieces that stay requests of their own: neither neighbours here nor there.
fn pieces(pair: &Pair, count: u64) -> Vec<Iov> {
    (0..count).map(|at| pair.iov(at * 256, at * 256, 128)).collect()
}

/// How long the slowest but one of a hundred transfers takes, where each peer has one at a time.
fn p99(connections: &[Arc<Connection>], pieces: &[Iov]) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let submit = |connection: &Arc<Connection>| -> (Instant, TransferId) {
            (Instant::now(), connection.submit(Opcode::Write, pieces).unwrap())
        };
        let begun: Vec<_> = connections.iter().map(submit).collect();
        for (connection, (at, id)) in connections.iter().zip(begun) {
            assert_eq!(outcome(connection, id), Outcome::Done);
            times.push(at.elapsed());
        }
    }
    times.sort();
    times[times.len() * 99 / 100]
}

fn others_are_not_stalled(settings: &[(&str, &str)]) {
    let standin = Standin::playing("silent_peer", &[]);
    let client = engine(&standin, "nv0", settings);
    let pair = Pair::between(Arc::clone(&client), engine(&standin, "nv1", settings), 2 << 20);
    let silent = Pair::between(Arc::clone(&client), engine(&standin, "nv2", settings), 2 << 20);
    pair.server.start_rpc_server().unwrap();
    let port = pair.server.rpc_port().unwrap();
    let mut others: Vec<_> =
        (2..PEERS).map(|_| client.connect("127.0.0.1", port, 0, false).unwrap()).collect();
    others.push(Arc::clone(&pair.here));

    let transfer = pieces(&pair, 16);
    // The best of some tries: another program on the machine disturbs one, a peer without credits all of them.
    let best = || (0..TRIES).map(|_| p99(&others, &transfer)).min().unwrap();
    let before = best();
    // More than all credits of all workers.
    let stuck = silent.here.submit(Opcode::Write, &pieces(&silent, 8000)[..]).unwrap();
    let during = best();
    println!("{PEERS} peers, {settings:?}: p99 {before:?}, {during:?} with a silent one");
    assert_eq!(silent.here.wait(stuck, Duration::ZERO), Status::Pending, "it was not silent");
    assert!(during <= (2 * before).max(NOISE), "p99 {before:?} before, {during:?} with a silent peer");
    silent.here.cancel(stuck);
    let end = outcome(&silent.here, stuck);
    assert_eq!(end, Outcome::Cancelled);
}

#[test]
fn a_silent_peer_leaves_the_others_their_credits() {
    others_are_not_stalled(&[]);
}

#[test]
fn a_silent_peer_leaves_the_others_their_credits_on_one_worker() {
    others_are_not_stalled(&[("FLAGCX_P2P_WORKERS_PER_POOL", "1")]);
}
