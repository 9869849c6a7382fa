//! Rails over the kernel's soft-RoCE: two links, with a device at either end of each. One goes down in the middle of transfers, or loses
//! every packet; their parts move, and it is used again when it is back.
//!
//! Runs where `FLAGCX_P2P_TEST_RXE=1`, as in the guest of `tests/rdma-vm`; it makes devices and links of its own there.
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
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{DeviceList, Opcode};
use flagcx_p2p::internals::observe::{RailInfo, RailStatus};
use flagcx_p2p::internals::transfer::{Outcome, Status, TransferId};
use links::{Fault, Links};
use support::{Pair, blocks, content, eventually};

/// Registering memory is slow there.
const LENGTH: usize = 8 << 20;
/// Several transfers, so that the fault meets some in the middle.
const TRANSFERS: usize = 6;
const GUARD: u8 = 0xa5;
/// The guest is emulated.
const MOVED: Duration = Duration::from_secs(20);
const USED_AGAIN: Duration = Duration::from_secs(20);

#[test]
fn transfers_outlive_a_link_of_two() {
    if std::env::var_os("FLAGCX_P2P_TEST_RXE").is_none() {
        println!("not run: FLAGCX_P2P_TEST_RXE is not set; tests/rdma-vm/run.sh sets it in its guest");
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
        "| fault | rail | | detected | first part moved | all done | without a fault | parts moved | used again |"
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
        let seen = self.in_the_middle(fault, opcode, &before, &link);
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

    /// Starts the transfers, and breaks the link while they are under way. Soft-RoCE sends within the call that posts, so another thread
    /// starts them.
    fn in_the_middle(&mut self, fault: Fault, opcode: Opcode, before: &RailInfo, link: &str) -> Seen {
        let (pair, links, rail) = (&self.pair, &mut self.links, usize::from(before.rail));
        let iov = pair.iov(0, 0, LENGTH as u64);
        let now = || pair.here.rails()[rail].clone();
        std::thread::scope(|scope| {
            let submitting = scope.spawn(|| {
                let ids = (0..TRANSFERS).map(|_| pair.here.submit(opcode, &[iov][..]).unwrap());
                ids.collect::<Vec<_>>()
            });
            let limit = Instant::now() + MOVED;
            while now().in_flight_bytes == 0 {
                assert!(Instant::now() < limit, "nothing went over rail {rail}: {:#?}", now());
            }
            let begin = Instant::now();
            links.set(fault, link, true);
            let mut seen = Seen::default();
            let (mut submitting, mut ids) = (Some(submitting), Vec::new());
            loop {
                let rail = now();
                if seen.detected.is_none() && rail.status != RailStatus::Up {
                    seen.detected = Some(begin.elapsed());
                }
                if seen.moved.is_none() && rail.moved_parts > before.moved_parts {
                    seen.moved = Some(begin.elapsed());
                }
                if let Some(ended) = submitting.take_if(|thread| thread.is_finished()) {
                    ids = ended.join().unwrap();
                }
                let is_pending = |id: &TransferId| pair.here.status(*id) == Status::Pending;
                if submitting.is_none() && !ids.iter().any(is_pending) {
                    break;
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            seen.done = begin.elapsed();
            for id in &ids {
                let ended = pair.here.wait(*id, Duration::ZERO);
                assert_eq!(ended, Status::Ended(Outcome::Done), "{fault:?}: {:#?}", pair.here.rails());
            }
            seen
        })
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

/// What was seen of a fault, and how long after it.
#[derive(Debug, Default)]
struct Seen {
    /// The rail is not used any more.
    detected: Option<Duration>,
    /// The first part moves.
    moved: Option<Duration>,
    /// All transfers have ended.
    done: Duration,
}

fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()))
}
