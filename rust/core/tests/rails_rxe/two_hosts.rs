//! Rails between two hosts, which have two links: the second one goes down at one end, so at the other end nothing says that it is down.
//!
//! Runs in two virtual machines of `tests/rdma-vm`, `suite_two_nodes.sh`: the first one keeps a buffer, the second one transfers and checks.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::RegisteredBuffer;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::middle::{in_the_middle, ms};
use crate::support::{blocks, content, eventually, outcome};
use crate::{MOVED, OPCODES, TRANSFERS, USED_AGAIN, engine_of};

const DEVICES: &str = "=rxe0,rxe1";
const LENGTH: usize = 4 << 20;
/// Where the first host takes orders.
const PORT: u16 = 7735;

#[test]
fn transfers_between_hosts_outlive_a_link_of_two() {
    let variable = |name| std::env::var(name).unwrap_or_default();
    match (variable("RDMA_VM_NODE").as_str(), variable("RDMA_VM_PEER").as_str()) {
        ("1", _) => keep_a_buffer("10.78.0.1"),
        ("2", peer) => transfer("10.78.0.2", peer),
        _ => println!(
            "not run: RDMA_VM_NODE is not set; tests/rdma-vm/suite_two_nodes.sh sets it in two virtual machines"
        ),
    }
}

/// Fills and compares as the other host says, until it has ended.
fn keep_a_buffer(address: &str) {
    let engine = engine_of(DEVICES, address);
    let buffer = engine.allocate(LENGTH).unwrap();
    let listener = TcpListener::bind((address, PORT)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut answers = stream.try_clone().unwrap();
    writeln!(answers, "{} {}", engine.rpc_port().unwrap(), buffer.address()).unwrap();
    let there = engine.accept().unwrap().connection;
    for order in BufReader::new(stream).lines() {
        let order = order.unwrap();
        let (verb, seed) = order.split_once(' ').unwrap();
        let bytes = blocks(seed.parse().unwrap(), LENGTH);
        let answer = match verb {
            "fill" => buffer.write(0, &bytes),
            _ => content(&buffer) == bytes,
        };
        writeln!(answers, "{answer}").unwrap();
    }
    println!("{:#?}", there.rails());
}

struct Host {
    here: Arc<Connection>,
    near: RegisteredBuffer,
    far: u64,
    orders: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Host {
    fn connect(address: &str, peer: &str) -> Self {
        let engine = engine_of(DEVICES, address);
        let near = engine.allocate(LENGTH).unwrap();
        let mut stream = None;
        eventually("the other host listens", || {
            stream = TcpStream::connect((peer, PORT)).ok();
            stream.is_some()
        });
        let orders = stream.unwrap();
        let mut answers = BufReader::new(orders.try_clone().unwrap());
        let mut first = String::new();
        answers.read_line(&mut first).unwrap();
        let (port, far) = first.trim().split_once(' ').unwrap();
        let here = engine.connect(peer, port.parse().unwrap(), 0, false).unwrap();
        Self { here, near, far: far.parse().unwrap(), orders, answers }
    }

    fn order(&mut self, verb: &str, seed: u64) {
        writeln!(self.orders, "{verb} {seed}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "true", "{verb} {seed} on the other host");
    }

    fn iov(&self) -> Iov {
        let remote = self.here.describe_remote(self.far, LENGTH as u32).unwrap();
        let region = Some(self.near.region());
        Iov { local: self.near.address(), length: LENGTH as u64, region, remote }
    }

    /// Where the bytes of `opcode` come from gets those of `seed`, the other end others.
    fn fill(&mut self, opcode: Opcode, seed: u64) {
        let (near, far) = if opcode == Opcode::Write { (seed, seed + 1) } else { (seed + 1, seed) };
        assert!(self.near.write(0, &blocks(near, LENGTH)));
        self.order("fill", far);
    }

    fn compare(&mut self, seed: u64) {
        assert!(content(&self.near) == blocks(seed, LENGTH), "other bytes here");
        self.order("compare", seed);
    }

    /// As many transfers as ask for a second rail; how long they take.
    fn transfer(&self, opcode: Opcode) -> Duration {
        let begin = Instant::now();
        let ids: Vec<_> =
            (0..TRANSFERS).map(|_| self.here.submit(opcode, &[self.iov()][..]).unwrap()).collect();
        for id in ids {
            assert_eq!(outcome(&self.here, id), Outcome::Done, "{:#?}", self.here.rails());
        }
        begin.elapsed()
    }

    fn up(&self) -> usize {
        self.here.rails().iter().filter(|rail| rail.status == RailStatus::Up).count()
    }
}

fn transfer(address: &str, peer: &str) {
    let mut host = Host::connect(address, peer);
    eventually("the peer's regions are announced", || {
        host.here.describe_remote(host.far, LENGTH as u32).is_some()
    });
    eventually("two rails are up", || {
        host.transfer(Opcode::Write);
        host.up() == 2
    });
    println!(
        "| one link of two hosts down | detected | first parts moved | all done | without a fault | used again |"
    );
    for (number, opcode) in OPCODES.into_iter().enumerate() {
        let seed = 10 * number as u64;
        host.fill(opcode, seed);
        let whole = host.transfer(opcode);
        let before = host.here.rails()[1].clone();
        let iov = || host.iov();
        let seen = in_the_middle(&host.here, &iov, opcode, &before, || set_link(&before.nic, "down"));
        assert!(seen.done < MOVED, "{opcode:?}: it took {:?}: {:#?}", seen.done, host.here.rails());
        let parts = host.here.rails()[1].moved_parts - before.moved_parts;
        assert!(parts > 0, "{opcode:?}: no part moved: {:#?}", host.here.rails());
        host.compare(seed);
        let again = used_again(&mut host, &before.nic, seed + 2);
        println!(
            "| {opcode:?}, {parts} parts moved | {} | {} | {} | {} | {} |",
            ms(seen.detected),
            ms(seen.moved),
            ms(Some(seen.done)),
            ms(Some(whole)),
            ms(Some(again))
        );
    }
}

/// The link is back: nothing that was sent before arrives now, and its rail is used again, after this time.
fn used_again(host: &mut Host, nic: &str, seed: u64) -> Duration {
    host.fill(Opcode::Write, seed);
    let back = Instant::now();
    set_link(nic, "up");
    std::thread::sleep(Duration::from_millis(100));
    host.order("compare", seed + 1);
    let written = host.here.rails()[1].written_bytes;
    while host.up() < 2 || host.here.rails()[1].written_bytes == written {
        host.transfer(Opcode::Write);
        assert!(back.elapsed() < USED_AGAIN, "not used again: {:#?}", host.here.rails());
    }
    let taken = back.elapsed();
    host.compare(seed);
    taken
}

/// The interface below a device of this host.
fn set_link(nic: &str, state: &str) {
    let device = nic.split(':').next().unwrap();
    let parent = std::fs::read_to_string(format!("/sys/class/infiniband/{device}/parent")).unwrap();
    let status = Command::new("ip").args(["link", "set", parent.trim(), state]).status();
    assert!(status.is_ok_and(|status| status.success()), "ip link set {} {state}", parent.trim());
}
