//! Memory is taken back while transfers of many threads and connections use it.
#![allow(unsafe_code, reason = "registers memory by address")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::memory::RegionId;
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status, TransferId};
use support::{LIMIT, Pair, connect, outcome};

const BYTES: usize = 64 << 10;
const PIECE: u64 = 4096;

/// Memory of the client's engine that every thread reads into.
struct Shared {
    bytes: Vec<AtomicU8>,
    region: RegionId,
}

impl Shared {
    fn new(engine: &Engine) -> Self {
        let bytes: Vec<_> = (0..BYTES).map(|_| AtomicU8::new(0)).collect();
        let (address, options) = (bytes.as_ptr().expose_provenance() as u64, RegisterOptions::default());
        // SAFETY: mapped until the tests have deregistered it, and made of atomics, which any thread may change.
        let region = unsafe { engine.register(address, BYTES as u64, options) }.unwrap();
        Self { bytes, region }
    }

    /// A read of one of the server's pieces into one of these.
    fn iov(&self, pair: &Pair, connection: &Connection, piece: u64) -> Iov {
        let remote = connection.describe_remote(pair.target.address(), PIECE as u32).unwrap();
        let local = self.bytes.as_ptr().expose_provenance() as u64 + piece * PIECE % BYTES as u64;
        Iov { local, length: PIECE, region: Some(self.region), remote }
    }

    /// Fills it, waits, and expects to find it as it was.
    fn expect_to_be_left_alone(&self) {
        for byte in &self.bytes {
            byte.store(0xa5, Ordering::Relaxed);
        }
        std::thread::sleep(Duration::from_millis(300));
        let changed = self.bytes.iter().filter(|byte| byte.load(Ordering::Relaxed) != 0xa5).count();
        assert_eq!(changed, 0, "bytes that were written after the memory had been given back");
    }
}

/// Connections of the pair's engines. The server's ends are kept, for a connection that is dropped is closed.
struct Fan {
    here: Vec<Arc<Connection>>,
    _there: Vec<Arc<Connection>>,
}

impl Fan {
    fn new(pair: &Pair, count: usize) -> Self {
        let more = (1..count).map(|_| connect(&pair.client, &pair.server));
        let (here, _there) = more.chain([(Arc::clone(&pair.here), Arc::clone(&pair.there))]).unzip();
        Self { here, _there }
    }
}

#[test]
fn many_threads_use_it() {
    let pair = Pair::with(BYTES, &[("FLAGCX_P2P_FAULTS", "seed=1;delay=us:2000")]);
    assert!(pair.target.write(0, &support::pattern(1, BYTES)));
    let shared = Shared::new(&pair.client);
    let fan = Fan::new(&pair, 4);
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_usize {
            let (connection, shared, pair, done) = (&fan.here[thread % 4], &shared, &pair, &done);
            scope.spawn(move || {
                for round in thread as u64.. {
                    let iov = shared.iov(pair, connection, round);
                    // Refused once the memory is being taken back.
                    let Ok(id) = connection.submit(Opcode::Read, &[iov, iov, iov][..]) else { break };
                    assert_eq!(outcome(connection, id), Outcome::Done, "it is waited for");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        support::eventually("they are at it", || done.load(Ordering::Relaxed) > 50);
        let start = Instant::now();
        assert!(pair.client.deregister(shared.region));
        assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
        shared.expect_to_be_left_alone();
    });
    for connection in &fan.here {
        assert!(connection.is_usable(), "nothing was wrong with it");
    }
}

/// Transfers without a deadline that do not end: after 30 s they are ended by force.
#[test]
#[ignore = "a soak: ./x soak"]
fn soak_no_transfer_holds_memory_for_ever() {
    let settings = [("FLAGCX_P2P_FAULTS", "seed=1;delay=us:90000000"), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "0")];
    let pair = Pair::with(BYTES, &settings);
    let shared = Shared::new(&pair.client);
    let fan = Fan::new(&pair, 4);
    let started: Vec<(usize, TransferId)> = (0..64)
        .map(|number| {
            let connection = &fan.here[number % 4];
            let iov = shared.iov(&pair, connection, number as u64);
            (number % 4, connection.submit(Opcode::Read, &[iov][..]).unwrap())
        })
        .collect();
    let start = Instant::now();
    assert!(pair.client.deregister(shared.region));
    let bounds = Duration::from_secs(29)..Duration::from_secs(40);
    assert!(bounds.contains(&start.elapsed()), "it took {:?}", start.elapsed());
    shared.expect_to_be_left_alone();
    for (connection, id) in started {
        assert_eq!(outcome(&fan.here[connection], id), Outcome::TimedOut);
    }
    for connection in &fan.here {
        support::eventually("the lanes are back", || {
            connection.info().healthy_lanes == connection.info().lanes
        });
    }
    assert!(start.elapsed() < Duration::from_secs(40) + LIMIT);
}

/// The peer closes at the same moment as this side: whichever side is first, a close that has returned has ended
/// everything.
#[test]
fn a_close_returns_when_everything_has_ended_whichever_side_began() {
    for round in 0..60_u64 {
        let pair = Pair::with(BYTES, &[("FLAGCX_P2P_FAULTS", "seed=1;delay=us:1000000")]);
        let shared = Shared::new(&pair.client);
        let ids: Vec<_> = (0..8)
            .map(|piece| pair.here.submit(Opcode::Read, &[shared.iov(&pair, &pair.here, piece)][..]).unwrap())
            .collect();
        std::thread::scope(|scope| {
            scope.spawn(|| pair.there.close());
            // Now before the other end notices, now after.
            std::thread::sleep(Duration::from_micros(round * 20));
            pair.here.close();
            for id in &ids {
                let status = pair.here.status(*id);
                assert!(matches!(status, Status::Ended(_)), "round {round}: {status:?} after the close");
            }
        });
    }
}
