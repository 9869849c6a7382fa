//! Rails over the kernel's soft-RoCE: two links, with a device at either end of each. One goes down in the middle of a transfer, or loses
//! every packet; its parts move, and it is used again when it is back.
//!
//! Runs where `FLAGCX_P2P_TEST_RXE=1`, as in the guest of `tests/rdma-vm`; it makes devices and links of its own there. Both ends of a
//! link are in one network namespace: rules of routing, not the local table, send its packets over it.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, Opcode};
use flagcx_p2p::internals::observe::RailStatus;
use flagcx_p2p::internals::transfer::{Outcome, Status, TransferId};
use support::{Pair, blocks, content, eventually, outcome};

/// Registering memory is slow there.
const LENGTH: usize = 12 << 20;
const GUARD: u8 = 0xa5;
/// The guest is emulated, and READs there are slow where packets are lost: a packet is sent again after a second.
const MOVED: Duration = Duration::from_secs(40);
const USED_AGAIN: Duration = Duration::from_secs(20);

/// Makes both links: `a1` to `b1`, `a2` to `b2`, with a device on each end. They go when this is dropped.
struct Links;

impl Links {
    fn make() -> Self {
        let links = Self;
        shell("modprobe veth");
        for link in ["1", "2"] {
            shell(&format!("{LINK}{ROUTES}").replace('N', link));
        }
        shell("ip rule add pref 200 lookup local; ip rule del pref 0");
        for link in ["1", "2"] {
            shell(&format!(
                "rdma link add rxa{link} type rxe netdev a{link}; rdma link add rxb{link} type rxe netdev b{link}"
            ));
        }
        links
    }
}

/// A link: addresses, neighbours, and routes for what this host sends from one end to the other.
const LINK: &str = "
    ip link add aN mtu 4200 type veth peer name bN mtu 4200
    ip address add 10.8N.0.1/24 dev aN && ip address add 10.8N.0.2/24 dev bN
    ip link set aN up && ip link set bN up
    for end in aN bN; do
      echo 1 >/proc/sys/net/ipv4/conf/$end/accept_local && echo 0 >/proc/sys/net/ipv4/conf/$end/rp_filter
    done
    echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
    ip rule add pref 10N iif lo from 10.8N.0.1 to 10.8N.0.2 lookup 10N
    ip rule add pref 11N iif lo from 10.8N.0.2 to 10.8N.0.1 lookup 11N";

/// Routes go with their link, and have to be made again.
const ROUTES: &str = "
    ip route replace 10.8N.0.2 dev aN table 10N
    ip route replace 10.8N.0.1 dev bN table 11N
    ip neigh replace 10.8N.0.2 lladdr $(cat /sys/class/net/bN/address) dev aN nud permanent
    ip neigh replace 10.8N.0.1 lladdr $(cat /sys/class/net/aN/address) dev bN nud permanent";

impl Drop for Links {
    fn drop(&mut self) {
        shell(
            "ip rule add pref 0 lookup local; ip rule del pref 200
             for n in 1 2; do
               rdma link delete rxa$n; rdma link delete rxb$n; ip link del a$n; ip rule del pref 10$n; ip rule del pref 11$n
             done; true",
        );
    }
}

fn shell(script: &str) {
    let output = Command::new("bash").args(["-ec", script]).output().expect("bash runs");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An engine that has the two devices of one end.
fn engine(end: &str) -> Arc<Engine> {
    let hca = format!("=rx{end}1,rx{end}2");
    let settings = [
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_IB_HCA", hca.as_str()),
        // Soft-RoCE takes the default, 7, for ever.
        ("FLAGCX_IB_RETRY_CNT", "6"),
        ("FLAGCX_P2P_BIND", "127.0.0.1"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000"),
        ("FLAGCX_P2P_QPS_PER_CONN", "2"),
    ];
    let config = support::config(&settings);
    let devices = Some(Arc::new(DeviceList::open(&config.fabric_options().unwrap()).unwrap()));
    Engine::open(config, EngineOptions { gpu_index: 0, devices }).unwrap()
}

struct Bench {
    pair: Pair,
    _links: Links,
}

impl Bench {
    fn start(&self, opcode: Opcode, seed: u64) -> (TransferId, Vec<u8>) {
        let bytes = blocks(seed, LENGTH);
        let (from, to) = self.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; LENGTH]));
        (self.pair.here.submit(opcode, &[self.pair.iov(0, 0, LENGTH as u64)][..]).unwrap(), bytes)
    }

    fn ends(&self, opcode: Opcode) -> (&RegisteredBuffer, &RegisteredBuffer) {
        match opcode {
            Opcode::Write => (&self.pair.source, &self.pair.target),
            Opcode::Read => (&self.pair.target, &self.pair.source),
        }
    }

    fn up(&self) -> usize {
        self.pair.here.rails().iter().filter(|rail| rail.status == RailStatus::Up).count()
    }

    fn carried(&self) -> Vec<u64> {
        self.pair.here.rails().iter().map(|rail| rail.written_bytes + rail.read_bytes).collect()
    }

    fn finish(&self, opcode: Opcode, (id, bytes): &(TransferId, Vec<u8>), what: &str) {
        let mut status = self.pair.here.wait(*id, Duration::from_secs(60));
        if status == Status::Pending {
            status = Status::Ended(outcome(&self.pair.here, *id));
        }
        assert_eq!(status, Status::Ended(Outcome::Done), "{what}: {:#?}", self.pair.here.rails());
        assert!(content(self.ends(opcode).1) == *bytes, "{what}: done, and other bytes are there");
    }
}

