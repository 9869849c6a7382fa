//! What a connection tells of its rails, with those that there are today: one.
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside #[test] functions")]

mod support;

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{metrics, registry};
use flagcx_p2p::internals::transfer::Outcome;
use flagcx_p2p::{Connection, RailInfo, RailStatus};
use support::{Pair, outcome};

const BYTES: u64 = 256 << 10;

fn only_rail(connection: &Connection) -> RailInfo {
    let mut rails = connection.rails();
    assert_eq!(rails.len(), 1, "{rails:?}");
    rails.remove(0)
}

#[test]
fn the_first_rail_has_the_lanes_and_counts_what_they_carry() {
    let pair = Pair::new(BYTES as usize);
    let before = only_rail(&pair.here);
    assert_eq!((before.rail, before.status), (0, RailStatus::Up));
    assert!(before.nic.ends_with(":1") && before.nic.len() > 2, "{before:?}");
    assert_eq!((before.lanes, before.healthy_lanes), (pair.here.info().lanes, pair.here.info().lanes));
    assert_eq!((before.written_bytes, before.read_bytes, before.in_flight_bytes), (0, 0, 0));
    assert_eq!((before.pauses, before.moved_parts, before.last_pause), (0, 0, None));
    let moves = [(Opcode::Write, BYTES), (Opcode::Read, BYTES / 2), (Opcode::Write, 64)];
    for (opcode, bytes) in moves {
        let id = pair.here.submit(opcode, &[pair.iov(0, 0, bytes)][..]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
    }
    let after = only_rail(&pair.here);
    assert_eq!((after.written_bytes, after.read_bytes), (BYTES + 64, BYTES / 2), "{after:?}");
    assert_eq!(after.in_flight_bytes, 0);
    assert_eq!(only_rail(&pair.there).written_bytes, 0, "the end that starts a transfer counts it");

    // Both ends are in this process.
    let snapshot = registry().snapshot();
    assert_eq!(snapshot.of(&metrics::RAILS).count(), 3);
    assert_eq!(snapshot.of(&metrics::PEER_RAIL_BYTES).count(), 0, "one rail: the peer's series say it");
    let listed = registry().rails();
    let peers: Vec<_> = listed.iter().map(|of| (of.peer.clone(), of.rails.len())).collect();
    let expected = [&pair.here, &pair.there].map(|connection| (connection.info().peer, 1));
    assert!(expected.iter().all(|of| peers.contains(of)) && peers.len() == 2, "{peers:?}");

    pair.here.close();
    let closed = only_rail(&pair.here);
    assert_eq!((closed.status, closed.healthy_lanes), (RailStatus::Down, 0), "{closed:?}");
    assert_eq!(closed.written_bytes, BYTES + 64, "what it has carried stays");
    assert!(registry().rails().len() < 2, "one that has ended is not listed");
}
