//! The other side of `vanishing_memory`, in this process or in one of its own.
#![allow(unsafe_code, reason = "registers memory by address, and filters system calls")]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[path = "../other_process/mod.rs"]
mod other_process;

use std::process::Command;
use std::sync::Arc;

use flagcx_p2p::internals::engine::{Engine, RegisterOptions, RegisteredBuffer};
use flagcx_p2p::internals::memory::RegionId;

use other_process::OtherProcess;

use crate::support;
use crate::support::vanishing::{How, Vanishing};

/// Set in the environment of the process that plays the peer: the path to force.
const ROLE: &str = "FLAGCX_P2P_TEST_VANISHING_PEER";
/// Set there as well: its good buffer is shared memory.
const SHARED: &str = "FLAGCX_P2P_TEST_VANISHING_SHARED";

/// What is asked of the other side.
pub trait Far {
    fn port(&self) -> u16;
    /// A good buffer.
    fn buffer(&self) -> u64;
    /// Maps memory, registers it, lets it go from `from` on, and answers where it was.
    fn vanish(&mut self, how: How, length: usize, from: usize) -> u64;
    /// Deregisters it.
    fn deregister(&mut self);
}

/// In this process.
pub struct FarEngine {
    engine: Arc<Engine>,
    buffer: Buffer,
    vanished: Option<(Vanishing, RegionId)>,
}

enum Buffer {
    /// What the engine allocates.
    Shared(RegisteredBuffer),
    /// That of a program, to the end of the process.
    Private(&'static [u8]),
}

impl Buffer {
    fn private(engine: &Engine, length: usize) -> Self {
        let bytes: &[u8] = Vec::leak(vec![0; length]);
        let start = bytes.as_ptr().expose_provenance() as u64;
        // SAFETY: it is never freed, and its bytes are never looked at here.
        unsafe { engine.register(start, length as u64, RegisterOptions::default()) }.unwrap();
        Self::Private(bytes)
    }

    fn address(&self) -> u64 {
        match self {
            Self::Shared(buffer) => buffer.address(),
            Self::Private(bytes) => bytes.as_ptr() as u64,
        }
    }
}

impl FarEngine {
    pub fn new(engine: Arc<Engine>, most: usize) -> Self {
        let buffer = Buffer::Shared(engine.allocate(most).unwrap());
        Self::with(engine, buffer)
    }

    fn with(engine: Arc<Engine>, buffer: Buffer) -> Self {
        engine.start_rpc_server().unwrap();
        Self { engine, buffer, vanished: None }
    }
}

impl Far for FarEngine {
    fn port(&self) -> u16 {
        self.engine.rpc_port().unwrap()
    }

    fn buffer(&self) -> u64 {
        self.buffer.address()
    }

    fn vanish(&mut self, how: How, length: usize, from: usize) -> u64 {
        let memory = Vanishing::new(how, length, from).unwrap();
        let start = memory.address();
        // SAFETY: what happens to the memory is what this tests; no reference into it exists.
        let id = unsafe { self.engine.register(start, length as u64, RegisterOptions::default()) }.unwrap();
        memory.vanish();
        self.vanished = Some((memory, id));
        start
    }

    fn deregister(&mut self) {
        let (memory, id) = self.vanished.take().unwrap();
        assert!(self.engine.deregister(id));
        drop(memory);
    }
}

/// In another process, killed when dropped.
pub struct Peer {
    process: OtherProcess,
    port: u16,
    buffer: u64,
}

impl Peer {
    /// With a buffer that no peer maps.
    pub fn start(path: &str) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), path)
    }

    /// With a buffer that peers map.
    pub fn start_shared(path: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SHARED, "1");
        Self::start_by(command, path)
    }

    fn start_by(mut command: Command, path: &str) -> Self {
        let process = OtherProcess::start(command.env(ROLE, path), "peer_process");
        let mut peer = Self { process, port: 0, buffer: 0 };
        let started = peer.ask("start");
        peer.port = started[0] as u16;
        peer.buffer = started[1];
        peer
    }

    fn ask(&mut self, command: &str) -> Vec<u64> {
        self.process.ask_numbers(command)
    }

    pub fn expect_alive(&mut self) {
        self.ask("alive");
    }
}

impl Far for Peer {
    fn port(&self) -> u16 {
        self.port
    }

    fn buffer(&self) -> u64 {
        self.buffer
    }

    fn vanish(&mut self, how: How, length: usize, from: usize) -> u64 {
        self.ask(&format!("vanish {how:?} {length} {from}"))[0]
    }

    fn deregister(&mut self) {
        self.ask("deregister");
    }
}

/// What the other process does, if this is it.
pub fn play(most: usize) {
    let Ok(path) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let engine = support::engine(&[("FLAGCX_P2P_PATH", &path)]);
    let mut far = match std::env::var(SHARED) {
        Ok(_) => FarEngine::new(engine, most),
        Err(_) => FarEngine::with(Arc::clone(&engine), Buffer::private(&engine, most)),
    };
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["start"] => format!("{} {}", far.port(), far.buffer()),
            ["vanish", how, length, from] => {
                far.vanish(How::named(how), length.parse().unwrap(), from.parse().unwrap()).to_string()
            }
            ["deregister"] => {
                far.deregister();
                String::new()
            }
            ["alive"] => String::new(),
            _ => panic!("unknown command {line}"),
        };
        println!("\nanswer: {answer}");
    }
}

/// From now on the kernel refuses two calls to this thread, and to those that it starts.
pub fn deny(calls: [libc::c_long; 2]) {
    const ALLOW: u32 = 0x7fff_0000;
    const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let is =
        |call: libc::c_long, jt, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, call as u32);
    let mut steps = [
        // The number of the call is the first word.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        is(calls[0], 2, 0),
        is(calls[1], 1, 0),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, ALLOW),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, REFUSE),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the filter is alive during the calls, which copy it.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    assert_eq!(set, 0, "the filter is not in force: {}", std::io::Error::last_os_error());
}
