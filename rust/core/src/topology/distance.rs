//! How far two devices are from each other.

use std::fmt;

use super::PciPlace;

/// The class of the path between two devices, nearest first. The names in parentheses are those of GPU tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// The same device (LOC).
    Same,
    /// At most one PCI switch (PIX).
    Switch,
    /// Several PCI switches below one root port (PXB).
    Switches,
    /// One PCI host bridge (PHB).
    HostBridge,
    /// The host bridges of one NUMA node (NODE).
    Node,
    /// The link between NUMA nodes (SYS).
    System,
    /// The place of one of the two is not known.
    Unknown,
}

impl Distance {
    /// The short name that GPU tools print.
    pub fn short(self) -> &'static str {
        match self {
            Self::Same => "LOC",
            Self::Switch => "PIX",
            Self::Switches => "PXB",
            Self::HostBridge => "PHB",
            Self::Node => "NODE",
            Self::System => "SYS",
            Self::Unknown => "?",
        }
    }
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same device",
            Self::Switch => "one PCI switch",
            Self::Switches => "several PCI switches",
            Self::HostBridge => "PCI host bridge",
            Self::Node => "same NUMA node",
            Self::System => "across NUMA nodes",
            Self::Unknown => "place not known",
        })
    }
}

/// Steps below the common bridge that still count as one switch: a switch shows as a port per device.
const WITHIN_SWITCH: usize = 2;

/// The distance between two places. `one_node`: the machine has no more than one NUMA node.
pub fn distance(a: &PciPlace, b: &PciPlace, one_node: bool) -> Distance {
    let common = a.common(b);
    let (below_a, below_b) = (a.steps.len() - common, b.steps.len() - common);
    match common {
        0 => between_nodes(a.node, b.node, one_node && !a.steps.is_empty() && !b.steps.is_empty()),
        _ if below_a == 0 && below_b == 0 => Distance::Same,
        // Only the host bridge in common.
        1 => Distance::HostBridge,
        _ if below_a <= WITHIN_SWITCH && below_b <= WITHIN_SWITCH => Distance::Switch,
        _ => Distance::Switches,
    }
}

/// The distance of two NUMA nodes.
pub(super) fn between_nodes(a: Option<u32>, b: Option<u32>, one_node: bool) -> Distance {
    match (a, b) {
        (Some(a), Some(b)) if a == b => Distance::Node,
        (Some(_), Some(_)) => Distance::System,
        _ if one_node => Distance::Node,
        _ => Distance::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Sysfs;
    use super::*;

    const ROOT: &str = "/sys/devices/pci0000:17/0000:17:01.0";

    fn place(path: &str, node: Option<u32>) -> PciPlace {
        PciPlace { node, ..PciPlace::read(&Sysfs::at("/nonexistent"), Path::new(path)) }
    }

    fn between(a: &str, b: &str, nodes: [Option<u32>; 2], one_node: bool) -> Distance {
        let (a, b) = (place(a, nodes[0]), place(b, nodes[1]));
        let there = distance(&a, &b, one_node);
        assert_eq!(there, distance(&b, &a, one_node));
        there
    }

    #[test]
    fn nearest_first() {
        let gpu = &format!("{ROOT}/0000:18:00.0/0000:19:00.0/0000:1a:00.0");
        let cases = [
            (gpu.clone(), Distance::Same),
            (format!("{ROOT}/0000:18:00.0/0000:19:01.0/0000:1b:00.0"), Distance::Switch),
            (format!("{ROOT}/0000:18:00.0/0000:19:00.0/0000:1a:00.1"), Distance::Switch),
            (
                format!("{ROOT}/0000:18:00.0/0000:19:02.0/0000:30:00.0/0000:31:00.0/0000:32:00.0"),
                Distance::Switches,
            ),
            (format!("{ROOT}/0000:40:00.0"), Distance::Switches),
            ("/sys/devices/pci0000:17/0000:17:02.0/0000:50:00.0".to_owned(), Distance::HostBridge),
        ];
        for (nic, expected) in cases {
            assert_eq!(between(gpu, &nic, [Some(0), Some(0)], false), expected, "{nic}");
        }
        assert!(Distance::Switch < Distance::System && Distance::System < Distance::Unknown);
    }

    #[test]
    fn below_different_host_bridges_numa_nodes_decide() {
        let (a, b) = ("/sys/devices/pci0000:17/0000:17:01.0", "/sys/devices/pci0000:3a/0000:3a:01.0");
        for (nodes, one_node, expected) in [
            ([Some(1), Some(1)], false, Distance::Node),
            ([Some(0), Some(1)], false, Distance::System),
            ([None, Some(1)], false, Distance::Unknown),
            ([None, None], false, Distance::Unknown),
            ([None, None], true, Distance::Node),
        ] {
            assert_eq!(between(a, b, nodes, one_node), expected, "{nodes:?} {one_node}");
        }
    }

    #[test]
    fn devices_without_a_place() {
        let gpu = format!("{ROOT}/0000:18:00.0");
        for one_node in [false, true] {
            assert_eq!(between(&gpu, "/sys/devices/virtual/net/lo", [None; 2], one_node), Distance::Unknown);
            assert_eq!(between("", "", [None; 2], one_node), Distance::Unknown);
        }
        let virtio = format!("{ROOT}/0000:18:00.0/virtio2/net/eth0");
        assert_eq!(between(&gpu, &virtio, [None; 2], false), Distance::Same);
    }
}
