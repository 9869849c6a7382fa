//! The machines of a connection's rails together.

use super::machine::{RailAction, RailMachine};
use super::silence::RailCounts;
use super::state::RailLimits;
use super::{MAX_RAILS, RailSet};

/// The rails of one connection, each with its machine.
#[derive(Clone, Debug)]
pub struct RailTable {
    machines: [Option<RailMachine>; MAX_RAILS],
    /// The highest number of a rail that is made, and one more: a look touches no memory behind.
    places: usize,
    limits: RailLimits,
}

impl RailTable {
    /// None yet.
    pub fn new(limits: RailLimits) -> Self {
        Self { machines: [const { None }; MAX_RAILS], places: 0, limits }
    }

    /// A rail with this number was made. False, and nothing is done, if it is `MAX_RAILS` or more, or in use.
    pub fn add(&mut self, rail: usize, now: u64) -> bool {
        match self.machines.get_mut(rail) {
            Some(place @ None) => {
                *place = Some(RailMachine::new(self.limits, now));
                self.places = self.places.max(rail + 1);
                true
            }
            _ => false,
        }
    }

    /// The machine of a rail.
    pub fn get(&self, rail: usize) -> Option<&RailMachine> {
        self.machines.get(rail)?.as_ref()
    }

    /// The machine of a rail, to report something to it.
    pub fn get_mut(&mut self, rail: usize) -> Option<&mut RailMachine> {
        self.machines.get_mut(rail)?.as_mut()
    }

    /// The rails that take parts.
    #[inline]
    pub fn up(&self) -> RailSet {
        let machines = self.machines.iter().take(self.places).enumerate();
        machines
            .filter(|(_, machine)| machine.as_ref().is_some_and(RailMachine::is_up))
            .fold(RailSet::default(), |set, (rail, _)| set.with(rail))
    }

    /// Looks at the counters of all rails: `counts` has those of rail `n` at `n`. Then handles the deadlines that have passed.
    pub fn look(&mut self, now: u64, counts: &[RailCounts; MAX_RAILS]) {
        // Two rails that progress: for each of them the other is one of "the others".
        let progressed = self.progressed(now, counts);
        for ((rail, machine), counts) in self.machines.iter_mut().take(self.places).enumerate().zip(counts) {
            let Some(machine) = machine else { continue };
            let others = progressed.iter().enumerate().filter(|(other, _)| *other != rail);
            let others = others.map(|(_, at)| *at).max().unwrap_or(0);
            machine.look(now, *counts, others);
            machine.timeout(now);
        }
        self.call_witness(now, counts);
    }

    /// A rail is silent: those that have nothing to complete are asked whether the peer is there, all of them, for one may be about to fail
    /// as well. Where all have something, they tell by what they complete.
    fn call_witness(&mut self, now: u64, counts: &[RailCounts; MAX_RAILS]) {
        if !self.machines.iter().take(self.places).flatten().any(|machine| machine.wants_witness(now)) {
            return;
        }
        let machines = self.machines.iter_mut().take(self.places).zip(counts);
        let idle =
            machines.filter(|(_, counts)| counts.in_flight == 0).filter_map(|(machine, _)| machine.as_mut());
        idle.for_each(|machine| machine.call_as_witness(now));
    }

    /// When each rail that is up progressed last, this look included: of one that is left, what was under way is flushed.
    fn progressed(&self, now: u64, counts: &[RailCounts; MAX_RAILS]) -> [u64; MAX_RAILS] {
        let mut progressed = [0; MAX_RAILS];
        for ((at, machine), counts) in
            progressed.iter_mut().zip(self.machines.iter().take(self.places)).zip(counts)
        {
            let up = machine.as_ref().filter(|machine| machine.is_up());
            *at = up.map_or(0, |machine| machine.sign_seen_by(now, *counts));
        }
        progressed
    }

    /// The earliest deadline: when to look again.
    pub fn deadline(&self) -> Option<u64> {
        self.machines.iter().take(self.places).flatten().filter_map(RailMachine::deadline).min()
    }

    /// The next thing to do, and for which rail.
    pub fn next_action(&mut self) -> Option<(usize, RailAction)> {
        let machines = self.machines.iter_mut().take(self.places).enumerate();
        machines.filter_map(|(rail, machine)| Some((rail, machine.as_mut()?.next_action()?))).next()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MILLISECOND, PauseReason, RailState};
    use super::*;

