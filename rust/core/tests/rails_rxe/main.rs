//! Rails over the kernel's soft-RoCE: two links, with a device at either end of each. One goes down in the middle of transfers, or loses
//! every packet; their parts move, and it is used again when it is back.
//!
//! Runs where `FLAGCX_P2P_TEST_RXE=1`, as in the virtual machine of `tests/rdma-vm`; it makes devices and links of its own there.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod links;
mod middle;
#[path = "../support/mod.rs"]
mod support;
mod two_hosts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, Opcode};
use flagcx_p2p::internals::observe::{RailInfo, RailStatus};
use flagcx_p2p::internals::transfer::{Outcome, Status, TransferId};
use links::{Fault, Links};
use middle::{in_the_middle, ms};
use support::{Pair, blocks, content, eventually};

/// Registering memory is slow there.
const LENGTH: usize = 8 << 20;
/// Several transfers, so that the fault meets some in the middle.
const TRANSFERS: usize = 4;
const GUARD: u8 = 0xa5;
/// The virtual machine is emulated.
const MOVED: Duration = Duration::from_secs(20);
const USED_AGAIN: Duration = Duration::from_secs(20);

#[test]
fn transfers_outlive_a_link_of_two() {
    if std::env::var_os("FLAGCX_P2P_TEST_RXE").is_none() {
        println!(
            "not run: FLAGCX_P2P_TEST_RXE is not set; tests/rdma-vm/run.sh sets it in its virtual machine"
        );
        return;
    }
    let begin = Instant::now();
    let mut bench = Bench { links: Links::make(), pair: Pair::between(engine("a"), engine("b"), LENGTH) };
    println!("two links after {:?}", begin.elapsed());
    eventually("two rails are up", || {
        bench.all_done(&[bench.submit(Opcode::Write, LENGTH)], "making rails");
        bench.up() == 2
    });
    println!("two rails are up after {:?}", begin.elapsed());
    println!(
        "| fault | rail | | detected | first parts moved | all done | without a fault | parts moved | used again |"
    );
    for (fault, rail, opcode) in [
        (Fault::Down, 1, Opcode::Write),
        (Fault::Down, 1, Opcode::Read),
        (Fault::EveryPacketLost, 1, Opcode::Write),
        (Fault::EveryPacketLost, 1, Opcode::Read),
        (Fault::Down, 0, Opcode::Read),
        (Fault::EveryPacketLost, 0, Opcode::Write),
    ] {
        bench.meet(fault, rail, opcode);
    }
}

/// An engine that has the two devices of one end.
fn engine(end: &str) -> Arc<Engine> {
    engine_of(&format!("=rx{end}1,rx{end}2"), &[("FLAGCX_P2P_BIND", "127.0.0.1")])
}

/// `settings` come first, and win.
fn engine_of(devices: &str, settings: &[(&str, &str)]) -> Arc<Engine> {
    let common = [
        ("FLAGCX_P2P_FABRIC", "verbs"),
        ("FLAGCX_IB_HCA", devices),
        // Soft-RoCE takes the default, 7, for ever.
        ("FLAGCX_IB_RETRY_CNT", "6"),
        // The virtual machine moves tens of megabytes a second. The peer answers a READ with all of its packets at once, more than queues there hold.
        ("FLAGCX_P2P_SLICE_SIZE", "65536"),
        // Two virtual machines may be busy for seconds.
        ("FLAGCX_P2P_KEEPALIVE_MS", "60000"),
        ("FLAGCX_P2P_XFER_TIMEOUT_MS", "60000"),
        ("FLAGCX_P2P_QPS_PER_CONN", "2"),
    ];
    let config = support::config(&[settings, &common].concat());
    let devices = Some(Arc::new(DeviceList::open(&config.fabric_options().unwrap()).unwrap()));
    Engine::open(config, EngineOptions { gpu_index: 0, devices }).unwrap()
}

struct Bench {
    pair: Pair,
    links: Links,
}

