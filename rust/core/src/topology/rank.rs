//! Which NIC is used for memory at a place: a pure function over the machine.

use std::cmp::Reverse;
use std::fmt;

use super::distance::between_nodes;
use super::{Distance, HostTopology, Nic, NicMap, natural_order};

/// Where the memory is that a NIC is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryPlace {
    /// On the GPU with this number.
    Gpu(i32),
    /// In host memory, of a NUMA node if that is known.
    Host(Option<u32>),
}

/// A NIC with its path to the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in [`HostTopology::nics`].
    pub nic: usize,
    /// The class of the path.
    pub distance: Distance,
    /// What the path carries, in Mbit/s.
    pub mbps: u32,
}

/// The chosen NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its place in [`HostTopology::nics`].
    pub nic: usize,
    /// Why it is this one.
    pub reason: Reason,
}

/// Why a NIC is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The operator's map names it.
    Map,
    /// It has the number of the GPU, as `FLAGCX_P2P_DEST_DEV_AFFINITY` asks.
    Rail,
    /// The path to it is the best.
    Best(Candidate),
    /// So many are equally good, and the GPUs are spread over them.
    OneOf(usize, Candidate),
}

impl MemoryPlace {
    /// The number of the GPU, if it is one.
    pub fn gpu(self) -> Option<i32> {
        match self {
            Self::Gpu(gpu) => Some(gpu),
            Self::Host(_) => None,
        }
    }
}

impl HostTopology {
    /// The NICs for memory at `place`, best first: by class, then by what the path carries, physical functions before virtual ones,
    /// then in the order of their names. It does not depend on the order in which the machine lists them.
    pub fn rank(&self, place: MemoryPlace) -> Vec<Candidate> {
        let mut ranked: Vec<_> =
            self.nics.iter().enumerate().map(|(at, nic)| (self.candidate(place, at, nic), nic)).collect();
        ranked.sort_by(|(a, nic_a), (b, nic_b)| {
            rank_of(a, nic_a)
                .cmp(&rank_of(b, nic_b))
                .then_with(|| natural_order(&nic_a.name, &nic_b.name))
                .then(nic_a.port.cmp(&nic_b.port))
        });
        ranked.into_iter().map(|(candidate, _)| candidate).collect()
    }

    /// The NIC for memory at `place`; `None` only without NICs.
    ///
    /// `map` wins. Else it is the best of [`HostTopology::rank`]; among equals the GPUs of a machine are spread: entry GPU number modulo
    /// their number, with the bits of the number mirrored when that is a power of two, so that neighbouring GPUs use NICs far
    /// from each other, as the original engine does. On a flat machine ([`HostTopology::is_flat`]) GPUs have the equals in order.
    pub fn choose(&self, place: MemoryPlace, map: &NicMap) -> Option<Choice> {
        self.choose_without(place, map, &[])
    }

    /// [`HostTopology::choose`] without NICs that turned out to be unusable, by their places in [`HostTopology::nics`]. They keep their
    /// places among equals, so that the GPUs of the others have the same NICs as before; a GPU of theirs has the next one.
    pub fn choose_without(&self, place: MemoryPlace, map: &NicMap, unusable: &[usize]) -> Option<Choice> {
        let (ranked, is_usable) = (self.rank(place), |nic: usize| !unusable.contains(&nic));
        if let Some(entry) = place.gpu().and_then(|gpu| map.of_gpu(gpu)) {
            let named =
                |candidate: &&Candidate| self.nics.get(candidate.nic).is_some_and(|nic| entry.names(nic));
            if let Some(candidate) = ranked.iter().filter(named).find(|candidate| is_usable(candidate.nic)) {
                return Some(Choice { nic: candidate.nic, reason: Reason::Map });
            }
        }
        let class = |candidate: &Candidate| Some(rank_of(candidate, self.nics.get(candidate.nic)?));
        // Those behind are not looked at while one of the best can be used.
        let mut rest = ranked.as_slice();
        loop {
            let best = class(rest.first()?);
            let count = rest.iter().take_while(|candidate| class(candidate) == best).count();
            let (equals, behind) = rest.split_at(count);
            let index = place.gpu().and_then(|gpu| usize::try_from(gpu).ok()).unwrap_or(0);
            let at = if self.is_flat() { index % count.max(1) } else { spread(index, count) };
            let (before, from) = equals.split_at_checked(at)?;
            if let Some(chosen) = from.iter().chain(before).find(|candidate| is_usable(candidate.nic)) {
                let reason = if count == 1 { Reason::Best(*chosen) } else { Reason::OneOf(count, *chosen) };
                return Some(Choice { nic: chosen.nic, reason });
            }
            rest = behind;
        }
    }

