//! Engines of tests, in this process and in others.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::{Config, Engine, EngineOptions};
use flagcx_p2p_directory::{Change, Directory, EngineDirectory, Lease, Name, Record, Watch, open};

/// Set to the directory and the name of a peer's process.
const PEER: &str = "FLAGCX_P2P_TEST_PEER";

/// Set to the ports of the engine in a peer's process.
const PORTS: &str = "FLAGCX_P2P_TEST_PEER_PORTS";

/// An engine that accepts peers on the loopback address.
pub fn engine() -> Arc<Engine> {
    let config = Config::from_source(&|name| match name {
        "FLAGCX_P2P_FABRIC" => Some("software".to_owned()),
        "FLAGCX_P2P_BIND" => Some("127.0.0.1".to_owned()),
        "FLAGCX_P2P_PORT_RANGE" => std::env::var(PORTS).ok(),
        "FLAGCX_P2P_CONNECT_TIMEOUT_MS" => Some("1000".to_owned()),
        _ => None,
    });
    let engine = Engine::open(Arc::new(config), EngineOptions::default()).unwrap();
    engine.start_rpc_server().unwrap();
    engine
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

/// A record of no engine at all: nothing listens at its address.
pub fn record(id: u64) -> Record {
    Record { engine_id: id, kind: "test".to_owned(), ..Record::of_address("127.0.0.1:1") }
}

pub fn publish(directory: &Arc<dyn Directory>, text: &str, record: &Record) -> Lease {
    directory.publish(&name(text), record, soon()).unwrap()
}

pub fn address_of(directory: &Arc<dyn Directory>, text: &str) -> Option<String> {
    directory.look_up(&name(text), soon()).unwrap().map(|record| record.address)
}

/// Waits until `condition` holds, and tells how long that took.
pub fn eventually(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

/// The next change, which must come.
pub fn change(watch: &mut Watch) -> Change {
    watch.next(Duration::from_secs(20)).unwrap().expect("a change within 20 s")
}

/// An engine in a process of its own, which has published a name.
pub struct Peer {
    process: Child,
    output: BufReader<ChildStdout>,
    pub address: String,
}

impl Peer {
    pub fn start(url: &str, name: &str) -> Self {
        Self::start_by(&mut Command::new(std::env::current_exe().unwrap()), url, name)
    }

    /// With its ports in a range.
    pub fn start_at(ports: &str, url: &str, name: &str) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()).env(PORTS, ports), url, name)
    }

    fn start_by(command: &mut Command, url: &str, name: &str) -> Self {
        let mut process = command
            .args(["--exact", "process_of_a_peer", "--nocapture"])
            .env(PEER, format!("{url} {name}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the peer has ended");
            if let Some((_, address)) = line.trim().split_once("published ") {
                break address.to_owned();
            }
        };
        Self { process, output, address }
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Ends it without a chance to withdraw anything.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the process of a peer runs: until its input ends.
pub fn run_as_peer() {
    let Ok(settings) = std::env::var(PEER) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let (url, name) = settings.split_once(' ').unwrap();
    let (engine, directory) = (engine(), open(url).unwrap());
    let lease = engine.publish(name, &*directory).unwrap();
    println!("published {}", engine.record("test").unwrap().address);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(lease);
}
