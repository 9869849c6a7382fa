//! The engine under attack, in a process of its own.
#![allow(dead_code, unreachable_pub, reason = "each attack uses its share")]

#[path = "../other_process/mod.rs"]
mod other_process;

use std::process::Command;

use flagcx_p2p::internals::engine::RegisterOptions;
use flagcx_p2p::internals::memory::MemoryKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use other_process::OtherProcess;

use crate::support;

/// Bytes of its buffer, which is announced.
pub const LENGTH: usize = 1 << 20;
/// What is in memory that is not, and how much.
pub const HIDDEN: u8 = 0xdd;
pub const HIDDEN_LENGTH: usize = 4096;

/// With what the names of a peer's notifications begin.
pub const PEER: &[u8] = b"peer";

/// Set in the environment of the process that plays it: settings, one a line; `nofile=N` limits its descriptors.
const ROLE: &str = "FLAGCX_P2P_TEST_VICTIM";

pub struct Victim {
    process: OtherProcess,
    pub port: u16,
    pub notify_port: u16,
    pub address: u64,
}

impl Victim {
    /// An engine that serves peers; `settings` as for [`support::engine`].
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let lines: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let process = OtherProcess::start(command.env(ROLE, lines.join("\n")), "victim_process");
        let mut victim = Self { process, port: 0, notify_port: 0, address: 0 };
        let numbers = victim.process.numbers();
        (victim.port, victim.notify_port, victim.address) =
            (numbers[0] as u16, numbers[1] as u16, numbers[2]);
        victim
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// Whether no thread of it runs or would like to.
    pub fn is_asleep(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // One that ends meanwhile has none.
        let mut states =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        states.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
    }

    /// Its TCP listeners.
    pub fn tcp_ports(&self) -> Vec<u16> {
        let sockets = self.sockets();
        let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", self.pid())).unwrap();
        let listening = table.lines().skip(1).filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let is_listener = words.get(3) == Some(&"0A") && sockets.iter().any(|inode| inode == words[9]);
            is_listener.then(|| u16::from_str_radix(words[1].rsplit(':').next().unwrap(), 16).unwrap())
        });
        listening.collect()
    }

    /// The data listener of its device: its listener that is neither of the others.
    pub fn data_port(&self) -> u16 {
        let others = [self.port, self.notify_port];
        self.tcp_ports().into_iter().find(|port| !others.contains(port)).expect("a data listener")
    }

    /// The abstract name of its Unix socket.
    pub fn unix_name(&self) -> Vec<u8> {
        let sockets = self.sockets();
        let table = std::fs::read_to_string(format!("/proc/{}/net/unix", self.pid())).unwrap();
        let name = table.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let is_ours = sockets.iter().any(|inode| Some(&inode.as_str()) == words.get(6));
            words.get(7).filter(|_| is_ours)?.strip_prefix("@flagcx-p2p/")
        });
        format!("flagcx-p2p/{}", name.expect("a Unix socket")).into_bytes()
    }

    fn sockets(&self) -> Vec<String> {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let links = folder.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let inode = |link: std::path::PathBuf| {
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        };
        links.filter_map(inode).collect()
    }

    /// The byte at this place of its buffer.
    pub fn byte(&mut self, offset: usize) -> u8 {
        self.ask(&format!("byte {offset}"))[0] as u8
    }

    /// Makes it register memory that is not announced to peers, all bytes of it [`HIDDEN`]: its address and its key.
    pub fn hide(&mut self) -> (u64, u32) {
        let answer = self.ask("hide");
        (answer[0], answer[1] as u32)
    }

    /// Notifications that have arrived since it was asked last.
    pub fn notifications(&mut self) -> usize {
        self.ask("notifications")[0] as usize
    }

    /// The same of any size: how many with the name [`PEER`], and how many others.
    pub fn received(&mut self) -> (usize, usize) {
        let answer = self.ask("received");
        (answer[0] as usize, answer[1] as usize)
    }

    /// Whether its process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.child.try_wait().unwrap().is_none()
    }

    fn ask(&mut self, command: &str) -> Vec<u64> {
        self.process.ask_numbers(command)
    }
}

/// What the other process does, if this is it.
pub fn play() {
    let Ok(role) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let settings: Vec<_> = role.lines().filter_map(|line| line.split_once('=')).collect();
    if let Some((_, limit)) = settings.iter().find(|(name, _)| *name == "nofile") {
        let limit = limit.parse().ok();
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: hard }).unwrap();
    }
    let engine = support::engine(&settings);
    let buffer = engine.allocate(LENGTH).unwrap();
    engine.start_rpc_server().unwrap();
    let metadata = engine.metadata().unwrap();
    let notify_port = metadata.rsplit('?').next().unwrap();
    println!("\nanswer: {} {notify_port} {}", engine.rpc_port().unwrap(), buffer.address());
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["byte", offset] => {
                let mut byte = [0];
                assert!(buffer.read(offset.parse().unwrap(), &mut byte));
                println!("\nanswer: {}", byte[0]);
            }
            ["hide"] => {
                let hidden = Vec::leak(vec![HIDDEN; HIDDEN_LENGTH]);
                let options = RegisterOptions {
                    kind: MemoryKind::Host,
                    announced: false,
                    ..RegisterOptions::default()
                };
                let (address, length) = (hidden.as_ptr() as u64, HIDDEN_LENGTH as u64);
                // SAFETY: it is mapped for as long as the process runs, and nothing here looks at it.
                let region = unsafe { engine.register(address, length, options) }.unwrap();
                let rkey = engine.describe(region, address, length).unwrap().rkey;
                println!("\nanswer: {address} {rkey}");
            }
            ["notifications"] => println!("\nanswer: {}", engine.take_notifications().len()),
            ["received"] => {
                let all = engine.take_all_notifications();
                let of_peer = all.iter().filter(|message| message.name().starts_with(PEER)).count();
                println!("\nanswer: {of_peer} {}", all.len() - of_peer);
            }
            _ => panic!("unknown command {line}"),
        }
    }
}
