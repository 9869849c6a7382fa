//! A program that forks with an engine open: what it does, and what its children do.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::PathKind;
use flagcx_p2p::internals::transfer::{Iov, Opcode, Outcome};
use rustix::process::{getpid, getppid};

use crate::support::children::{expect_success, fork};
use crate::support::{config, content, outcome, pattern};

/// Bytes that each process writes at a time.
pub const PART: usize = 5000;

/// Which process writes which part of the peer's buffer.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Before,
    During,
    After,
    Child,
    Grandchild,
}

/// Bytes of every buffer.
pub const LENGTH: usize = 5 * PART;

impl Part {
    pub fn range(self) -> std::ops::Range<usize> {
        self as usize * PART..(self as usize + 1) * PART
    }

    pub fn bytes(self) -> Vec<u8> {
        pattern(self as u64 + 1, PART)
    }
}

/// In the environment of the program: the case, the peer's address, port and buffer, and its settings.
const CASE: &str = "FLAGCX_P2P_TEST_FORKS";

/// Starts the program.
pub fn start(case: &str, settings: &[(&str, &str)], peer: &Engine, buffer: u64) -> Child {
    let settings: Vec<_> = settings.iter().map(|(name, value)| format!("\n{name}={value}")).collect();
    let peer = format!("{} {} {buffer}", peer.address(), peer.rpc_port().unwrap());
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program", "--nocapture", "--test-threads=1"])
        .env(CASE, format!("{case}\n{peer}{}", settings.concat()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// An engine on the devices of its process.
pub fn open(settings: &[(&str, &str)]) -> Arc<Engine> {
    Engine::open(config(settings), EngineOptions::default()).unwrap()
}

/// What a process has open, and where its peer is.
pub struct Program {
    pub case: String,
    pub settings: Vec<(String, String)>,
    pub engine: Arc<Engine>,
    pub buffer: RegisteredBuffer,
    pub connection: Arc<Connection>,
    host: String,
    port: u16,
    far: u64,
}

impl Program {
    /// The program that the environment asks for; `None` if it asks for none.
    pub fn asked_for() -> Option<Self> {
        let text = std::env::var(CASE).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        let (case, peer) = (lines.next().unwrap(), lines.next().unwrap());
        let settings =
            lines.map(|line| line.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap());
        let peer: Vec<_> = peer.split(' ').collect();
        let (host, port, far) = (peer[0].to_owned(), peer[1].parse().unwrap(), peer[2].parse().unwrap());
        Some(Self::begin(case, settings.collect(), host, port, far))
    }

    fn begin(case: String, settings: Vec<(String, String)>, host: String, port: u16, far: u64) -> Self {
        let borrowed: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let engine = open(&borrowed);
        let buffer = engine.allocate(LENGTH).unwrap();
        engine.start_rpc_server().unwrap();
        let connection = engine.connect(&host, port, 0, false).unwrap();
        Self { case, settings, engine, buffer, connection, host, port, far }
    }

    /// The same anew, in a child.
    pub fn anew(&self) -> Self {
        let begin =
            || Self::begin(String::new(), self.settings.clone(), self.host.clone(), self.port, self.far);
        let anew = begin();
        assert_ne!(anew.engine.rpc_port(), None);
        anew
    }

    /// Writes a part of the peer's buffer.
    pub fn write(&self, part: Part) {
        assert!(self.buffer.write(part.range().start, &part.bytes()));
        let address = self.far + part.range().start as u64;
        self.transfer(&self.connection, Opcode::Write, part, address);
    }

    /// Moves a part between this buffer and the peer's memory at `address`.
    pub fn transfer(&self, connection: &Connection, opcode: Opcode, part: Part, address: u64) {
        let iov = self.iov(connection, part, address);
        assert_eq!(outcome(connection, connection.submit(opcode, &[iov]).unwrap()), Outcome::Done);
    }

    pub fn iov(&self, connection: &Connection, part: Part, address: u64) -> Iov {
        let remote = connection.describe_remote(address, PART as u32).unwrap();
        let local = self.buffer.address() + part.range().start as u64;
        Iov { local, length: PART as u64, region: Some(self.buffer.region()), remote }
    }

    pub fn port(&self) -> u16 {
        self.engine.rpc_port().unwrap()
    }

    /// Forks; the parent goes on while `child` runs, and after it as before.
    pub fn with_child(&self, child: impl FnOnce(), meanwhile: impl FnOnce()) {
        self.write(Part::Before);
        let pid = fork(child);
        self.write(Part::During);
        meanwhile();
        expect_success(pid);
        self.expect_undisturbed();
    }

    /// Transfers, peers that connect, and peers that are connected to.
    pub fn expect_undisturbed(&self) {
        self.write(Part::After);
        let info = self.connection.info();
        assert_eq!(info.healthy_lanes, info.lanes);
        assert!(self.connection.is_usable());
        let settings: Vec<_> = self.settings.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let other = open(&settings);
        other.connect(&self.engine.address().to_string(), self.port(), 0, false).unwrap();
    }

    /// Reads a part of the buffer of `parent`, in the process that this one was forked from.
    pub fn read_from(&self, parent: &Self, parent_port: u16, part: Part) {
        let host = parent.engine.address().to_string();
        // The caller states one process, which the process token refutes.
        let connection = self.engine.connect(&host, parent_port, 0, true).unwrap();
        assert_ne!(connection.info().path, PathKind::InProcess);
        assert!(!connection.peer().same_process);
        self.transfer(&connection, Opcode::Read, part, parent.buffer.address() + part.range().start as u64);
        assert_eq!(content(&self.buffer)[part.range()], part.bytes());
    }
}

/// The text of a refusal in this process about the one that made the handle.
pub fn refusal_of_parent() -> String {
    format!("forked from process {}", getppid().unwrap_or_else(getpid).as_raw_nonzero())
}

/// Sockets that this process has open.
pub fn open_sockets() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// A pipe that carries numbers from a child to its parent.
pub struct Numbers(std::os::fd::OwnedFd, std::os::fd::OwnedFd);

impl Numbers {
    pub fn new() -> Self {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        Self(reader, writer)
    }

    pub fn send(&self, number: u64) {
        assert_eq!(rustix::io::write(&self.1, &number.to_ne_bytes()), Ok(8));
    }

    pub fn receive(&self) -> u64 {
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::read(&self.0, &mut bytes), Ok(8));
        u64::from_ne_bytes(bytes)
    }
}