/// What becomes of a link. By files: to start a program takes longer there than a transfer.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// As `ip link set down`.
    Down,
    /// Either end drops what it receives.
    EveryPacketLost,
}

const FAULTS: [Fault; 2] = [Fault::Down, Fault::EveryPacketLost];

impl Fault {
    fn set(self, link: &str, broken: bool) {
        let write = |file: String, text: &str| {
            std::fs::write(&file, text).unwrap_or_else(|error| panic!("{file}: {error}"))
        };
        match self {
            Self::Down => {
                let file = format!("/sys/class/net/a{link}/flags");
                let flags = std::fs::read_to_string(&file).unwrap();
                let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap();
                write(file, &format!("{:#x}", if broken { flags & !1 } else { flags | 1 }));
            }
            Self::EveryPacketLost => {
                for end in ["a", "b"] {
                    let accepted = if broken { "0" } else { "1" };
                    write(format!("/proc/sys/net/ipv4/conf/{end}{link}/accept_local"), accepted);
                }
            }
        }
    }
}

#[test]
fn a_transfer_outlives_a_link_of_two() {
    if std::env::var_os("FLAGCX_P2P_TEST_RXE").is_none() {
        println!("not run: FLAGCX_P2P_TEST_RXE is not set; tests/rdma-vm/run.sh sets it in its guest");
        return;
    }
    let links = Links::make();
    let bench = Bench { pair: Pair::between(engine("a"), engine("b"), LENGTH), _links: links };
    let begin = Instant::now();
    eventually("two rails are up", || {
        let started = bench.start(Opcode::Write, 1);
        bench.finish(Opcode::Write, &started, "making rails");
        bench.up() == 2
    });
    println!("two rails up after {:?}", begin.elapsed());
    for fault in FAULTS {
        for opcode in [Opcode::Write, Opcode::Read] {
            one_fault(&bench, fault, opcode);
        }
    }
}

/// Several transfers, so that the fault meets some in the middle.
const TRANSFERS: usize = 4;

fn one_fault(bench: &Bench, fault: Fault, opcode: Opcode) {
    let rail = bench.pair.here.rails()[1].clone();
    let link = if rail.nic.starts_with("rxa1") { "1" } else { "2" };
    let whole = Instant::now();
    let started = bench.start(opcode, 6);
    bench.finish(opcode, &started, "without a fault");
    let whole = whole.elapsed();
    let (first, bytes) = bench.start(opcode, 7);
    let mut ids = vec![first];
    while ids.len() < TRANSFERS || bench.pair.here.rails()[1].in_flight_bytes == 0 {
        assert!(ids.len() < 50, "rail 1 gets nothing: {:#?}", bench.pair.here.rails());
        ids.push(bench.pair.here.submit(opcode, &[bench.pair.iov(0, 0, LENGTH as u64)][..]).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let begin = Instant::now();
    fault.set(link, true);
    let (mut detected, mut elsewhere, mut then) = (None, None, 0);
    let is_pending = || ids.iter().any(|id| bench.pair.here.status(*id) == Status::Pending);
    while is_pending() && begin.elapsed() < MOVED {
        let rails = bench.pair.here.rails();
        let by_other = rails[0].written_bytes + rails[0].read_bytes;
        if detected.is_none() && rails[1].status != RailStatus::Up {
            (detected, then) = (Some(begin.elapsed()), by_other);
        }
        if detected.is_some()
            && elsewhere.is_none()
            && rails[1].moved_parts > rail.moved_parts
            && by_other > then
        {
            elsewhere = Some(begin.elapsed());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    for id in &ids {
        let ended = bench.pair.here.wait(*id, Duration::from_secs(60));
        assert_eq!(ended, Status::Ended(Outcome::Done), "{fault:?}: {:#?}", bench.pair.here.rails());
    }
    let taken = begin.elapsed();
    let to = bench.ends(opcode).1;
    assert!(content(to) == bytes, "{fault:?} {opcode:?}: done, and other bytes are there");
    let rails = bench.pair.here.rails();
    let moved = rails[1].moved_parts - rail.moved_parts;
    println!(
        "{fault:?} ({}), {opcode:?}: detected after {detected:?}, first part elsewhere after {elsewhere:?}, all of {} done after {taken:?} (one without a fault: {whole:?}); {moved} parts moved, {:?}",
        rail.nic,
        ids.len(),
        rails[1].last_pause.map(|pause| pause.reason),
    );
    assert!(taken < MOVED, "{fault:?}: it took {taken:?}: {rails:#?}");
    assert!(moved > 0, "{fault:?} {opcode:?}: no part moved: {rails:#?}");
    assert!(to.write(0, &vec![GUARD; LENGTH]));
    let back = Instant::now();
    fault.set(link, false);
    shell(&ROUTES.replace('N', link));
    std::thread::sleep(Duration::from_millis(100));
    assert!(content(to) == vec![GUARD; LENGTH], "{fault:?}: written after the end of the transfers");
    let carried = bench.carried()[1];
    while bench.up() < 2 || bench.carried()[1] == carried {
        let started = bench.start(Opcode::Write, 9);
        bench.finish(Opcode::Write, &started, "back");
        assert!(back.elapsed() < USED_AGAIN, "{fault:?}: not used again: {:#?}", bench.pair.here.rails());
    }
    println!("{fault:?}: used again {:?} after it came back", back.elapsed());
}
