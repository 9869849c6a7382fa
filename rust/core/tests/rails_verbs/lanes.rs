//! Queue pairs of devices, as further rails get them.

use std::time::Duration;

use flagcx_p2p::internals::fabric::Opcode;

use crate::alone;
use crate::bench::Bench;
use crate::nics::{has_all_lanes, up};
use crate::support::eventually;

/// Queue pairs of a connection with one rail, and of a further one, at each end.
const FIRST: i64 = 4;
const FURTHER: i64 = FIRST + 1;

/// Two rails, of which the second one was made and not used.
fn unused() -> Bench {
    let bench = Bench::of_devices(["nv0,nv1", "nv2,nv3"]);
    let pair = &bench.pair;
    eventually("the NICs are known", || !pair.here.rails()[0].peer_nic.is_empty());
    pair.here.add_rails_now();
    eventually("both ends have a second rail", || up(&pair.here).len() == 2 && up(&pair.there).len() == 2);
    // Lanes that were made with the first one would be there by then.
    std::thread::sleep(Duration::from_millis(50));
    bench
}

#[test]
fn a_further_rail_has_one_queue_pair_at_each_end_until_it_is_used() {
    let _alone = alone();
    let bench = unused();
    let queue_pairs = || bench.standin.live().queue_pairs;
    // Those of the trial are destroyed.
    eventually("no other queue pairs are there", || queue_pairs() == 2 * (FIRST + 1));
    eventually("both ends have all lanes", || {
        bench.check_all(Opcode::Write, 1);
        [&bench.pair.here, &bench.pair.there].iter().all(|end| has_all_lanes(end))
    });
    eventually("no other queue pairs are there", || queue_pairs() == 2 * (FIRST + FURTHER));
    bench.close();
}

/// Whatever is under way then, nothing of it stays.
#[test]
fn a_connection_is_closed_while_lanes_are_made() {
    let _alone = alone();
    for round in 0..8 {
        let bench = unused();
        bench.start(Opcode::Write, round);
        let begun = |queue_pairs: i64| queue_pairs > 2 * (FIRST + 1) || round % 2 == 0;
        eventually("lanes are being made", || {
            bench.check_all(Opcode::Write, round);
            begun(bench.standin.live().queue_pairs)
        });
        bench.close();
    }
}
