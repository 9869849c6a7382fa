//! A peer in another process: the test binary run again. It can be stopped and killed.

#[path = "../other_process/mod.rs"]
mod other_process;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use other_process::OtherProcess;

use super::buffer::{Buffer, Memory};
use super::echo::Echo;
use super::rig::{Settings, length};
use super::seccomp;
use super::storm::Storm;
use crate::support;

/// Set in the environment of the process that plays the peer: its settings, one a line.
const ROLE: &str = "FLAGCX_P2P_TEST_CHAOS_PEER";
/// Among those settings: the peer's threads get a signal each, about so often in microseconds.
pub const STORM_US: &str = "FLAGCX_P2P_TEST_STORM_US";
/// Among those settings: every other call of the peer that can be interrupted is.
pub const INTERRUPTED: &str = "FLAGCX_P2P_TEST_INTERRUPTED";
/// Among those settings: an errno, and the system calls that answer it in the peer.
pub const DENY: &str = "FLAGCX_P2P_TEST_DENY";

/// Among those settings: the peer sends back the notifications that it gets.
pub const ECHO: &str = "FLAGCX_P2P_TEST_ECHO";

pub struct Peer {
    /// The end of its input is the peer's sign to go.
    process: OtherProcess,
    pub port: u16,
    pub address: u64,
}

impl Peer {
    pub fn start(settings: &Settings<'_>) -> Self {
        let lines: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut command = Command::new(executable());
        let mut process = OtherProcess::start(command.env(ROLE, lines.join("\n")), "peer_process");
        let numbers = process.numbers();
        Self { process, port: numbers[0] as u16, address: numbers[1] }
    }

    pub fn pid(&self) -> i32 {
        self.process.pid() as i32
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid()) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// This program. Without /proc by its first argument, which is absolute where it was started by itself.
pub fn executable() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| std::env::args_os().next().unwrap().into())
}

/// What the other process does, if this is it.
pub fn play() {
    #[allow(clippy::print_stdout, reason = "reports why a test does nothing")]
    let Ok(role) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let settings: Vec<_> = role.lines().filter_map(|line| line.split_once('=')).collect();
    if let Some((_, denied)) = settings.iter().find(|(name, _)| *name == DENY) {
        let words: Vec<_> = denied.split_whitespace().collect();
        seccomp::deny(&words[1..], words[0].parse().unwrap());
    }
    #[cfg(target_arch = "x86_64")]
    if settings.iter().any(|(name, _)| *name == INTERRUPTED) {
        super::interrupts::begin();
    }
    let storm = settings.iter().find(|(name, _)| *name == STORM_US);
    let _storm = storm.map(|(_, us)| Storm::begin(Duration::from_micros(us.parse().unwrap())));
    let engine = support::engine(&settings);
    // Only memory of an engine's is mapped by peers.
    let is_forced = settings.contains(&("FLAGCX_P2P_PATH", "shared"));
    let memory = if is_forced { Memory::Allocated } else { Memory::of_run() };
    let buffer = Buffer::of(memory, &engine, length());
    match settings.iter().any(|(name, _)| *name == ECHO) {
        true => Echo::keep(&engine),
        false => engine.start_rpc_server().unwrap(),
    }
    #[allow(clippy::print_stdout, reason = "the parent process reads it")]
    {
        println!("\nanswer: {} {}", engine.rpc_port().unwrap(), buffer.address());
    }
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    engine.close();
    drop(buffer);
}
