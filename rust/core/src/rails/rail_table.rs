//! The machines of a connection's rails together.

use super::machine::{RailAction, RailMachine};
use super::silence::RailCounts;
use super::state::RailLimits;
use super::{MAX_RAILS, RailSet};

/// The rails of one connection, each with its machine.
#[derive(Clone, Debug)]
pub struct RailTable {
    machines: [Option<RailMachine>; MAX_RAILS],
    limits: RailLimits,
}

impl RailTable {
    /// None yet.
    pub fn new(limits: RailLimits) -> Self {
        Self { machines: [const { None }; MAX_RAILS], limits }
    }

    /// A rail with this number was made. False, and nothing is done, if it is `MAX_RAILS` or more, or in use.
    pub fn add(&mut self, rail: usize, now: u64) -> bool {
        match self.machines.get_mut(rail) {
            Some(place @ None) => {
                *place = Some(RailMachine::new(self.limits, now));
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
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| machine.as_ref().is_some_and(RailMachine::is_up))
            .fold(RailSet::default(), |set, (rail, _)| set.with(rail))
    }

    /// Looks at the counters of all rails: `counts` has those of rail `n` at `n`. Then handles the deadlines that have passed.
    pub fn look(&mut self, now: u64, counts: &[RailCounts; MAX_RAILS]) {
        // Two rails that progress: for each of them the other is one of "the others".
        let progressed = self.progressed(now, counts);
        for ((rail, machine), counts) in self.machines.iter_mut().enumerate().zip(counts) {
            let Some(machine) = machine else { continue };
            let others = progressed.iter().enumerate().filter(|(other, _)| *other != rail);
            let others = others.map(|(_, at)| *at).max().unwrap_or(0);
            machine.look(now, *counts, others);
            machine.timeout(now);
        }
        self.ask_witness(now, counts, &progressed);
    }

    /// A rail is silent while all others have nothing to do: the first of those is asked, which tells a silent rail from a silent peer.
    fn ask_witness(&mut self, now: u64, counts: &[RailCounts; MAX_RAILS], progressed: &[u64; MAX_RAILS]) {
        let needs = |(rail, machine): (usize, &Option<RailMachine>)| {
            let others = progressed.iter().enumerate().filter(|(other, _)| *other != rail).map(|(_, at)| *at);
            machine.as_ref().is_some_and(|machine| machine.needs_witness(now, others.max().unwrap_or(0)))
        };
        if !self.machines.iter().enumerate().any(needs) {
            return;
        }
        let idle = self.machines.iter_mut().zip(counts).filter(|(_, counts)| counts.in_flight == 0);
        let witness = idle.filter_map(|(machine, _)| machine.as_mut()).find(|machine| machine.is_up());
        if let Some(witness) = witness {
            witness.measure(now);
        }
    }

    /// When each rail that is up progressed last, this look included: of one that is left, what was under way is flushed.
    fn progressed(&self, now: u64, counts: &[RailCounts; MAX_RAILS]) -> [u64; MAX_RAILS] {
        let mut progressed = [0; MAX_RAILS];
        for ((at, machine), counts) in progressed.iter_mut().zip(&self.machines).zip(counts) {
            let up = machine.as_ref().filter(|machine| machine.is_up());
            *at = up.map_or(0, |machine| machine.progress_seen_by(now, *counts));
        }
        progressed
    }

    /// The earliest deadline: when to look again.
    pub fn deadline(&self) -> Option<u64> {
        self.machines.iter().flatten().filter_map(RailMachine::deadline).min()
    }

    /// The next thing to do, and for which rail.
    pub fn next_action(&mut self) -> Option<(usize, RailAction)> {
        let machines = self.machines.iter_mut().enumerate();
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

    #[test]
    fn there_are_as_many_places_as_rails() {
        let mut all = rails(MAX_RAILS);
        assert!(!all.add(0, 0) && !all.add(MAX_RAILS, 0));
        assert!(all.get(MAX_RAILS).is_none());
        assert_eq!(all.up(), RailSet::first(MAX_RAILS));
    }
}