    /// Rails that have so much to do and complete one request a look, but for those in `silent`.
    fn look_until(
        rails: &mut RailTable,
        count: u64,
        silent: RailSet,
        end: u64,
    ) -> Vec<(u64, usize, RailAction)> {
        let (mut done, mut now) = (Vec::new(), 0);
        while now < end {
            now += MILLISECOND / 2;
            let mut counts = [RailCounts::default(); MAX_RAILS];
            for (rail, counts) in counts.iter_mut().enumerate().take(count as usize) {
                counts.in_flight = 9;
                counts.completions = if silent.has(rail) { 0 } else { now };
            }
            rails.look(now, &counts);
            done.extend(std::iter::from_fn(|| rails.next_action()).map(|(rail, action)| (now, rail, action)));
        }
        done
    }

    fn rails(count: usize) -> RailTable {
        let mut rails = RailTable::new(RailLimits::default());
        (0..count).for_each(|rail| assert!(rails.add(rail, 0)));
        rails
    }

    #[test]
    fn the_silent_one_of_several_is_found() {
        let mut three = rails(3);
        let done = look_until(&mut three, 3, RailSet(0b010), 6 * MILLISECOND);
        let half = MILLISECOND / 2;
        assert_eq!(
            done,
            [(5 * half, 1, RailAction::Probe(1)), (11 * half, 1, RailAction::Move(PauseReason::Silent))]
        );
        assert_eq!(three.up(), RailSet(0b101));
        assert_eq!(three.get(1).map(RailMachine::state), Some(RailState::Paused(19 * half)));
    }

    #[test]
    fn all_of_them_silent_is_none_of_them_silent() {
        let mut two = rails(2);
        assert_eq!(look_until(&mut two, 2, RailSet(0b11), 50 * MILLISECOND), []);
        let mut one = rails(1);
        assert_eq!(look_until(&mut one, 1, RailSet(0b1), 50 * MILLISECOND), []);
    }

    #[test]
    fn what_is_flushed_on_a_rail_that_was_left_is_no_sign_of_the_peer() {
        let mut two = rails(2);
        two.get_mut(0).unwrap().port_down();
        assert_eq!(two.next_action(), Some((0, RailAction::Move(PauseReason::PortDown))));
        assert_eq!(look_until(&mut two, 2, RailSet(0b10), 50 * MILLISECOND), []);
    }

    /// A transfer that is alone: rail 1 has carried its share, rail 0 ends nothing.
    fn look_at_a_share(
        rails: &mut RailTable,
        is_peer_there: bool,
        end: u64,
    ) -> Vec<(u64, usize, RailAction)> {
        let (mut done, mut now, mut answer) = (Vec::new(), 0, None);
        while now < end {
            now += MILLISECOND / 2;
            let mut counts = [RailCounts::default(); MAX_RAILS];
            (counts[0].in_flight, counts[1].completions) = (9, 4);
            if let Some(number) = answer.take().filter(|_| is_peer_there) {
                rails.get_mut(1).unwrap().answered(number, now - 1);
            }
            rails.look(now, &counts);
            for (rail, action) in std::iter::from_fn(|| rails.next_action()) {
                done.push((now, rail, action));
                if let (1, RailAction::Probe(number)) = (rail, action) {
                    answer = Some(number);
                }
            }
        }
        done
    }

    #[test]
    fn the_silent_rail_of_a_transfer_that_is_alone_is_found_by_asking_an_idle_one() {
        let mut two = rails(2);
        let done = look_at_a_share(&mut two, true, 8 * MILLISECOND);
        let of_silent: Vec<_> = done.iter().filter(|(_, rail, _)| *rail == 0).collect();
        let half = MILLISECOND / 2;
        assert_eq!(
            of_silent,
            [&(6 * half, 0, RailAction::Probe(1)), &(12 * half, 0, RailAction::Move(PauseReason::Silent))]
        );
        assert_eq!(two.up(), RailSet(0b10));
    }

    #[test]
    fn a_peer_that_answers_on_no_rail_is_silent_as_a_whole() {
        let mut two = rails(2);
        let done = look_at_a_share(&mut two, false, 50 * MILLISECOND);
        assert!(
            done.iter().all(|(_, rail, action)| *rail == 1 && matches!(action, RailAction::Probe(_))),
            "{done:?}"
        );
        assert!((10..20).contains(&done.len()), "one at a time is under way: {done:?}");
        assert_eq!(two.up(), RailSet(0b11));
    }

    #[test]
    fn there_are_as_many_places_as_rails() {
        let mut all = rails(MAX_RAILS);
        assert!(!all.add(0, 0) && !all.add(MAX_RAILS, 0));
        assert!(all.get(MAX_RAILS).is_none());
        assert_eq!(all.up(), RailSet::first(MAX_RAILS));
    }
}
