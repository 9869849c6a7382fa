//! Which rails a transfer uses, and with which shares.

use super::MAX_RAILS;
use super::load::{RailLoad, nanos};

/// A set of rails, by their places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailSet(
    /// Bit `n` stands for rail `n`.
    pub u8,
);

impl RailSet {
    /// All of the first `count`.
    pub const fn first(count: usize) -> Self {
        Self(if count >= MAX_RAILS { u8::MAX } else { (1 << count) - 1 })
    }

    /// This set and a rail; a number of `MAX_RAILS` or more changes nothing.
    #[must_use]
    pub const fn with(self, rail: usize) -> Self {
        Self(if rail < MAX_RAILS { self.0 | 1 << rail } else { self.0 })
    }

    /// Whether a rail is in it.
    pub const fn has(self, rail: usize) -> bool {
        rail < MAX_RAILS && self.0 >> rail & 1 == 1
    }
}

/// What a plan has to know of a transfer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bytes of all its iovs.
    pub bytes: u64,
    /// The rails that have keys for its memory at both ends.
    pub eligible: RailSet,
    /// The rail that its buffer used last.
    pub home: Option<u8>,
    /// Where to begin among rails that are equally good: another number for other buffers.
    pub spread: u32,
}

/// When a plan uses several rails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// A transfer of fewer bytes goes over one rail.
    pub one_rail_below: u64,
    /// Bytes that a share must at least have.
    pub least_share: u64,
    /// A connection with so many bytes under way for each rail that it has makes a further one; see [`wanted_rail`](super::wanted_rail).
    pub rail_from: u64,
}

impl Default for PlanLimits {
    /// As long as a lane's part must at least be, `transfer::Spread::over_device`: a second rail costs what a second lane does.
    fn default() -> Self {
        Self { one_rail_below: 512 << 10, least_share: 256 << 10, rail_from: 4 << 20 }
    }
}

/// A share of a transfer: from `start` to `end` of every long iov, in 65,536ths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RailShare {
    /// Which rail.
    pub rail: u8,
    start: u32,
    end: u32,
}

/// The whole of a transfer, in the units of shares.
const WHOLE: u32 = 1 << 16;

impl RailShare {
    /// Where part `part` of `of` equal parts of this share begins and ends, in 65,536ths of the transfer.
    pub fn part(&self, part: u32, of: u32) -> (u32, u32) {
        let at = |part: u32| {
            self.start + (u64::from(self.end - self.start) * u64::from(part) / u64::from(of.max(1))) as u32
        };
        (at(part), at(part + 1))
    }

    /// Offset and length of this share of `length` bytes, or of so many iovs. The shares of one plan tile any length.
    #[inline]
    pub fn of(&self, length: u64) -> (u64, u64) {
        let at = |bound: u32| (u128::from(length) * u128::from(bound) / u128::from(WHOLE)) as u64;
        (at(self.start), at(self.end) - at(self.start))
    }
}

/// The shares of one transfer, in the order of rails, none of them empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct RailPlan {
    shares: [RailShare; MAX_RAILS],
    count: usize,
}

impl RailPlan {
    /// Everything over one rail.
    pub fn one(rail: usize) -> Self {
        let mut plan = Self::default();
        plan.push(rail, 0, WHOLE);
        plan
    }

    /// The shares; none if no rail can be used now.
    pub fn shares(&self) -> &[RailShare] {
        self.shares.get(..self.count).unwrap_or(&[])
    }

    fn push(&mut self, rail: usize, start: u32, end: u32) {
        if let Some(place) = self.shares.get_mut(self.count).filter(|_| end > start) {
            *place = RailShare { rail: rail as u8, start, end };
            self.count += 1;
        }
    }
}

/// Plans a transfer over rails, of which `loads` has the load of rail `n` at `n`.
///
/// The shares are such that all of them end at the same time, which is the earliest possible one, as far as loads tell. A rail that
/// is not up gets nothing; one without credits only if all are without.
///
/// Of a connection with up to eight rails it takes about as long as a look at their counters, and it allocates nothing.
pub fn plan(shape: &Shape, loads: &[RailLoad], limits: &PlanLimits) -> RailPlan {
    let mut candidates = Candidates::default();
    candidates.collect(shape, loads, |load| load.credits > 0);
    if candidates.count == 0 {
        candidates.collect(shape, loads, |_| true);
    }
    let most = usize::try_from(shape.bytes / limits.least_share.max(1)).unwrap_or(usize::MAX);
    if candidates.count <= 1 || shape.bytes < limits.one_rail_below || most <= 1 {
        return candidates.best(shape).map_or_else(RailPlan::default, RailPlan::one);
    }
    candidates.fill(shape.bytes, most, limits.least_share)
}

/// The rails that a transfer may use.
#[derive(Default)]
struct Candidates {
    rails: [Candidate; MAX_RAILS],
    count: usize,
}