    /// The NICs that memory at `place` is registered with: all that are as good as the best one, by class and by what the path
    /// carries, and the next one, as a spare. By their places in [`HostTopology::nics`], best first; none of the `unusable` ones.
    pub fn near_and_spare(&self, place: MemoryPlace, unusable: &[usize]) -> Vec<usize> {
        let mut ranked = self.rank(place);
        ranked.retain(|candidate| !unusable.contains(&candidate.nic));
        let path = |candidate: &Candidate| (candidate.distance, candidate.mbps);
        let best = ranked.first().map(path);
        let near = ranked.iter().take_while(|candidate| Some(path(candidate)) == best).count();
        ranked.iter().take(near + 1).map(|candidate| candidate.nic).collect()
    }

    /// The NIC with the number of the GPU: the same one, so the same rail of the fabric, on every host.
    pub fn on_rail(&self, gpu: i32) -> Option<Choice> {
        let mut by_name: Vec<_> = self.nics.iter().enumerate().collect();
        by_name.sort_by(|(_, a), (_, b)| natural_order(&a.name, &b.name).then(a.port.cmp(&b.port)));
        let number = usize::try_from(gpu).unwrap_or(0).checked_rem(by_name.len())?;
        by_name.get(number).map(|(nic, _)| Choice { nic: *nic, reason: Reason::Rail })
    }

    /// The path from a GPU to a NIC, and that to the best one that is not `unusable`, if that is nearer.
    pub fn nearer(&self, gpu: i32, nic: usize, unusable: &[usize]) -> Option<(Candidate, Candidate)> {
        let ranked = self.rank(MemoryPlace::Gpu(gpu));
        let used = *ranked.iter().find(|candidate| candidate.nic == nic)?;
        let best = *ranked.iter().find(|candidate| !unusable.contains(&candidate.nic))?;
        (best.distance < used.distance).then_some((used, best))
    }

    fn candidate(&self, place: MemoryPlace, at: usize, nic: &Nic) -> Candidate {
        let (distance, mbps) = match place {
            MemoryPlace::Gpu(index) => match self.gpu(index) {
                Some(gpu) => (self.distance(gpu, nic), self.path_mbps(gpu, nic)),
                None => (Distance::Unknown, own_mbps(nic)),
            },
            MemoryPlace::Host(node) => {
                let one_node = self.has_one_node() && !nic.place.steps.is_empty();
                let distance = between_nodes(node, nic.place.node, one_node);
                let socket = self.socket_mbps.filter(|_| distance == Distance::System);
                (distance, own_mbps(nic).min(socket.unwrap_or(u32::MAX)))
            }
        };
        Candidate { nic: at, distance, mbps }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map => f.write_str("the map names it"),
            Self::Rail => f.write_str("it has the number of the GPU (FLAGCX_P2P_DEST_DEV_AFFINITY)"),
            Self::Best(best) => write!(f, "the best path: {best}"),
            Self::OneOf(equals, each) => {
                write!(f, "one of {equals} equal paths, over which GPUs are spread: {each}")
            }
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} Gbit/s", self.distance, self.mbps / 1000)
    }
}

/// Smaller is better.
fn rank_of(candidate: &Candidate, nic: &Nic) -> (Distance, Reverse<u32>, bool) {
    (candidate.distance, Reverse(candidate.mbps), nic.is_virtual)
}

/// What the port and its PCI links carry.
fn own_mbps(nic: &Nic) -> u32 {
    nic.place.slowest_below(0).map_or(nic.speed_mbps, |link| link.min(nic.speed_mbps))
}

/// Maps `index` to one of `count` entries.
fn spread(index: usize, count: usize) -> usize {
    if !count.is_power_of_two() {
        return index.checked_rem(count).unwrap_or(0);
    }
    let bits = count.trailing_zeros();
    (0..bits).filter(|bit| index >> bit & 1 == 1).map(|bit| 1 << (bits - 1 - bit)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_mirrored() {
        assert_eq!((0..8).map(|index| spread(index, 8)).collect::<Vec<_>>(), [0, 4, 2, 6, 1, 5, 3, 7]);
        assert_eq!((0..6).map(|index| spread(index, 4)).collect::<Vec<_>>(), [0, 2, 1, 3, 0, 2]);
        assert_eq!((0..4).map(|index| spread(index, 2)).collect::<Vec<_>>(), [0, 1, 0, 1]);
        assert_eq!((0..4).map(|index| spread(index, 1)).collect::<Vec<_>>(), [0; 4]);
        assert_eq!((0..5).map(|index| spread(index, 3)).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
        assert_eq!(spread(7, 0), 0);
    }

    #[test]
    fn every_entry_is_used() {
        for count in 1..40 {
            let mut used: Vec<_> = (0..count).map(|index| spread(index, count)).collect();
            used.sort_unstable();
            assert_eq!(used, (0..count).collect::<Vec<_>>());
        }
    }
}
