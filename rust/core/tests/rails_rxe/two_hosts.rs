//! Rails between two hosts, which have two links: one goes down at one end, so at the other end nothing says that it is down. First the second
//! one, over which nothing but its rail goes; then, with `FLAGCX_P2P_CONTROL_REDIAL`, the one of the control channel.
//!
//! Runs in two virtual machines of `tests/rdma-vm`, `suite_two_nodes.sh`: the first one keeps a buffer, the second one transfers and checks.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Iov, Outcome};

use crate::middle::{in_the_middle, ms};
use crate::support::{blocks, content, eventually, outcome};
use crate::{MOVED, TRANSFERS, USED_AGAIN, engine_of};

const DEVICES: &str = "=rxe0,rxe1";
const LENGTH: usize = 4 << 20;
/// How often a fault is made at most, until it meets parts.
const TRIES: usize = 4;
/// Where the first host takes orders.
const PORT: u16 = 7735;
/// The links: rail `n` goes over the `n`th, and so may orders.
const LINKS: [usize; 2] = [0, 1];

/// A link that goes down at one end, in the middle of transfers.
#[derive(Clone, Copy, Debug)]
struct Fault {
    end: End,
    link: usize,
    opcode: Opcode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The one that transfers.
    Near,
    Far,
}

/// With the channel over the first link.
const BESIDE_THE_CHANNEL: [Fault; 4] = [
    Fault { end: End::Near, link: 1, opcode: Opcode::Write },
    Fault { end: End::Near, link: 1, opcode: Opcode::Read },
    Fault { end: End::Far, link: 1, opcode: Opcode::Write },
    Fault { end: End::Far, link: 1, opcode: Opcode::Read },
];

/// The channel begins on the first link, and is on the other one after each fault.
const WITH_THE_CHANNEL: [Fault; 2] = [
    Fault { end: End::Near, link: 0, opcode: Opcode::Write },
    Fault { end: End::Far, link: 1, opcode: Opcode::Read },
];

#[test]
fn transfers_between_hosts_outlive_a_link_of_two() {
    let node = std::env::var("RDMA_VM_NODE").unwrap_or_default();
    let part: fn(bool) = match node.as_str() {
        "1" => keep_a_buffer,
        "2" => transfer,
        _ => {
            println!(
                "not run: RDMA_VM_NODE is not set; tests/rdma-vm/suite_two_nodes.sh sets it in two virtual machines"
            );
            return;
        }
    };
    part(false);
    part(true);
}

/// The address of a host on a link.
fn address(link: usize, host: u8) -> String {
    format!("10.{}.0.{host}", 78 + link)
}

/// Of a host that dials again it is not said where it listens: it does so on both links.
fn engine(host: u8, dials_again: bool) -> Arc<Engine> {
    let own = address(0, host);
    match dials_again {
        true => engine_of(
            DEVICES,
            &[
                ("FLAGCX_P2P_CONTROL_REDIAL", "60000"),
                ("FLAGCX_P2P_ADVERTISE", &own),
                // Where it is too short for a busy machine the channel is made anew, and that is all.
                ("FLAGCX_P2P_KEEPALIVE_MS", "10000"),
            ],
        ),
        false => engine_of(DEVICES, &[("FLAGCX_P2P_BIND", &own)]),
    }
}

/// Fills, compares and sets links as the other host says, over both links, until it has ended.
fn keep_a_buffer(dials_again: bool) {
    let engine = engine(1, dials_again);
    let buffer = engine.allocate(LENGTH).unwrap();
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    let orders = LINKS.map(|_| listener.accept().unwrap().0);
    drop(listener);
    for mut stream in &orders {
        writeln!(stream, "{} {}", engine.rpc_port().unwrap(), buffer.address()).unwrap();
    }
    let there = engine.accept().unwrap().connection;
    std::thread::scope(|scope| {
        for stream in &orders {
            scope.spawn(|| obey(stream, &buffer));
        }
    });
    println!("{:#?}", there.rails());
}

fn obey(mut stream: &TcpStream, buffer: &RegisteredBuffer) {
    for order in BufReader::new(stream).lines() {
        let order = order.unwrap();
        let (verb, number) = order.split_once(' ').unwrap();
        let number = number.parse().unwrap();
        let answer = match verb {
            "fill" => buffer.write(0, &blocks(number, LENGTH)),
            "compare" => content(buffer) == blocks(number, LENGTH),
            state => set_link(&format!("rxe{number}"), state),
        };
        writeln!(stream, "{answer}").unwrap();
    }
}

struct Host {
    here: Arc<Connection>,
    near: RegisteredBuffer,
    far: u64,
    /// Over each link.
    orders: [BufReader<TcpStream>; 2],
    /// The one that orders take: the other one may be down.
    order_link: usize,
}

