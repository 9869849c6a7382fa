//! The host at the other end of a link: a process in a network namespace of its own, controlled by lines of text.

use std::io::stdin;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::Metadata;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::notify::Message;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use super::other_process::OtherProcess;
use super::{UP_LIMIT, chosen, config, ip, show_own_sysfs};
use crate::support::{content, eventually, outcome, pattern};

const SETTINGS: &str = "FLAGCX_P2P_TEST_ODD_PEER";
const LENGTH: usize = 256 << 10;

/// The other host, from here.
pub struct Peer {
    process: OtherProcess,
    /// Address of its buffer.
    buffer: u64,
}

impl Peer {
    /// Behind a link that is called `link` on both sides. `setup` is for `ip`, there.
    pub fn behind(link: &str, setup: &str) -> Self {
        Self::with_settings(link, setup, &[])
    }

    /// The same, for an engine with settings.
    pub fn with_settings(link: &str, setup: &str, settings: &[(&str, &str)]) -> Self {
        Self::named(link, link, setup, settings)
    }

    /// The same, with a name of its own for our end.
    pub fn named(theirs: &str, ours: &str, setup: &str, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount"]).arg(std::env::current_exe().unwrap());
        let mut peer = Self::start(command, settings);
        let far = format!("far-{ours}");
        ip(&format!(
            "link add {ours} type veth peer name {far}; link set {far} netns {}",
            peer.process.pid()
        ));
        peer.ask(&format!("ip link set {far} name {theirs}; {setup}"));
        peer
    }

    /// Another process of this host.
    pub fn here(settings: &[(&str, &str)]) -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()), settings)
    }

    fn start(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let process = OtherProcess::start(command.env(SETTINGS, settings.join(" ")), "peer_of_an_odd_host");
        let mut peer = Self { process, buffer: 0 };
        assert_eq!(peer.process.answer(), ["here"], "the namespace is made");
        peer
    }

    /// Opens its engine once it chooses what it has to; answers the metadata.
    pub fn open(&mut self, expected: &str) -> String {
        let answer = self.ask(&format!("open {expected}"));
        let (metadata, buffer) = answer.split_once(' ').unwrap_or_else(|| panic!("{answer}"));
        self.buffer = buffer.parse().unwrap();
        metadata.to_owned()
    }

    /// From now on it accepts one peer.
    pub fn accept(&mut self) {
        self.ask("accept");
    }

    /// Makes it connect to `other`, with this metadata, and move bytes both ways.
    pub fn connect(&mut self, metadata: &str, other: &Self) {
        assert_eq!(self.ask(&format!("connect {metadata} {}", other.buffer)), "moved");
    }

    fn ask(&mut self, request: &str) -> String {
        self.process.ask(request).join(" ")
    }
}

/// Opens an engine here, connects it to `peer`, which has to choose `expected`, and moves bytes both ways.
pub fn connect_to(peer: &mut Peer, expected: &str) {
    let metadata = peer.open(expected);
    peer.accept();
    let engine = open(&[]);
    let connection = exchange(&engine, &metadata, peer.buffer);
    assert_eq!((connection.info().path, connection.peer().local), (PathKind::Tcp, false), "{metadata}");
}

/// The same for another process of this host.
pub fn connect_on_one_host(peer: &mut Peer, expected: &str, settings: &[(&str, &str)]) {
    let metadata = peer.open(expected);
    peer.accept();
    let engine = open(settings);
    let connection = exchange(&engine, &metadata, peer.buffer);
    assert!(connection.peer().local, "{metadata}");
    // Where the kernel lets one process reach the other's memory.
    assert_ne!(connection.info().path, PathKind::InProcess);
}

/// What the process of another host runs.
pub fn play() {
    let Ok(settings) = std::env::var(SETTINGS) else { return };
    let settings: Vec<_> = settings.split_whitespace().filter_map(|one| one.split_once('=')).collect();
    show_own_sysfs();
    answer("here");
    let mut held: Option<(Arc<Engine>, RegisteredBuffer)> = None;
    for line in stdin().lines().map_while(Result::ok) {
        let (request, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (request, &held) {
            ("ip", _) => {
                ip(rest);
                answer("done");
            }
            ("open", _) => {
                wait_until_chosen(rest, &settings);
                let engine = open(&settings);
                let buffer = engine.allocate(LENGTH).unwrap();
                answer(&format!("{} {}", engine.metadata().unwrap(), buffer.address()));
                held = Some((engine, buffer));
            }
            ("accept", Some((engine, _))) => {
                accept(Arc::clone(engine));
                answer("done");
            }
            ("connect", Some((engine, _))) => {
                let (metadata, buffer) = rest.split_once(' ').unwrap();
                let connection = exchange(engine, metadata, buffer.parse().unwrap());
                assert!(!connection.peer().local, "{metadata}");
                answer("moved");
            }
            _ => panic!("{line}"),
        }
    }
}

fn answer(answer: &str) {
    println!("\nanswer: {answer}");
}

fn wait_until_chosen(expected: &str, settings: &[(&str, &str)]) {
    let start = Instant::now();
    while chosen(settings) != expected {
        assert!(start.elapsed() < UP_LIMIT, "chosen: {}, expected: {expected}", chosen(settings));
        thread::sleep(std::time::Duration::from_millis(2));
    }
}

fn open(settings: &[(&str, &str)]) -> Arc<Engine> {
    Engine::open(config(settings), EngineOptions::default()).unwrap()
}

/// Accepts one peer, and answers its notification.
fn accept(engine: Arc<Engine>) {
    thread::spawn(move || {
        let connection = engine.accept().unwrap().connection;
        eventually("its notification arrives", || !engine.take_notifications().is_empty());
        connection.send_notification(&Message::new(b"there", b"and back")).unwrap();
    });
}

/// Writes and reads the buffer of the engine with this metadata, and gets a notification from it.
fn exchange(engine: &Arc<Engine>, metadata: &str, buffer: u64) -> Arc<Connection> {
    let control = metadata.parse::<Metadata>().unwrap().control;
    let connection = engine.connect(&control.ip().to_string(), control.port(), 0, false).unwrap();
    let (source, back) = (engine.allocate(LENGTH).unwrap(), engine.allocate(LENGTH).unwrap());
    assert!(source.write(0, &pattern(9, LENGTH)));
    for (opcode, local) in [(Opcode::Write, &source), (Opcode::Read, &back)] {
        let remote = connection.describe_remote(buffer, LENGTH as u32).unwrap();
        let iov = Iov { local: local.address(), length: LENGTH as u64, region: Some(local.region()), remote };
        assert_eq!(outcome(&connection, connection.submit(opcode, &[iov][..]).unwrap()), Outcome::Done);
    }
    assert!(content(&back) == pattern(9, LENGTH), "other bytes came back");
    connection.send_notification(&Message::new(b"here", b"there")).unwrap();
    eventually("the answer arrives", || !engine.take_notifications().is_empty());
    connection
}
