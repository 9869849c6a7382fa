use proptest::prelude::*;

use super::*;

const SPEED: u64 = 50_000_000_000;
const MIB: u64 = 1 << 20;

fn idle() -> RailLoad {
    RailLoad { up: true, credits: 1024, ready: 3_000, rate: SPEED }
}

fn shape(bytes: u64) -> Shape {
    Shape { bytes, eligible: RailSet::first(8), home: None, spread: 0 }
}

fn planned(shape: &Shape, loads: &[RailLoad]) -> Vec<(u8, u64)> {
    let plan = plan(shape, loads, &PlanLimits::default());
    plan.shares().iter().map(|share| (share.rail, share.of(shape.bytes).1)).collect()
}

#[test]
fn equal_rails_get_equal_shares() {
    assert_eq!(
        planned(&shape(64 * MIB), &[idle(); 8]),
        (0..8).map(|rail| (rail, 8 * MIB)).collect::<Vec<_>>()
    );
}

#[test]
fn one_rail_gets_everything() {
    assert_eq!(planned(&shape(64 * MIB), &[idle()]), [(0, 64 * MIB)]);
    let only = Shape { eligible: RailSet(1 << 5), ..shape(64 * MIB) };
    assert_eq!(planned(&only, &[idle(); 8]), [(5, 64 * MIB)]);
}

#[test]
fn a_rail_of_half_the_rate_gets_half_the_share() {
    let mut loads = [idle(); 2];
    loads[1].rate = SPEED / 2;
    assert_eq!(planned(&shape(48 * MIB), &loads), [(0, 33_554_688), (1, 16_776_960)], "two thirds and one");
}

#[test]
fn what_is_under_way_counts() {
    let mut loads = [idle(); 2];
    // 10 MiB are under way on the first rail, of the transfer's 30 MiB: 10 and 20.
    loads[0].ready += nanos(10 * MIB, SPEED);
    let shares = planned(&shape(30 * MIB), &loads);
    assert!(shares[0].1.abs_diff(10 * MIB) < 1024 && shares[1].1.abs_diff(20 * MIB) < 1024, "{shares:?}");
    loads[0].ready = nanos(100 * MIB, SPEED);
    assert_eq!(planned(&shape(30 * MIB), &loads), [(1, 30 * MIB)]);
}

#[test]
fn a_rail_that_is_not_up_gets_nothing() {
    let mut loads = [idle(); 3];
    loads[1].up = false;
    assert_eq!(planned(&shape(64 * MIB), &loads).iter().map(|share| share.0).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(planned(&shape(64 * MIB), &[RailLoad::default(); 8]), []);
    assert_eq!(planned(&shape(64 * MIB), &[]), []);
}

#[test]
fn a_rail_without_credits_gets_nothing_while_others_have_some() {
    let mut loads = [idle(); 2];
    loads[0].credits = 0;
    assert_eq!(planned(&shape(64 * MIB), &loads), [(1, 64 * MIB)]);
    loads[1].credits = 0;
    assert_eq!(planned(&shape(64 * MIB), &loads).len(), 2);
}

#[test]
fn small_transfers_use_one_rail_and_spread_over_all() {
    let rails: std::collections::BTreeSet<_> = (0..64)
        .map(|spread| {
            let shares = planned(&Shape { spread, ..shape(64 << 10) }, &[idle(); 8]);
            assert_eq!(shares.len(), 1);
            shares[0].0
        })
        .collect();
    assert_eq!(rails.len(), 8);
}

#[test]
fn a_buffer_keeps_its_rail_while_loads_are_about_equal() {
    let mut loads = [idle(); 4];
    let small = Shape { home: Some(2), spread: 1, ..shape(256 << 10) };
    loads[2].ready += 500;
    assert_eq!(planned(&small, &loads), [(2, 256 << 10)]);
    loads[2].ready += 5_000;
    assert_eq!(planned(&small, &loads), [(1, 256 << 10)]);
    let lost = Shape { home: Some(7), ..small };
    assert_eq!(planned(&lost, &loads), [(1, 256 << 10)], "its rail is gone");
}

#[test]
fn nearly_equal_loads_give_the_same_shares() {
    let mut loads = [idle(); 4];
    let before = planned(&shape(64 * MIB), &loads);
    loads[1].ready += 10_000;
    loads[3].rate -= SPEED / 20;
    assert_eq!(planned(&shape(64 * MIB), &loads), before);
}

fn any_load() -> impl Strategy<Value = RailLoad> {
    let rate = prop_oneof![Just(0u64), 1u64..1 << 40, Just(u64::MAX)];
    let ready = prop_oneof![0u64..1 << 30, Just(u64::MAX)];
    (any::<bool>(), 0u32..3, ready, rate).prop_map(|(up, credits, ready, rate)| RailLoad {
        up,
        credits,
        ready,
        rate,
    })
}

proptest! {
    /// Whatever the loads: the shares tile every length in order, over rails that are up and eligible, each once.
    #[test]
    fn shares_tile(
        loads in prop::collection::vec(any_load(), 0..10),
        bytes in prop_oneof![0u64..10_000_000, any::<u64>()],
        length in any::<u64>(), eligible in any::<u8>(), home in prop::option::of(0u8..10), spread in any::<u32>(),
    ) {
        let shape = Shape { bytes, eligible: RailSet(eligible), home, spread };
        let plan = plan(&shape, &loads, &PlanLimits::default());
        let can = |rail: usize| loads.get(rail).is_some_and(|load| load.up) && shape.eligible.has(rail);
        prop_assert_eq!(plan.shares().is_empty(), !(0..8).any(can));
        let (mut end, mut last) = (0, None);
        for share in plan.shares() {
            prop_assert!(can(share.rail.into()) && last < Some(share.rail));
            last = Some(share.rail);
            let (offset, length) = share.of(length);
            prop_assert_eq!(offset, end);
            end += length;
        }
        prop_assert!(plan.shares().is_empty() || end == length);
    }

    /// No split over the same rails, in steps of 1/16 of the transfer moved from one rail to another, ends clearly earlier.
    #[test]
    fn no_other_split_is_much_better(
        ready in prop::collection::vec(0u64..2_000_000, 2..5), rates in prop::collection::vec(SPEED / 8..SPEED, 5),
        bytes in 8 * MIB..128 * MIB,
    ) {
        let loads: Vec<_> =
            ready.iter().zip(&rates).map(|(ready, rate)| RailLoad { ready: *ready, rate: *rate, ..idle() }).collect();
        let mut moved = vec![0; loads.len()];
        for (rail, bytes) in planned(&shape(bytes), &loads) {
            moved[usize::from(rail)] = bytes;
        }
        let end = |moved: &[u64]| {
            let ends = loads.iter().zip(moved).filter(|(_, bytes)| **bytes > 0);
            ends.map(|(load, bytes)| load.finish(*bytes)).max().unwrap()
        };
        let ours = end(&moved);
        for (from, to) in (0..loads.len()).flat_map(|from| (0..loads.len()).map(move |to| (from, to))) {
            let mut other = moved.clone();
            let step = (bytes / 16).min(other[from]);
            other[from] -= step;
            other[to] += step;
            prop_assert!(end(&other) as f64 > ours as f64 * 0.85, "{moved:?} {other:?}");
        }
    }
}
