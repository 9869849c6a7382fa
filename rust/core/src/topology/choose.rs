//! Which NIC an engine uses for its GPU.

use std::path::{Path, PathBuf};

use super::{Distance, Sysfs, distance};

/// A NIC to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Resolved sysfs path, if it has one.
    pub pci_path: Option<PathBuf>,
    /// Port speed in Mbit/s.
    pub speed_mbps: u32,
}

/// The index of the NIC for GPU number `gpu_index`; `None` only without NICs.
///
/// The same rule as the original engine: the greatest bandwidth towards the GPU at `gpu_path`, then the nearest, and
/// among equals the GPUs of a machine are spread: entry `gpu_index` modulo their number, with the bits of the index
/// mirrored when that number is a power of two, so that neighbouring GPUs use NICs far from each other.
/// Without `gpu_path` (host memory, or a GPU with an unknown path) every NIC is equally near.
pub fn choose_nic(sysfs: &Sysfs, gpu_path: Option<&Path>, gpu_index: i32, nics: &[Nic]) -> Option<usize> {
    let ranks: Vec<_> = nics.iter().map(|nic| rank(sysfs, gpu_path, nic)).collect();
    let best = ranks.iter().max()?;
    let equals: Vec<_> =
        ranks.iter().enumerate().filter(|(_, rank)| *rank == best).map(|(at, _)| at).collect();
    let index = usize::try_from(gpu_index).unwrap_or(0);
    equals.get(spread(index, equals.len())).copied()
}

/// Greater is better: bandwidth first, then nearness.
fn rank(sysfs: &Sysfs, gpu: Option<&Path>, nic: &Nic) -> (u32, std::cmp::Reverse<Distance>) {
    let path = nic.pci_path.as_deref();
    let links = [gpu, path].into_iter().flatten().filter_map(|path| sysfs.link_mbps(path));
    let bandwidth = links.fold(nic.speed_mbps, u32::min);
    let distance = match (gpu, path) {
        (Some(gpu), Some(nic)) => {
            let node = sysfs.numa_node(gpu);
            distance(gpu, nic, node.is_some() && node == sysfs.numa_node(nic))
        }
        _ => Distance::System,
    };
    (bandwidth, std::cmp::Reverse(distance))
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
