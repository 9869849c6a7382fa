//! Whether a connection should make a further rail: asked by submitters, told by the task what came of it.

use std::sync::atomic::{AtomicU8, AtomicU32};

use crate::memory::RegionId;
use crate::rails::{MAX_RAILS, MILLISECOND, MadeRails, PlanLimits, RailLoad, RailSet, Shape, wanted_rail};
use crate::sync::{AtomicU64, Ordering};

/// The demand for further rails of one connection, at the end that leads it; or of requests for them, at the other. Used by any thread
/// without a lock.
#[derive(Debug)]
pub(super) struct RailDemand {
    limits: PlanLimits,
    /// When it may be asked again, in the pool's clock. Written by the submitter that asks, by an exchange that one of several wins, and
    /// read by all. It guards nothing: Relaxed.
    ask_at: AtomicU64,
    /// The rails that were wanted and of which no end is known. Bits are set by submitters, behind `not_before`, and cleared by the task
    /// and by submitters that find them too old: hints, Relaxed.
    making: AtomicU8,
    /// The id of the region here of the transfer that asked last; 0 if that is in none. Written by submitters and read by the task, which asks for
    /// what is under way: a hint, Relaxed.
    region: AtomicU64,
    /// When it asked, in the pool's clock. Written behind that by the same, and read with it: Relaxed, for an older one is a hint that is forgotten
    /// sooner.
    region_at: AtomicU64,
    places: [Place; MAX_RAILS],
}

/// Both are written by the submitter that wants the rail and by the task, which seldom meet: for a rail that took too long, and when refusals
/// are forgotten. Then a rail may be asked for once more. Read by submitters: hints, Relaxed.
#[derive(Debug, Default)]
struct Place {
    /// Of a rail that is being made: until when its end is waited for. Of one that was refused: when it may be wanted again.
    not_before: AtomicU64,
    /// Refusals in a row.
    refusals: AtomicU32,
}

/// The demand does not change faster, and to ask costs a look at all loads.
const ASK_EVERY: u64 = MILLISECOND;

/// So long after a transfer has asked is what is under way taken to be of its region.
const REGION_COUNTS: u64 = 1_000 * MILLISECOND;

/// A pair of NICs that was refused is wanted again after a second, then after twice as long each time, up to a minute.
const FIRST_PAUSE: u64 = 1_000 * MILLISECOND;
const LONGEST_PAUSE: u64 = 60_000 * MILLISECOND;

/// So long is a rail waited for of which neither is told: to open a NIC and register all memory on it takes seconds.
const MAKING_LIMIT: u64 = 60_000 * MILLISECOND;

impl RailDemand {
    pub(super) fn new(limits: PlanLimits) -> Self {
        Self {
            limits,
            ask_at: AtomicU64::new(0),
            making: AtomicU8::new(0),
            region: AtomicU64::new(0),
            region_at: AtomicU64::new(0),
            places: std::array::from_fn(|_| Place::default()),
        }
    }