impl Bench {
    /// Fills both ends, for transfers of the same bytes.
    fn fill(&self, opcode: Opcode, seed: u64) -> Vec<u8> {
        let bytes = blocks(seed, LENGTH);
        let (from, to) = self.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; LENGTH]));
        bytes
    }

    fn submit(&self, opcode: Opcode, length: usize) -> TransferId {
        self.pair.here.submit(opcode, &[self.pair.iov(0, 0, length as u64)][..]).unwrap()
    }

    fn ends(&self, opcode: Opcode) -> (&RegisteredBuffer, &RegisteredBuffer) {
        match opcode {
            Opcode::Write => (&self.pair.source, &self.pair.target),
            Opcode::Read => (&self.pair.target, &self.pair.source),
        }
    }

    fn rail(&self, rail: usize) -> RailInfo {
        self.pair.here.rails()[rail].clone()
    }

    fn up(&self) -> usize {
        self.pair.here.rails().iter().filter(|rail| rail.status == RailStatus::Up).count()
    }

    fn carried(&self, rail: usize) -> u64 {
        let rail = self.rail(rail);
        rail.written_bytes + rail.read_bytes
    }

    fn all_done(&self, ids: &[TransferId], what: &str) {
        for id in ids {
            let ended = self.pair.here.wait(*id, Duration::from_secs(60));
            assert_eq!(ended, Status::Ended(Outcome::Done), "{what}: {:#?}", self.pair.here.rails());
        }
    }

    /// The same transfers without the fault and with it.
    fn meet(&mut self, fault: Fault, rail: usize, opcode: Opcode) {
        let what = format!("{fault:?}, rail {rail}, {opcode:?}");
        let bytes = self.fill(opcode, 6);
        let begin = Instant::now();
        let ids: Vec<_> = (0..TRANSFERS).map(|_| self.submit(opcode, LENGTH)).collect();
        self.all_done(&ids, &what);
        let whole = begin.elapsed();
        assert!(content(self.ends(opcode).1) == bytes, "{what}: before the fault");
        let before = self.rail(rail);
        let link = before.nic["rxa".len()..="rxa".len()].to_owned();
        let bytes = self.fill(opcode, 7);
        let (pair, links) = (&self.pair, &mut self.links);
        let iov = || pair.iov(0, 0, LENGTH as u64);
        let seen = in_the_middle(&pair.here, &iov, opcode, &before, false, || links.set(fault, &link, true));
        assert!(content(self.ends(opcode).1) == bytes, "{what}: done, and other bytes are there");
        let parts = self.rail(rail).moved_parts - before.moved_parts;
        assert!(seen.done < MOVED, "{what}: it took {:?}: {:#?}", seen.done, self.pair.here.rails());
        assert!(parts > 0, "{what}: no part moved: {:#?}", self.pair.here.rails());
        let again = self.mend(fault, rail, opcode, &link);
        println!(
            "| {fault:?} | {rail} | {opcode:?} | {} | {} | {} | {} | {parts} | {} |",
            ms(seen.detected),
            ms(seen.moved),
            ms(Some(seen.done)),
            ms(Some(whole)),
            ms(Some(again))
        );
    }

    /// The link is back: nothing that was sent before arrives now, and the rail is used again, after this time.
    fn mend(&mut self, fault: Fault, rail: usize, opcode: Opcode, link: &str) -> Duration {
        let to = self.ends(opcode).1;
        assert!(to.write(0, &vec![GUARD; LENGTH]));
        let back = Instant::now();
        self.links.set(fault, link, false);
        std::thread::sleep(Duration::from_millis(100));
        let is_unchanged = content(self.ends(opcode).1) == vec![GUARD; LENGTH];
        assert!(is_unchanged, "{fault:?}: written after the end of the transfers");
        let carried = self.carried(rail);
        while self.up() < 2 || self.carried(rail) == carried {
            self.all_done(&[self.submit(Opcode::Write, LENGTH / 8)], "the link is back");
            assert!(back.elapsed() < USED_AGAIN, "{fault:?}: not used again: {:#?}", self.pair.here.rails());
        }
        back.elapsed()
    }
}
