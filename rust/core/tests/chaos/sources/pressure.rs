//! Queues that are full, and peers that are slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Context;
use flagcx_p2p::internals::fabric::{MOST_DIRECT_PIECES, Opcode};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, SubmitError};

use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way, length};
use crate::chaos::round::{self, FAMILIES, Family};
use crate::chaos::tally::Tally;
use crate::chaos::{over_verbs, share, watchdog};
use crate::support;

/// Threads that fill the queue.
const CROWD: usize = 4;
const WOULD_BLOCK: u64 = 600;
/// Transfers that a thread begins before it waits for their ends.
const BEGUN: usize = 4;
/// How often it tries to at most: where threads wait for a processor the ends take long, so it does not meet a full queue often.
const TRIED: usize = 32;

/// One worker, one lane, one place in each queue, and control work that keeps the worker's lock for a while: `try_submit`
/// says so, `submit` waits, and nothing is lost or done twice.
pub fn full_queue(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let ways: &[_] = match over_verbs() {
        true => &[(Way::Verbs, "1")],
        false => &[(Way::InProcess, "1"), (Way::Tcp, "1"), (Way::CrossMemory, "3")],
    };
    let quota = share(WOULD_BLOCK) / ways.len() as u64;
    for &(way, depth) in ways {
        watchdog::step("filling a queue");
        let settings = support::config(&[]);
        let rig = Rig::new(
            way,
            &[
                ("FLAGCX_P2P_QUEUE_DEPTH", depth),
                ("FLAGCX_P2P_SHARD_COUNT", "1"),
                ("FLAGCX_P2P_WORKERS_PER_POOL", "1"),
                ("FLAGCX_P2P_QPS_PER_CONN", "1"),
                ("FLAGCX_P2P_MAX_REQUESTS", "1"),
                ("FLAGCX_P2P_CQ_DEPTH", "4"),
            ],
        );
        let blocked = AtomicU64::new(0);
        let pool = Context::open(&settings, rig.client.device().unwrap()).unwrap().pool;
        let crowd = std::thread::scope(|scope| {
            scope.spawn(|| {
                let start = Instant::now();
                while blocked.load(Ordering::Relaxed) < quota && start.elapsed() < support::LIMIT {
                    pool.workers()[0].with_state(|_| std::thread::sleep(Duration::from_micros(200)));
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            let threads: Vec<_> = (0..CROWD)
                .map(|index| {
                    let (shared, blocked) = (Shared::from(&rig), &blocked);
                    scope.spawn(move || push(shared, index, quota, blocked))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for (done, waits) in crowd {
            tally.done += done;
            tally.detection.extend(waits);
        }
        tally.fault(Family::TrySubmit, blocked.into_inner());
        // Quiet again: everything still works, byte for byte.
        for family in FAMILIES {
            let begin = Instant::now();
            assert!(round::run(&rig, family, &mut random, tally));
            tally.recovery.push(begin.elapsed());
        }
    }
}

/// What the threads of a crowd share: the connection and the buffers, not the rig's bookkeeping.
#[derive(Clone, Copy)]
struct Shared<'a> {
    connection: &'a flagcx_p2p::internals::connection::Connection,
    near: u64,
    far: u64,
}

impl<'a> From<&'a Rig> for Shared<'a> {
    fn from(rig: &'a Rig) -> Self {
        Self { connection: &rig.here, near: rig.arena.near.address(), far: rig.arena.far.address() }
    }
}

/// Fills the queue from one thread until it has been full often enough; answers transfers done and times to get in.
fn push(shared: Shared<'_>, index: usize, quota: u64, blocked: &AtomicU64) -> (u64, Vec<Duration>) {
    let blocking = index.is_multiple_of(2);
    let offset = (index * length() / CROWD) as u64;
    let remote = shared.connection.describe_remote(shared.far + offset, 1024).unwrap();
    // More pieces than are copied within the call.
    let iov =
        [Iov { local: shared.near + offset, length: 1024, region: None, remote }; MOST_DIRECT_PIECES + 1];
    let (mut done, mut waits) = (0, Vec::new());
    let start = Instant::now();
    while blocked.load(Ordering::Relaxed) < quota {
        assert!(start.elapsed() < support::LIMIT, "the queue does not fill");
        let begin = Instant::now();
        let mut ids = Vec::new();
        for _ in 0..TRIED {
            match blocking {
                true => ids.push(shared.connection.submit(Opcode::Write, &iov[..]).unwrap()),
                false => match shared.connection.try_submit(Opcode::Write, &iov[..]) {
                    Ok(id) => ids.push(id),
                    Err(SubmitError::WouldBlock) => {
                        blocked.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => panic!("{error}"),
                },
            }
            if ids.len() == BEGUN {
                break;
            }
        }
        waits.push(begin.elapsed());
        for id in ids {
            assert_eq!(shared.connection.wait(id, support::LIMIT), Status::Ended(Outcome::Done));
            done += 1;
        }
    }
    (done, waits)
}

/// Memory that moves at 100 MB/s instead of 10 GB/s; then so slowly that most transfers miss a deadline of 20 ms, and
/// end soon after it. A connection to another peer does not notice.
pub fn slow_peer(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    for way in [Way::InProcess, Way::CrossMemory, Way::Tcp] {
        let quick = Rig::new(way, &[]);
        for (slowness, deadline, rounds) in
            [("slow=factor:100", "8000", 840), ("slow=factor:100000", "20", 420)]
        {
            let settings = [("FLAGCX_P2P_FAULTS", slowness), ("FLAGCX_P2P_XFER_TIMEOUT_MS", deadline)];
            let slow = Rig::new(way, &settings);
            for turn in 0..share(rounds) as usize {
                watchdog::step("transfers with a slow peer");
                let family = FAMILIES[turn % FAMILIES.len()];
                round::run(&slow, family, &mut random, tally);
                tally.fault(family, 1);
                if turn % 4 == 0 {
                    assert!(round::run(&quick, family, &mut random, tally), "a slow peer slows another one");
                }
            }
        }
    }
}