    /// Whether to ask at all: the last time is long enough ago. One load.
    #[inline]
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.ask_at.load(Ordering::Relaxed)
    }

    /// A transfer asks `now`, of memory in this region here.
    pub(super) fn note_region(&self, region: Option<RegionId>, now: u64) {
        self.region.store(region.map_or(0, |region| region.0), Ordering::Relaxed);
        self.region_at.store(now, Ordering::Relaxed);
    }

    /// That of the transfer that asked last, if it did a short time ago: what is under way now may be of others, which do not ask.
    pub(super) fn region(&self, now: u64) -> Option<RegionId> {
        let is_old = now.saturating_sub(self.region_at.load(Ordering::Relaxed)) >= REGION_COUNTS;
        (!is_old).then(|| RegionId(self.region.load(Ordering::Relaxed)))
    }

    /// The rail to make next for this transfer, if one should be made; see [`wanted_rail`]. It counts as being made from now on, until
    /// [`RailDemand::made`] or [`RailDemand::refused`] is told. `shape.eligible` has the rails that reach the memory, or would if they were
    /// made; `under_way` the bytes that the connection has not ended; `made` the rails that it has; `loads` all loads, those of rails that
    /// are not made by [`RailLoads::of_unmade`](super::rail_loads::RailLoads::of_unmade).
    pub(super) fn wanted(
        &self,
        shape: &Shape,
        under_way: u64,
        made: RailSet,
        loads: &[RailLoad; MAX_RAILS],
        now: u64,
    ) -> Option<usize> {
        let before = self.ask_at.load(Ordering::Relaxed);
        let next = now.saturating_add(ASK_EVERY);
        if now < before
            || self.ask_at.compare_exchange(before, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return None;
        }
        let (making, refused) = self.held_back(now);
        let rails = MadeRails { made, making: RailSet(making.0 & !made.0) };
        let eligible = RailSet(shape.eligible.0 & !(refused.0 & !made.0));
        let rail = wanted_rail(&Shape { eligible, ..*shape }, under_way, rails, loads, &self.limits)?;
        self.note_making(rail, now);
        Some(rail)
    }

    /// The peer wants the rail. Whether it is to be made: then it counts as being made from now on. Not while it is, or in the pause behind a
    /// refusal.
    pub(super) fn begin(&self, rail: usize, now: u64) -> bool {
        let (making, refused) = self.held_back(now);
        let may_begin = !making.has(rail) && !refused.has(rail);
        if may_begin {
            self.note_making(rail, now);
        }
        may_begin
    }

    /// Another pair of NICs is tried for a rail.
    pub(super) fn goes_on(&self, rail: usize, now: u64) {
        self.note_making(rail, now);
    }

    /// Whether its end is waited for.
    pub(super) fn is_making(&self, rail: usize) -> bool {
        RailSet(self.making.load(Ordering::Relaxed)).has(rail)
    }

    /// Whether a rail was refused, and is not to be wanted yet.
    pub(super) fn is_refused(&self, rail: usize, now: u64) -> bool {
        self.held_back(now).1.has(rail)
    }

    /// Rails that were refused may be wanted again at once.
    pub(super) fn forget_refusals(&self) {
        for (rail, place) in self.places.iter().enumerate() {
            let not_before = place.not_before.load(Ordering::Relaxed);
            if self.is_making(rail) {
                continue;
            }
            place.refusals.store(0, Ordering::Relaxed);
            // A submitter may want the rail meanwhile.
            let forget =
                |from| place.not_before.compare_exchange(from, 0, Ordering::Relaxed, Ordering::Relaxed);
            let _ = forget(not_before);
        }
    }

    fn note_making(&self, rail: usize, now: u64) {
        let Some(place) = self.places.get(rail) else { return };
        place.not_before.store(now.saturating_add(MAKING_LIMIT), Ordering::Relaxed);
        self.making.fetch_or(RailSet::default().with(rail).0, Ordering::Relaxed);
    }

    /// The rail is made.
    pub(super) fn made(&self, rail: usize) {
        self.end(rail, |place| {
            place.refusals.store(0, Ordering::Relaxed);
            place.not_before.store(0, Ordering::Relaxed);
        });
    }

    /// The peer, or this end, does not make the rail. It is wanted again after a pause.
    pub(super) fn refused(&self, rail: usize, now: u64) {
        self.end(rail, |place| {
            let before = place.refusals.fetch_add(1, Ordering::Relaxed).min(16);
            let pause = (FIRST_PAUSE << before).min(LONGEST_PAUSE);
            place.not_before.store(now.saturating_add(pause), Ordering::Relaxed);
        });
    }

    fn end(&self, rail: usize, change: impl FnOnce(&Place)) {
        if let Some(place) = self.places.get(rail) {
            change(place);
            self.making.fetch_and(!RailSet::default().with(rail).0, Ordering::Relaxed);
        }
    }

    /// The rails that are being made, and those that were refused and may not be wanted yet.
    fn held_back(&self, now: u64) -> (RailSet, RailSet) {
        let wanted = RailSet(self.making.load(Ordering::Relaxed));
        let (mut making, mut refused) = (RailSet::default(), RailSet::default());
        for (rail, place) in self.places.iter().enumerate() {
            let is_held_back = now < place.not_before.load(Ordering::Relaxed);
            match (wanted.has(rail), is_held_back) {
                (true, true) => making = making.with(rail),
                (true, false) => {
                    self.making.fetch_and(!RailSet::default().with(rail).0, Ordering::Relaxed);
                }
                (false, true) => refused = refused.with(rail),
                (false, false) => {}
            }
        }
        (making, refused)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000 * MILLISECOND;

    fn wanted(demand: &RailDemand, bytes: u64, made: u8, now: u64) -> Option<usize> {
        let shape = Shape { bytes, eligible: RailSet::first(3), home: None, spread: 0 };
        let mut loads = [RailLoad { rate: 1 << 30, ..RailLoad::default() }; MAX_RAILS];
        loads[0].up = true;
        demand.wanted(&shape, 0, RailSet(made), &loads, now)
    }

    #[test]
    fn it_is_asked_now_and_then() {
        let demand = RailDemand::new(PlanLimits::default());
        assert_eq!(wanted(&demand, 1, 1, 0), None);
        assert!(!demand.is_due(ASK_EVERY - 1));
        assert_eq!(wanted(&demand, 64 << 20, 1, ASK_EVERY - 1), None);
        assert_eq!(wanted(&demand, 64 << 20, 1, ASK_EVERY), Some(1));
    }

    #[test]
    fn the_region_of_a_transfer_that_asked_long_ago_does_not_count() {
        let demand = RailDemand::new(PlanLimits::default());
        demand.note_region(Some(RegionId(7)), SECOND);
        assert_eq!(demand.region(2 * SECOND - 1), Some(RegionId(7)));
        assert_eq!(demand.region(2 * SECOND), None);
        demand.note_region(None, 2 * SECOND);
        assert_ne!(demand.region(2 * SECOND), Some(RegionId(7)), "the last one is in no region");
    }

    #[test]
    fn a_rail_is_wanted_once() {
        let demand = RailDemand::new(PlanLimits::default());
        assert_eq!(wanted(&demand, 64 << 20, 0b1, SECOND), Some(1));
        assert_eq!(wanted(&demand, 64 << 20, 0b1, 2 * SECOND), Some(2));
        assert_eq!(wanted(&demand, 64 << 20, 0b1, 3 * SECOND), None, "both are being made");
        demand.made(1);
        assert_eq!(wanted(&demand, 64 << 20, 0b11, 4 * SECOND), None);
        assert_eq!(wanted(&demand, 64 << 20, 0b11, 63 * SECOND), Some(2), "its end was never told");
    }

    #[test]
    fn a_peer_that_asks_for_a_rail_without_end_gets_as_many_tries() {
        let demand = RailDemand::new(PlanLimits::default());
        let mut tries = 0;
        for now in (SECOND..61 * SECOND).step_by(MILLISECOND as usize) {
            if demand.begin(1, now) {
                tries += 1;
                demand.refused(1, now);
            }
        }
        assert_eq!(tries, 6, "after 1, 2, 4, 8, 16 seconds");
        assert!(demand.begin(2, 61 * SECOND) && !demand.begin(2, 62 * SECOND), "it is being made");
    }

    #[test]
    fn refusals_are_forgotten_when_a_rail_is_needed_to_go_on() {
        let demand = RailDemand::new(PlanLimits::default());
        assert!(demand.begin(1, SECOND) && demand.begin(2, SECOND));
        (0..5).for_each(|_| demand.refused(1, SECOND));
        assert!(demand.is_refused(1, 2 * SECOND) && !demand.is_refused(2, 2 * SECOND));
        demand.forget_refusals();
        assert!(!demand.is_refused(1, 2 * SECOND) && demand.begin(1, 2 * SECOND));
        assert!(demand.is_making(2), "what is being made goes on");
        demand.refused(1, 2 * SECOND);
        assert!(!demand.is_refused(1, 3 * SECOND), "the first pause is short again");
    }

    #[test]
    fn a_refused_pair_is_wanted_again_after_a_pause_that_doubles_to_a_minute() {
        let demand = RailDemand::new(PlanLimits::default());
        let (mut now, mut pauses) = (SECOND, Vec::new());
        demand.refused(2, 1 << 60);
        for _ in 0..8 {
            assert_eq!(wanted(&demand, 64 << 20, 0b1, now), Some(1));
            demand.refused(1, now);
            let refused_at = now;
            while wanted(&demand, 64 << 20, 0b1, now + SECOND).is_none() {
                now += SECOND;
            }
            // What was just asked for is refused at the beginning of the next round.
            demand.end(1, |place| place.not_before.store(0, Ordering::Relaxed));
            now += 2 * SECOND;
            pauses.push((now - SECOND - refused_at) / SECOND);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        demand.made(1);
        demand.refused(1, now);
        assert_eq!(wanted(&demand, 64 << 20, 0b1, now + SECOND), Some(1), "it was made in between");
    }
}
