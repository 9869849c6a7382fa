//! Requests that are refused: they fail, and cost neither end a rail.

use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};

use crate::alone;
use crate::memory::{MIB, Memory};
use crate::nics::{nic_number, up};
use crate::rail_pair::RailPair;
use crate::support::own_time::OwnTime;
use crate::support::{content, eventually, outcome};

const RAILS: usize = 4;

/// A lane is rebuilt in milliseconds; a rail that is paused for its errors again and again was away for 1 s and more.
const SOON: Duration = Duration::from_millis(500);

/// Four rails, and memory of the peer that is reached over the first one alone.
struct Bench {
    pair: RailPair,
    source: Memory,
    target: Memory,
    iov: Iov,
    longest: Duration,
}

impl Bench {
    fn new() -> Self {
        // On a machine that is busy rails are silent now and then, and paused for that.
        let patient: &[(&str, &str)] = &[("FLAGCX_P2P_RAIL_SILENCE_MS", "1000")];
        let pair = RailPair::with([RAILS as u32; 2], None, [patient; 2]);
        pair.make_rails(RAILS);
        let (source, target) = (Memory::of(1, MIB), Memory::new(MIB));
        let local = source.register(&pair.client, true);
        let iov = target.iov_of_hidden(&source, local, &pair);
        Self { pair, source, target, iov, longest: Duration::ZERO }
    }

    fn expect_refusal(&self, iov: Iov) {
        let ended = outcome(&self.pair.here, self.pair.submit(Opcode::Write, &[iov]));
        assert!(matches!(ended, Outcome::Failed(_)), "{ended:?}");
    }

    /// Good transfers are done at once, over the first rail and over all of them.
    fn expect_good(&mut self, seed: u64) {
        let time = OwnTime::start();
        let id = self.pair.submit(Opcode::Write, &[self.iov]);
        assert_eq!(outcome(&self.pair.here, id), Outcome::Done);
        self.longest = self.longest.max(time.elapsed());
        assert!(self.target.bytes() == self.source.bytes());
        let bytes = self.pair.fill(Opcode::Write, seed);
        let time = OwnTime::start();
        let id = self.pair.submit_all(Opcode::Write);
        assert_eq!(outcome(&self.pair.here, id), Outcome::Done);
        self.longest = self.longest.max(time.elapsed());
        assert!(content(&self.pair.target) == bytes, "{seed}: other bytes");
    }

    /// No rail was paused, at either end, and all lanes come back.
    fn expect_rails(self) {
        let Self { pair, longest, .. } = &self;
        for end in [&pair.here, &pair.there] {
            assert_eq!((pauses(end), up(end).len()), (0, RAILS), "{:#?}", end.rails());
            eventually("the lanes are back", || {
                end.rails().iter().all(|rail| rail.healthy_lanes == rail.lanes)
            });
        }
        println!("the longest good transfer took {longest:?}");
        assert!(*longest < SOON, "{longest:?}");
        pair.client.close();
        pair.server.close();
    }
}

fn pauses(connection: &Connection) -> u64 {
    connection.rails().iter().map(|rail| rail.pauses).sum()
}

#[test]
fn wrong_keys_pause_no_rail_of_either_end() {
    let _alone = alone();
    let mut bench = Bench::new();
    let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..bench.iov.remote }, ..bench.iov };
    // A peer has 16 wrong keys free, one a second from then on.
    for round in 0..5 {
        (0..3).for_each(|_| bench.expect_refusal(wrong));
        bench.expect_good(round);
    }
    bench.expect_rails();
}

#[test]
fn requests_that_are_refused_on_all_rails_pause_none() {
    let _alone = alone();
    let mut bench = Bench::new();
    let all = bench.pair.iov(0, 0, bench.pair.source.len() as u64);
    let nics: Vec<_> = bench.pair.here.rails().iter().map(|rail| nic_number(&rail.nic)).collect();
    for round in 0..5 {
        nics.iter().for_each(|nic| bench.pair.near.switches(*nic).set_refusing(1));
        bench.expect_refusal(all);
        bench.pair.near.heal();
        bench.expect_good(round);
    }
    let refused: Vec<_> = nics.iter().map(|nic| bench.pair.near.switches(*nic).injected()).collect();
    println!("refused on each rail: {refused:?}");
    assert!(refused.iter().filter(|count| **count > 1).count() > 1, "{refused:?}");
    bench.expect_rails();
}