#[derive(Clone, Copy, Default)]
struct Candidate {
    rail: usize,
    ready: u64,
    rate: u64,
    /// Bytes per nanosecond.
    per_nano: f64,
}

impl Candidates {
    fn collect(&mut self, shape: &Shape, loads: &[RailLoad], takes: impl Fn(&RailLoad) -> bool) {
        for (rail, load) in loads.iter().enumerate().take(MAX_RAILS) {
            if load.up
                && shape.eligible.has(rail)
                && takes(load)
                && let Some(place) = self.rails.get_mut(self.count)
            {
                let rate = load.rate.max(1);
                *place = Candidate { rail, ready: load.ready, rate, per_nano: rate as f64 * 1e-9 };
                self.count += 1;
            }
        }
    }

    fn all(&self) -> &[Candidate] {
        self.rails.get(..self.count).unwrap_or(&[])
    }

    /// The rail on which the transfer ends first; its buffer's own if that is about as good.
    fn best(&self, shape: &Shape) -> Option<usize> {
        let finish =
            |candidate: &Candidate| candidate.ready.saturating_add(nanos(shape.bytes, candidate.rate));
        let distance = |rail: usize| (rail + MAX_RAILS - shape.spread as usize % MAX_RAILS) % MAX_RAILS;
        let best = self.all().iter().min_by_key(|candidate| (finish(candidate), distance(candidate.rail)))?;
        let home = self.all().iter().find(|candidate| Some(candidate.rail as u8) == shape.home);
        let slack = finish(best) / ABOUT;
        let chosen = home.filter(|home| finish(home) <= finish(best).saturating_add(slack)).unwrap_or(best);
        Some(chosen.rail)
    }

    /// Shares by which all rails that get one end at the same time: those that are ready first get one first.
    fn fill(mut self, bytes: u64, most: usize, least: u64) -> RailPlan {
        self.even_out(bytes);
        if let Some(rails) = self.rails.get_mut(..self.count) {
            rails.sort_unstable_by_key(|candidate| (candidate.ready, candidate.rail));
        }
        let (used, level) = self.level(bytes, most, least);
        if let Some(rails) = self.rails.get_mut(..used) {
            rails.sort_unstable_by_key(|candidate| candidate.rail);
        }
        let (mut plan, mut start, mut sum) = (RailPlan::default(), 0, 0.0);
        for (number, candidate) in self.all().iter().take(used).enumerate() {
            sum += share(candidate, level);
            let end = if number + 1 == used { WHOLE } else { bound(sum / bytes.max(1) as f64) };
            plan.push(candidate.rail, start, end);
            start = end.max(start);
        }
        plan
    }

    /// Takes rails for equally loaded that differ by little beside the transfer: then the shares of equal transfers are equal,
    /// and the same bytes of a buffer go over the same rail each time.
    fn even_out(&mut self, bytes: u64) {
        let rate: u64 = self.all().iter().fold(0, |sum, candidate| sum.saturating_add(candidate.rate));
        let ready = self.all().iter().map(|candidate| candidate.ready);
        let (Some(first), Some(last)) = (ready.clone().min(), ready.max()) else { return };
        if last - first > nanos(bytes, rate) / ABOUT {
            return;
        }
        let fastest = self.all().iter().map(|candidate| candidate.rate).max().unwrap_or(1);
        for candidate in self.rails.iter_mut().take(self.count) {
            candidate.ready = first;
            if fastest - candidate.rate <= fastest / ABOUT {
                (candidate.rate, candidate.per_nano) = (fastest, fastest as f64 * 1e-9);
            }
        }
    }

    /// How many rails, in the order of when they are ready, move the transfer together, at most `most`, such that each moves at least
    /// `least` bytes; and when they have done so.
    fn level(&self, bytes: u64, most: usize, least: u64) -> (usize, f64) {
        // For each number of rails: bytes that they would have moved by now if they had never been late, and their rate.
        let mut sums = [(0.0, 0.0); MAX_RAILS];
        let mut sum = (bytes as f64, 0.0);
        for (candidate, place) in self.all().iter().zip(&mut sums) {
            sum = (sum.0 + candidate.ready as f64 * candidate.per_nano, sum.1 + candidate.per_nano);
            *place = sum;
        }
        let mut chosen = (1, 0.0);
        for (number, (moved, rate)) in sums.iter().enumerate().take(self.count.min(most)).rev() {
            chosen = (number + 1, moved / rate);
            let mut rails = self.all().iter().take(chosen.0);
            if rails.all(|candidate| share(candidate, chosen.1) >= least as f64) {
                break;
            }
        }
        chosen
    }
}

/// Loads that differ by less than this fraction of a transfer's time are equal: an eighth.
const ABOUT: u64 = 8;

/// The bytes that a rail moves from when it is ready until `level`.
fn share(candidate: &Candidate, level: f64) -> f64 {
    (level - candidate.ready as f64) * candidate.per_nano
}

fn bound(fraction: f64) -> u32 {
    ((fraction * f64::from(WHOLE)).round() as u32).min(WHOLE)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