impl Host {
    fn connect(dials_again: bool) -> Self {
        let engine = engine(2, dials_again);
        let near = engine.allocate(LENGTH).unwrap();
        let mut orders = LINKS.map(|link| {
            let mut stream = None;
            eventually("the other host listens", || {
                stream = TcpStream::connect((address(link, 1), PORT)).ok();
                stream.is_some()
            });
            BufReader::new(stream.unwrap())
        });
        let mut first = String::new();
        for orders in &mut orders {
            first.clear();
            orders.read_line(&mut first).unwrap();
        }
        let (port, far) = first.trim().split_once(' ').unwrap();
        let here = engine.connect(&address(0, 1), port.parse().unwrap(), 0, false).unwrap();
        Self { here, near, far: far.parse().unwrap(), orders, order_link: 0 }
    }

    fn order(&mut self, verb: &str, number: u64) {
        let orders = &mut self.orders[self.order_link];
        writeln!(orders.get_mut(), "{verb} {number}").unwrap();
        let mut answer = String::new();
        orders.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim(), "true", "{verb} {number} on the other host");
    }

    fn set_link(&mut self, fault: Fault, state: &str) {
        match fault.end {
            End::Near => assert!(set_link(&format!("rxe{}", fault.link), state)),
            End::Far => self.order(state, fault.link as u64),
        }
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

    /// Meets a fault, and prints what was seen of it. One that met nothing under way on its rail is made again.
    fn meet(&mut self, fault: Fault, seed: u64, loses_channel: bool) {
        let is_met = (0..TRIES).any(|_| self.meets_parts(fault, seed, loses_channel));
        assert!(
            is_met,
            "{fault:?}: nothing was under way on its rail {TRIES} times: {:#?}",
            self.here.rails()
        );
    }

    /// Whether the fault met parts, which moved then.
    fn meets_parts(&mut self, fault: Fault, seed: u64, loses_channel: bool) -> bool {
        let Fault { link, opcode, .. } = fault;
        self.order_link = 1 - link;
        self.fill(opcode, seed);
        let whole = self.transfer(opcode);
        let before = self.here.rails()[link].clone();
        let here = Arc::clone(&self.here);
        let iov = self.iov();
        let fail = || self.set_link(fault, "down");
        let seen = in_the_middle(&here, &|| iov, opcode, &before, loses_channel, fail);
        assert!(seen.done < MOVED, "{fault:?}: {seen:?}: {:#?}", here.rails());
        assert!(seen.anew.is_some() == loses_channel, "{fault:?}: {seen:?}");
        let parts = here.rails()[link].moved_parts - before.moved_parts;
        self.compare(seed);
        let again = self.used_again(fault, seed + 2);
        println!(
            "| {:?}, rail {link}, {opcode:?} | {} | {} | {} | {} | {} | {parts} | {} |",
            fault.end,
            ms(seen.detected),
            ms(seen.moved),
            ms(seen.anew),
            ms(Some(seen.done)),
            ms(Some(whole)),
            ms(Some(again))
        );
        parts > 0
    }

    /// The link is back: nothing that was sent before arrives now, and its rail is used again, after this time.
    fn used_again(&mut self, fault: Fault, seed: u64) -> Duration {
        self.fill(Opcode::Write, seed);
        let back = Instant::now();
        self.set_link(fault, "up");
        std::thread::sleep(Duration::from_millis(100));
        self.order("compare", seed + 1);
        let written = self.here.rails()[fault.link].written_bytes;
        while self.up() < 2 || self.here.rails()[fault.link].written_bytes == written {
            self.transfer(Opcode::Write);
            assert!(back.elapsed() < USED_AGAIN, "{fault:?}: not used again: {:#?}", self.here.rails());
        }
        let taken = back.elapsed();
        self.compare(seed);
        taken
    }
}

fn transfer(dials_again: bool) {
    let mut host = Host::connect(dials_again);
    eventually("the peer's regions are announced", || {
        host.here.describe_remote(host.far, LENGTH as u32).is_some()
    });
    eventually("two rails are up", || {
        host.transfer(Opcode::Write);
        host.up() == 2
    });
    if dials_again {
        eventually("this end knows where to dial", || host.here.channel_record().is_resumable());
    }
    println!(
        "| down at | detected | first parts moved | channel made anew | all done | without a fault | parts moved | used again |"
    );
    let faults: &[_] = if dials_again { &WITH_THE_CHANNEL } else { &BESIDE_THE_CHANNEL };
    for (number, fault) in faults.iter().enumerate() {
        host.meet(*fault, 10 * number as u64, dials_again);
    }
    assert!(host.here.is_usable());
}

/// Sets the flag "up" of the interface below a device of this host, as `ip link set` does: a command would take longer to start there
/// than a transfer. Whether that worked.
fn set_link(device: &str, state: &str) -> bool {
    const UP: u32 = 1;
    let parent = std::fs::read_to_string(format!("/sys/class/infiniband/{device}/parent")).unwrap();
    let file = format!("/sys/class/net/{}/flags", parent.trim());
    let flags = std::fs::read_to_string(&file).unwrap();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
    let flags = if state == "up" { flags | UP } else { flags & !UP };
    std::fs::write(&file, format!("{flags:#x}")).is_ok()
}
