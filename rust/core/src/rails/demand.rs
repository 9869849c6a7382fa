//! When a connection makes a further rail.

use super::{PlanLimits, RailLoad, RailSet, Shape};

/// The rails that a connection has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MadeRails {
    /// Those that are made, whether they are up or not.
    pub made: RailSet,
    /// Those that are being made.
    pub making: RailSet,
}

/// The rail that a connection should make next, if it should make one: `rails` are those that it has, and `under_way` the
/// bytes that it has started and not ended, this transfer's not included. `loads` has also those of rails that are not made.
///
/// A rail is made for a buffer that no rail reaches, for a connection that has more under way than the rails that it has need
/// to be busy, and as second one for a connection the only NIC of which is much busier than others. So a peer that gets few bytes at a
/// time has at most two: to choose of two is enough to spread many peers evenly (Mitzenmacher, "The power of two choices", 2001).
///
/// A rail that is paused or down reaches nothing, so a connection with no other one makes a further one at once.
pub fn wanted_rail(
    shape: &Shape,
    under_way: u64,
    rails: MadeRails,
    loads: &[RailLoad],
    limits: &PlanLimits,
) -> Option<usize> {
    let eligible = || loads.iter().enumerate().filter(|(rail, _)| shape.eligible.has(*rail));
    let up = || eligible().filter(|(rail, load)| rails.made.has(*rail) && load.up);
    let coming = eligible().filter(|(rail, _)| rails.making.has(*rail)).count();
    let reached = up().count() + coming;
    let enough = limits.rail_from.saturating_mul(reached as u64);
    let finish = |(rail, load): (usize, &RailLoad)| (load.finish(shape.bytes), rail);
    let has = |rail: usize| rails.made.has(rail) || rails.making.has(rail);
    let best = eligible().filter(|(rail, _)| !has(*rail)).map(finish).min()?;
    let needs_one = reached == 0 || under_way.saturating_add(shape.bytes) > enough;
    let only = up().map(|of| finish(of).0).min();
    let is_only = eligible().filter(|(rail, _)| has(*rail)).count() == 1;
    let is_far_better = is_only && only.is_some_and(|only| only / MUCH > best.0);
    (needs_one || is_far_better).then_some(best.1)
}

/// A second rail is made if a transfer would end in less than this part of the time: a half.
const MUCH: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn wanted_of(bytes: u64, eligible: u8, under_way: u64, rails: (u8, u8), up: u8) -> Option<usize> {
        let shape = Shape { bytes, eligible: RailSet(eligible), home: None, spread: 0 };
        let mut loads = [RailLoad { rate: 1 << 30, ..RailLoad::default() }; 4];
        for (rail, load) in loads.iter_mut().enumerate() {
            load.up = RailSet(up).has(rail);
        }
        loads[1].ready = 1_000;
        let rails = MadeRails { made: RailSet(rails.0), making: RailSet(rails.1) };
        wanted_rail(&shape, under_way, rails, &loads, &PlanLimits::default())
    }

    fn wanted(bytes: u64, eligible: u8, under_way: u64, made: u8) -> Option<usize> {
        wanted_of(bytes, eligible, under_way, (made, 0), made)
    }

    #[test]
    fn few_bytes_need_one_rail() {
        assert_eq!(wanted(MIB, 0b1111, 0, 0b0001), None);
        assert_eq!(wanted(4 * MIB, 0b1111, 0, 0b0001), None);
    }

    #[test]
    fn many_bytes_need_further_ones_the_least_loaded_first() {
        assert_eq!(wanted(64 * MIB, 0b1111, 0, 0b0001), Some(2));
        assert_eq!(wanted(MIB, 0b0011, 4 * MIB, 0b0001), Some(1));
        assert_eq!(wanted(64 * MIB, 0b1111, 1 << 40, 0b1111), None, "all are made");
    }

    #[test]
    fn a_busy_nic_makes_a_second_rail_and_no_third() {
        let shape = Shape { bytes: MIB, eligible: RailSet::first(4), home: None, spread: 0 };
        let mut loads = [RailLoad { rate: 50 << 30, ready: 3_000, up: true, ..RailLoad::default() }; 4];
        let wanted = |loads: &[RailLoad; 4], made| {
            let rails = MadeRails { made: RailSet(made), ..MadeRails::default() };
            wanted_rail(&shape, 0, rails, loads, &PlanLimits::default())
        };
        loads[0].ready = 20_000;
        assert_eq!(wanted(&loads, 0b0001), None);
        loads[0].ready = 200_000;
        assert_eq!(wanted(&loads, 0b0001), Some(1));
        loads[1].ready = 200_000;
        assert_eq!(wanted(&loads, 0b0011), None);
    }

    #[test]
    fn a_buffer_that_no_rail_reaches_needs_one() {
        assert_eq!(wanted(1, 0b1000, 0, 0b0001), Some(3));
    }

    #[test]
    fn a_rail_that_is_not_up_reaches_nothing() {
        assert_eq!(wanted_of(1, 0b1111, 0, (0b0001, 0), 0), Some(2), "the only one is paused or down");
        assert_eq!(wanted_of(1, 0b1111, 0, (0b0011, 0), 0b0010), None, "the other one carries it");
        assert_eq!(wanted_of(1, 0b1111, 0, (0b0111, 0), 0), Some(3));
        assert_eq!(
            wanted_of(6 * MIB, 0b1111, 0, (0b0011, 0), 0b0010),
            Some(2),
            "one is not enough for so many bytes"
        );
    }

    #[test]
    fn one_that_is_being_made_is_waited_for() {
        assert_eq!(wanted_of(1, 0b1111, 0, (0b0001, 0b0010), 0), None);
        assert_eq!(wanted_of(6 * MIB, 0b1111, 0, (0b0001, 0b0010), 0b0001), None);
        assert_eq!(wanted_of(64 * MIB, 0b1111, 0, (0b0001, 0b0110), 0b0001), Some(3));
    }
}
