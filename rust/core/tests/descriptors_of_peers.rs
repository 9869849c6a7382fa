//! How many descriptors a peer costs: with nothing under way, and when there are more peers than sockets could be kept open for.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod other_process;
mod support;

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome};
use other_process::OtherProcess;
use rustix::fs::Dir;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Set in the peers, to the way that they use; empty for the best one.
const ROLE: &str = "FLAGCX_P2P_TEST_PEER_BY";
/// The file of the key. Without one, a single source may hold less than half of the descriptors.
const KEY: &str = "FLAGCX_P2P_AUTH_KEY_FILE";

const LENGTH: usize = 64 << 10;

/// Longer than a socket is kept open without use.
const REST: Duration = Duration::from_secs(11);

/// Descriptors are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn engine(path: &str, key: &str) -> Arc<Engine> {
    let path = Some(("FLAGCX_P2P_PATH", path)).filter(|(_, path)| !path.is_empty());
    let settings: Vec<_> = path.into_iter().chain([("FLAGCX_P2P_FABRIC", "software"), (KEY, key)]).collect();
    support::engine(&settings)
}

/// A file with a key, removed when dropped.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("flagcx-p2p-{name}-{}", std::process::id()));
        std::fs::write(&path, "a key of more than 16 bytes").unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lists the open descriptors, and needs no other one for that when none is left.
static OPEN: LazyLock<Mutex<Dir>> =
    LazyLock::new(|| Mutex::new(Dir::new(std::fs::File::open("/proc/self/fd").unwrap()).unwrap()));

/// A thousand descriptors, as a process may have by default.
fn limit_descriptors() {
    LazyLock::force(&OPEN);
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(1024), maximum }).unwrap();
}

/// Not a test of its own: what the other processes of the tests below run.
#[test]
fn process_of_a_peer() {
    let Ok(path) = std::env::var(ROLE) else {
        return println!("not run: it is what the other processes of the tests here run");
    };
    limit_descriptors();
    let engine = engine(&path, &std::env::var(KEY).unwrap());
    let target = engine.allocate(LENGTH).unwrap();
    engine.start_rpc_server().unwrap();
    println!("\nanswer: {} {}", engine.rpc_port().unwrap(), target.address());
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "bytes" => {
                let bytes = support::content(&target);
                let seed = (0..64).find(|seed| support::pattern(*seed, LENGTH) == bytes);
                println!("\nanswer: {}", seed.map_or_else(|| "none".to_owned(), |seed| seed.to_string()));
            }
            _ => println!("\nanswer: {}", descriptors().len()),
        }
    }
}

/// What the open descriptors of this process are.
fn descriptors() -> Vec<PathBuf> {
    let mut open = OPEN.lock().unwrap();
    open.rewind();
    let folder = Path::new("/proc/self/fd");
    open.by_ref()
        .filter_map(|entry| std::fs::read_link(folder.join(entry.ok()?.file_name().to_str().ok()?)).ok())
        .collect()
}

struct Peer {
    process: OtherProcess,
    port: u16,
    address: u64,
}

impl Peer {
    fn start(path: &str, key: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut process = OtherProcess::start(command.env(ROLE, path).env(KEY, key), "process_of_a_peer");
        let answer = process.numbers();
        Self { process, port: answer[0] as u16, address: answer[1] }
    }
}

fn write(connection: &Connection, source: &RegisteredBuffer, address: u64, seed: u64) {
    assert!(source.write(0, &support::pattern(seed, LENGTH)));
    let remote = connection.describe_remote(address, LENGTH as u32).unwrap();
    let (local, region) = (source.address(), Some(source.region()));
    let iov = Iov { local, length: LENGTH as u64, region, remote };
    let id = connection.submit(Opcode::Write, &[iov][..]).unwrap();
    assert_eq!(support::outcome(connection, id), Outcome::Done);
}

fn connect(engine: &Arc<Engine>, peer: &Peer) -> Arc<Connection> {
    engine.connect("127.0.0.1", peer.port, 0, false).unwrap()
}

