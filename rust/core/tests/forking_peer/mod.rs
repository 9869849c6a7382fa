//! A peer in another process that forks a helper, which holds what the peer holds.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

#[path = "../other_process/mod.rs"]
mod other_process;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::notify::Message;
use flagcx_p2p::internals::transfer::Iov;
use rustix::process::{Pid, Signal, kill_process};

use other_process::OtherProcess;

use crate::support;

/// Bytes of the peer's buffer.
pub const LENGTH: usize = 64 << 10;

/// Set in the environment of the process that plays the peer: its settings, one a line.
const ROLE: &str = "FLAGCX_P2P_TEST_FORKING_PEER";

pub struct Peer {
    process: OtherProcess,
    is_out_of_sight: bool,
    helper: Option<Pid>,
    pub port: u16,
    pub address: u64,
}

impl Peer {
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()), false, settings)
    }

    /// The same in a pid namespace of its own, as on another host: its process cannot be seen from here.
    pub fn out_of_sight(settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(std::env::current_exe().unwrap());
        Self::start_by(command, true, settings)
    }

    fn start_by(mut command: Command, is_out_of_sight: bool, settings: &[(&str, &str)]) -> Self {
        let lines: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let process = OtherProcess::start(command.env(ROLE, lines.join("\n")), "peer_process");
        let mut peer = Self { process, is_out_of_sight, helper: None, port: 0, address: 0 };
        let numbers = peer.process.numbers();
        (peer.port, peer.address) = (numbers[0] as u16, numbers[1]);
        peer
    }

    /// The peer forks a helper, which has all of its descriptors.
    pub fn fork(&mut self) {
        let helper = self.ask("fork")[0];
        self.helper = Pid::from_raw(helper as i32);
    }

    /// The peer connects to `port`.
    pub fn connect(&mut self, port: u16) {
        self.ask(&format!("connect {port}"));
    }

    /// The peer sends `number` over the connections that it has accepted.
    pub fn notify(&mut self, number: u64) {
        self.ask(&format!("notify {number}"));
    }

    /// The peer writes a pin by hand on every region of every device that it is connected to on this host.
    pub fn forge_pins(&mut self) {
        self.ask("forge");
    }

    /// The peer, which has connected, begins a WRITE of bytes 0x5a to that range; answered once it has pinned the region.
    pub fn begin_write(&mut self, address: u64, length: u64) {
        self.ask(&format!("write {address} {length}"));
    }

    /// Kills the peer and not its helper, and does not wait for its end.
    pub fn kill(&mut self) {
        self.process.child.kill().unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).unwrap();
    }

    /// Stops it (SIGSTOP); each of its threads has stopped when this returns.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let is_stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        support::eventually("it has stopped", || {
            let mut tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            tasks.all(|task| is_stopped(task.unwrap()))
        });
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.process().as_raw_nonzero().get().unsigned_abs()
    }

    /// The peer's process; that of one out of sight is a child of the one that was started.
    fn process(&self) -> Pid {
        let started = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{started}/task/{started}/children")).unwrap();
        let inner = children.split_whitespace().next().filter(|_| self.is_out_of_sight);
        inner.map_or_else(
            || Pid::from_child(&self.process.child),
            |pid| Pid::from_raw(pid.parse().unwrap()).unwrap(),
        )
    }

    /// The helper ends too.
    pub fn end_helper(&mut self) {
        if let Some(helper) = self.helper.take() {
            let _ = kill_process(helper, Signal::KILL);
        }
    }

    fn ask(&mut self, command: &str) -> Vec<u64> {
        self.process.ask_numbers(command)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end_helper();
    }
}

/// An engine with `settings`; over verbs on the stand-in.
pub fn engine(settings: &[(&str, &str)]) -> Arc<Engine> {
    #[cfg(feature = "verbs")]
    if settings.contains(&("FLAGCX_P2P_FABRIC", "verbs")) {
        use flagcx_p2p::internals::engine::EngineOptions;
        use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions};

        let standin = crate::nullverbs::Standin::new(&[]);
        let verbs = standin.options();
        let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
        let devices = Some(Arc::new(DeviceList::open(&options).unwrap()));
        return Engine::open(support::config(settings), EngineOptions { gpu_index: 0, devices }).unwrap();
    }
    support::engine(settings)
}

/// What the other process does, if this is it.
#[allow(clippy::print_stdout, reason = "the parent process reads it, or it reports why a test does nothing")]
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let settings: Vec<_> = role.lines().filter_map(|line| line.split_once('=')).collect();
    let engine = engine(&settings);
    let buffer = engine.allocate(LENGTH).unwrap();
    let accepting = Arc::clone(&engine);
    let (accepted, connections) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok(peer) = accepting.accept() {
            accepted.send(peer.connection).unwrap();
        }
    });
    let mut kept = Vec::new();
    println!("\nanswer: {} {}", engine.rpc_port().unwrap(), buffer.address());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            // SAFETY: the child does nothing but wait to be killed.
            ["fork"] => match unsafe { fork_with_all_sockets() } {
                0 => wait_to_be_killed(),
                child => println!("\nanswer: {child}"),
            },
            ["connect", port] => {
                kept.push(engine.connect("127.0.0.1", port.parse().unwrap(), 0, false).unwrap());
                println!("\nanswer:");
            }
            ["notify", number] => {
                kept.push(connections.recv().unwrap());
                let message = Message::new(b"killed", number.as_bytes());
                kept.last().unwrap().send_notification(&message).unwrap();
                println!("\nanswer:");
            }
            ["forge"] => {
                pins().iter().for_each(|pin| pin.store(1, Ordering::SeqCst));
                println!("\nanswer:");
            }
            ["write", address, length] => {
                let (address, length) = (address.parse().unwrap(), length.parse().unwrap());
                assert!(buffer.write(0, &vec![0x5a; length as usize]));
                let connection: Arc<Connection> = Arc::clone(kept.last().unwrap());
                let remote = connection.describe_remote(address, length as u32).unwrap();
                let iov = Iov { local: buffer.address(), length, region: Some(buffer.region()), remote };
                // It may copy at once, on this thread.
                std::thread::spawn(move || connection.submit(Opcode::Write, &[iov][..]));
                let pins = pins();
                support::eventually("it is pinned", || {
                    pins.iter().any(|pin| pin.load(Ordering::SeqCst) != 0)
                });
                println!("\nanswer:");
            }
            _ => panic!("unknown command {line}"),
        }
    }
}

/// The pins of this process on the regions of its peers, as it shares them with these: its mappings of them that it may write.
fn pins() -> Vec<&'static AtomicU32> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains("flagcx-p2p-pins") && line.contains(" rw"));
    let words = ours.flat_map(|line| {
        let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let parse = |text| usize::from_str_radix(text, 16).unwrap();
        (parse(start)..parse(end)).step_by(4)
    });
    // SAFETY: mapped until the process ends, as the connection is kept, and made of such words.
    words.map(|word| unsafe { &*(word as *const AtomicU32) }).collect()
}

/// Not for long if the test has died.
fn wait_to_be_killed() -> ! {
    // SAFETY: neither call touches memory.
    unsafe { libc::alarm(60) };
    loop {
        // SAFETY: as above.
        unsafe { libc::pause() };
    }
}

/// Forks without the handlers of the C library, as a runtime with system calls of its own does: the child keeps the sockets
/// that a handler of ours closes otherwise.
///
/// # Safety
/// The child neither allocates nor takes locks.
unsafe fn fork_with_all_sockets() -> i32 {
    // SAFETY: the caller's promise; no flags, so the child has memory of its own.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 }
}
