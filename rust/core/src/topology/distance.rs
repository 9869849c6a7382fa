//! How far two PCI devices are from each other, by their paths in sysfs.

use std::fmt;
use std::path::Path;

/// The path between two devices, nearest first. The names in parentheses are those of GPU tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// The same device (LOC).
    Same,
    /// At most one PCI switch (PIX).
    Switch,
    /// Several PCI switches (PXB).
    Switches,
    /// The PCI host bridge or the memory controller of one NUMA node (PHB).
    HostBridge,
    /// The link between NUMA nodes, or unknown (SYS).
    System,
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same device",
            Self::Switch => "one PCI switch",
            Self::Switches => "several PCI switches",
            Self::HostBridge => "PCI host bridge",
            Self::System => "across NUMA nodes",
        })
    }
}

/// Steps below the common bridge that still count as one switch: a switch shows as a port per device.
const WITHIN_SWITCH: usize = 2;

/// The distance between the devices at two resolved sysfs paths. `same_node`: both are known to be at one NUMA node.
pub fn distance(a: &Path, b: &Path, same_node: bool) -> Distance {
    let (a, b) = (pci_chain(a), pci_chain(b));
    let common = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (below_a, below_b) = (a.len() - common, b.len() - common);
    match common {
        0 if same_node => Distance::HostBridge,
        0 => Distance::System,
        _ if below_a == 0 && below_b == 0 => Distance::Same,
        // Only the host bridge in common.
        1 => Distance::HostBridge,
        _ if below_a <= WITHIN_SWITCH && below_b <= WITHIN_SWITCH => Distance::Switch,
        _ => Distance::Switches,
    }
}

/// The host bridge and the PCI devices of a path: `pci0000:17`, `0000:17:01.0`, ... Empty for other devices.
fn pci_chain(path: &Path) -> Vec<&str> {
    path.components()
        .filter_map(|component| component.as_os_str().to_str())
        .skip_while(|name| !name.starts_with("pci"))
        .enumerate()
        .take_while(|(depth, name)| *depth == 0 || is_pci_address(name))
        .map(|(_, name)| name)
        .collect()
}

/// `0000:17:01.0`, with a domain of four digits or more.
fn is_pci_address(name: &str) -> bool {
    let hex = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let mut parts = name.split([':', '.']);
    let all = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    matches!(all, (Some(domain), Some(bus), Some(device), Some(function), None)
        if hex(domain, 4, 8) && hex(bus, 2, 2) && hex(device, 2, 2) && hex(function, 1, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "/sys/devices/pci0000:17/0000:17:01.0";

    fn between(a: &str, b: &str, same_node: bool) -> Distance {
        let there = distance(Path::new(a), Path::new(b), same_node);
        assert_eq!(there, distance(Path::new(b), Path::new(a), same_node));
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
            ("/sys/devices/pci0000:b0/0000:b0:01.0/0000:b1:00.0".to_owned(), Distance::System),
        ];
        for (nic, expected) in cases {
            assert_eq!(between(gpu, &nic, false), expected, "{nic}");
        }
        let (a, b) = ("/sys/devices/pci0000:17/0000:17:01.0", "/sys/devices/pci0000:3a/0000:3a:01.0");
        assert_eq!(between(a, b, true), Distance::HostBridge);
        assert!(Distance::Switch < Distance::System);
    }

    #[test]
    fn other_devices_are_at_the_largest_distance() {
        let gpu = format!("{ROOT}/0000:18:00.0");
        assert_eq!(between(&gpu, "/sys/devices/virtual/net/lo", false), Distance::System);
        assert_eq!(between("", "", false), Distance::System);
        let virtio = format!("{ROOT}/0000:18:00.0/virtio2/net/eth0");
        assert_eq!(between(&gpu, &virtio, false), Distance::Same);
    }
}
