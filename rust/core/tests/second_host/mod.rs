//! A second host: a process with network and processes of its own behind a veth pair, controlled by lines of text.
#![allow(dead_code, unreachable_pub, reason = "a module of one test")]

use std::io::{Read, Write, stdin};
use std::net::{IpAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::interfaces;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Iov;

use crate::chaos::arena::Far;
use crate::odd_host::other_process::OtherProcess;
use crate::odd_host::{ip, show_own_sysfs, wait_until_up};
use crate::support::{self, blocks, eventually, outcome};

const SETTINGS: &str = "FLAGCX_P2P_TEST_SECOND_HOST";

/// The other host, from here.
pub struct Host {
    process: OtherProcess,
    is_out_of_sight: bool,
    settings: Vec<String>,
    /// Where its engine listens, and its buffer.
    pub ip: String,
    pub port: u16,
    pub address: u64,
    pub length: usize,
}

impl Host {
    /// Behind a veth pair, of which the ends are called eth0 at both hosts. `setup` is for `ip`, there.
    pub fn behind_a_link(setup: &str) -> Self {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(std::env::current_exe().unwrap());
        let mut host = Self::start(command, true);
        let pid = host.process.pid();
        ip(&format!("link add eth0 type veth peer name eth0 netns {pid}"));
        host.ip(setup);
        host
    }

    /// Another link, which is called `name` at both hosts.
    pub fn add_link(&self, name: &str) {
        let pid = self.process.pid();
        ip(&format!("link add {name} type veth peer name {name} netns {pid}"));
    }

    /// A process of this host, for comparison.
    pub fn here() -> Self {
        Self::start(Command::new(std::env::current_exe().unwrap()), false)
    }

    fn start(mut command: Command, is_out_of_sight: bool) -> Self {
        let process = OtherProcess::start(command.env(SETTINGS, ""), "process_of_the_second_host");
        let (settings, ip) = (Vec::new(), String::new());
        let mut host = Self { process, is_out_of_sight, settings, ip, port: 0, address: 0, length: 0 };
        assert_eq!(host.process.answer(), ["here"], "its namespaces are made");
        host
    }

    /// Opens an engine that listens at `ip`, which may be that of every address, with a buffer of `length` bytes.
    pub fn open(&mut self, ip: &str, length: usize, settings: &[(&str, &str)]) {
        let settings: Vec<_> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = self.process.ask_numbers(&format!("open {ip} {length} {}", settings.join(" ")));
        (self.ip, self.length) = (ip.to_owned(), length);
        (self.port, self.address) = (answer[0] as u16, answer[1]);
    }

    /// Runs `ip` there.
    pub fn ip(&mut self, commands: &str) {
        self.process.ask(&format!("ip {commands}"));
    }

    /// It waits until one of its interfaces is up.
    pub fn wait_until_up(&mut self, name: &str) {
        self.process.ask(&format!("up {name}"));
    }

    /// Each of its NICs answers for its own address alone, as on hosts with several in one network.
    pub fn keep_addresses_apart(&mut self) {
        self.process.ask("apart");
    }

    /// Runs `tc` there; `Err` with its reason.
    pub fn tc(&mut self, arguments: &str) -> Result<(), String> {
        let answer = self.process.ask(&format!("tc {arguments}")).join(" ");
        if answer == "done" { Ok(()) } else { Err(answer) }
    }

    /// It moves `length` bytes between its buffer and that address here; the outcome.
    pub fn transfer(&mut self, opcode: Opcode, address: u64, length: usize) -> String {
        let name = if opcode == Opcode::Write { "write" } else { "read" };
        self.process.ask(&format!("{name} {address} {length}")).join(" ")
    }

    /// It sends a notification with such content.
    pub fn notify(&mut self, seed: u64, length: usize) {
        self.process.ask(&format!("notify {seed} {length}"));
    }

    /// It waits for a notification, which must have such content.
    pub fn expect_notification(&mut self, seed: u64, length: usize) {
        self.process.ask(&format!("expect {seed} {length}"));
    }

    /// How many of the connections that it has accepted are usable.
    pub fn usable(&mut self) -> u64 {
        self.process.ask_numbers("usable")[0]
    }

    /// A port there at which a thread takes all bytes of one connection and answers with one.
    pub fn sink(&mut self) -> u16 {
        self.process.ask_numbers("sink")[0] as u16
    }

    /// The first `length` bytes of its buffer, looked at past the network.
    pub fn memory(&self, length: usize) -> Far {
        assert!(length <= self.length);
        let started = self.process.pid();
        let children = std::fs::read_to_string(format!("/proc/{started}/task/{started}/children")).unwrap();
        let inner = children.split_whitespace().next().filter(|_| self.is_out_of_sight);
        let pid = inner.map_or(started as i32, |pid| pid.parse().unwrap());
        Far::There { pid, address: self.address, length }
    }
}

/// Runs `tc`; `Err` with its reason.
pub fn tc(arguments: &str) -> Result<(), String> {
    let done = Command::new("tc").args(arguments.split_whitespace()).output();
    let done = done.map_err(|error| format!("tc: {error}"))?;
    let reason = String::from_utf8_lossy(&done.stderr).replace('\n', " ");
    if done.status.success() { Ok(()) } else { Err(format!("tc {arguments}: {}", reason.trim())) }
}

/// Each NIC of this host answers for its own address alone, as on hosts with several in one network.
pub fn keep_addresses_apart() {
    for (name, value) in [("arp_ignore", "1"), ("arp_announce", "2"), ("rp_filter", "0")] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/all/{name}"), value).unwrap();
    }
}