/// Nine peers that are reached over `path`, each written to once.
struct Peers {
    connections: Vec<Arc<Connection>>,
    peers: Vec<Peer>,
    source: RegisteredBuffer,
    _engine: Arc<Engine>,
}

impl Peers {
    fn connect(path: &str, key: &str) -> Self {
        let engine = engine(path, key);
        let source = engine.allocate(LENGTH).unwrap();
        let peers: Vec<_> = (0..9).map(|_| Peer::start(path, key)).collect();
        let connections: Vec<_> = peers.iter().map(|peer| connect(&engine, peer)).collect();
        for (connection, peer) in connections.iter().zip(&peers) {
            write(connection, &source, peer.address, 1);
        }
        Self { connections, peers, source, _engine: engine }
    }

    /// Closes eight of them, and answers how many descriptors each had. There are `count`, and as many are left as it says then.
    fn close_eight(&mut self, count: &mut usize) -> usize {
        for connection in self.connections.drain(1..) {
            connection.close();
        }
        let before = std::mem::replace(count, settled(Duration::ZERO));
        (before - *count).div_ceil(8)
    }

    /// Writes over the one that is left.
    fn write(&mut self, seed: u64) {
        write(&self.connections[0], &self.source, self.peers[0].address, seed);
        assert_eq!(self.peers[0].process.ask_numbers("bytes"), [seed]);
    }
}

/// The number of descriptors after `time`, once it has not changed for a second.
fn settled(time: Duration) -> usize {
    std::thread::sleep(time);
    let (mut count, mut since) = (descriptors().len(), Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(20));
        let now = descriptors().len();
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    count
}

/// From now on for `time` no descriptor can be opened.
fn without_descriptors(time: Duration) -> std::thread::JoinHandle<()> {
    let before = getrlimit(Resource::Nofile);
    let first_free = std::fs::File::open("/").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(first_free), ..before }).unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        setrlimit(Resource::Nofile, before).unwrap();
    })
}

#[test]
fn a_peer_at_rest_costs_four_descriptors_over_tcp_and_six_on_this_host() {
    let _alone = alone();
    let key = KeyFile::new("at-rest");
    let (mut over_tcp, mut of_this_host) =
        (Peers::connect("tcp", key.path()), Peers::connect("", key.path()));
    let busy = descriptors().len();
    let at_rest = settled(REST);
    let mut count = at_rest;
    let costs = (over_tcp.close_eight(&mut count), of_this_host.close_eight(&mut count));
    println!("{busy} descriptors, {at_rest} at rest; of each peer over TCP and of this host: {costs:?}");
    assert!(costs.0 <= 4 && costs.1 <= 6, "{costs:?}: {:#?}", descriptors());
    // The sockets of the lanes over TCP are opened again, also when there is no descriptor for that at first.
    let late = without_descriptors(Duration::from_millis(300));
    over_tcp.write(2);
    late.join().unwrap();
    of_this_host.write(3);
}

#[test]
fn a_thousand_descriptors_serve_two_hundred_peers() {
    let _alone = alone();
    limit_descriptors();
    let key = KeyFile::new("crowd");
    let mut peer = Peer::start("tcp", key.path());
    let engine = engine("tcp", key.path());
    let source = engine.allocate(LENGTH).unwrap();
    let mut most = 0;
    let connections: Vec<_> = (0..200)
        .map(|_| {
            let connection = connect(&engine, &peer);
            most = most.max(descriptors().len());
            connection
        })
        .collect();
    println!(
        "connected: {most} descriptors at most, {} at the peer",
        peer.process.ask_numbers("descriptors")[0]
    );
    let usable = |connection: &&Arc<Connection>| connection.is_usable();
    assert_eq!(connections.iter().filter(usable).count(), 200);
    for (number, connection) in connections.iter().enumerate() {
        write(connection, &source, peer.address, number as u64 % 64);
        most = most.max(descriptors().len());
    }
    println!("{most} descriptors at most, {} at the peer", peer.process.ask_numbers("descriptors")[0]);
    assert_eq!(peer.process.ask_numbers("bytes"), [199 % 64]);
    assert_eq!(connections.iter().filter(usable).count(), 200);
}