struct Opened {
    engine: Arc<Engine>,
    buffer: RegisteredBuffer,
    accepted: Arc<Mutex<Vec<Arc<Connection>>>>,
}

impl Opened {
    fn new(ip: &str, length: usize, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("FLAGCX_P2P_BIND", ip)], settings].concat();
        let engine = support::engine(&settings);
        let buffer = engine.allocate(length).unwrap();
        let accepted = Arc::new(Mutex::new(Vec::new()));
        let (acceptor, into) = (Arc::clone(&engine), Arc::clone(&accepted));
        thread::spawn(move || {
            loop {
                match acceptor.accept() {
                    Ok(peer) => into.lock().unwrap().push(peer.connection),
                    // A client that has gone is none of this test's; the engine may have closed.
                    Err(_) if acceptor.metadata().is_err() => return,
                    Err(_) => {}
                }
            }
        });
        Self { engine, buffer, accepted }
    }

    fn connection(&self) -> Arc<Connection> {
        let latest = || self.accepted.lock().unwrap().last().cloned();
        eventually("it has accepted", || latest().is_some());
        latest().unwrap()
    }

    fn transfer(&self, opcode: Opcode, address: u64, length: u64) -> String {
        let connection = self.connection();
        let remote = connection.describe_remote(address, length as u32).unwrap();
        let (local, region) = (self.buffer.address(), Some(self.buffer.region()));
        let id = connection.submit(opcode, &[Iov { local, length, region, remote }][..]).unwrap();
        format!("{:?}", outcome(&connection, id))
    }
}

/// What the process of the second host runs, if this is it.
pub fn play() {
    if std::env::var_os(SETTINGS).is_none() {
        return;
    }
    show_own_sysfs();
    answer("here");
    let mut opened: Option<Opened> = None;
    for line in stdin().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match (words[0], &opened) {
            ("ip", _) => {
                ip(&line[3..]);
                answer("done");
            }
            ("up", _) => {
                wait_until_up(words[1]);
                answer("done");
            }
            ("apart", _) => {
                keep_addresses_apart();
                answer("done");
            }
            ("tc", _) => answer(&tc(&line[3..]).err().unwrap_or_else(|| "done".to_owned())),
            ("open", _) => {
                let own: IpAddr = words[1].parse().unwrap();
                if !own.is_unspecified() {
                    let interface = interfaces().into_iter().find(|one| one.network.addr() == own);
                    wait_until_up(&interface.unwrap().name);
                }
                let settings: Vec<_> = words[3..].iter().filter_map(|one| one.split_once('=')).collect();
                let new = Opened::new(words[1], number(2) as usize, &settings);
                answer(&format!("{} {}", new.engine.rpc_port().unwrap(), new.buffer.address()));
                opened = Some(new);
            }
            ("write", Some(opened)) => answer(&opened.transfer(Opcode::Write, number(1), number(2))),
            ("read", Some(opened)) => answer(&opened.transfer(Opcode::Read, number(1), number(2))),
            ("notify", Some(opened)) => {
                let content = blocks(number(1), number(2) as usize);
                opened.connection().send_notification_bytes(b"second host", &content).unwrap();
                answer("done");
            }
            ("expect", Some(opened)) => {
                expect_notification(&opened.engine, number(1), number(2) as usize);
                answer("done");
            }
            ("usable", Some(opened)) => {
                let accepted = opened.accepted.lock().unwrap();
                answer(&accepted.iter().filter(|connection| connection.is_usable()).count().to_string());
            }
            ("sink", _) => answer(&sink().to_string()),
            _ => panic!("{line}"),
        }
    }
}

/// Waits for one notification, which must have such content.
pub fn expect_notification(engine: &Engine, seed: u64, length: usize) {
    let mut arrived = Vec::new();
    eventually("a notification arrives", || {
        arrived.extend(engine.take_all_notifications());
        !arrived.is_empty()
    });
    assert_eq!(arrived.len(), 1);
    assert!(arrived[0].content() == blocks(seed, length), "a notification of {length} bytes has others");
}

fn sink() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 20];
        while client.read(&mut buffer).unwrap() > 0 {}
        client.write_all(&[1]).unwrap();
    });
    port
}

fn answer(answer: &str) {
    println!("\nanswer: {answer}");
}
