//! Where a PCI device is: the bridges above it, with the links between them.

use std::path::Path;

use super::Sysfs;

/// The place of a device. The default is that of a device of which nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciPlace {
    /// The host bridge (`pci0000:17`) and the PCI devices below it, the device itself last. Empty for other devices.
    pub steps: Vec<PciStep>,
    /// Its NUMA node, where the machine has some and says so.
    pub node: Option<u32>,
}

/// A step on the way from the host bridge to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciStep {
    /// `pci0000:17`, `0000:17:01.0`.
    pub name: String,
    /// What its link can carry in one direction, in Mbit/s, where the kernel says so.
    pub link_mbps: Option<u32>,
}

impl PciPlace {
    /// The place of the device at a resolved path of `sysfs`. Devices of other buses have that of the PCI device that they sit on.
    pub fn read(sysfs: &Sysfs, path: &Path) -> Self {
        let mut steps: Vec<PciStep> = Vec::new();
        let mut at = std::path::PathBuf::new();
        for component in path.components() {
            at.push(component);
            let Some(name) = component.as_os_str().to_str() else { continue };
            if steps.is_empty() && is_host_bridge(name) {
                steps.push(PciStep { name: name.to_owned(), link_mbps: None });
            } else if !steps.is_empty() && is_pci_address(name) {
                steps.push(PciStep { name: name.to_owned(), link_mbps: sysfs.link_mbps(&at) });
            } else if !steps.is_empty() {
                break;
            }
        }
        Self { steps, node: sysfs.numa_node(path) }
    }

    /// How many steps from the host bridge on both have in common.
    pub(super) fn common(&self, other: &Self) -> usize {
        self.steps.iter().zip(&other.steps).take_while(|(a, b)| a.name == b.name).count()
    }

    /// The slowest link of the steps below the first `common`.
    pub(super) fn slowest_below(&self, common: usize) -> Option<u32> {
        self.steps.iter().skip(common).filter_map(|step| step.link_mbps).min()
    }
}

/// `pci0000:17`.
fn is_host_bridge(name: &str) -> bool {
    name.strip_prefix("pci").is_some_and(|rest| rest.contains(':'))
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

    #[test]
    fn steps_are_the_host_bridge_and_the_pci_devices() {
        let steps = |path: &str| {
            let place = PciPlace::read(&Sysfs::at("/nonexistent"), Path::new(path));
            place.steps.into_iter().map(|step| step.name).collect::<Vec<_>>()
        };
        assert_eq!(
            steps("/sys/devices/pci0000:17/0000:17:01.0/0000:18:00.0/virtio2/net/eth0"),
            ["pci0000:17", "0000:17:01.0", "0000:18:00.0"]
        );
        let hyper_v =
            "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/47505500/pci0001:00/0001:00:00.0";
        assert_eq!(steps(hyper_v), ["pci0001:00", "0001:00:00.0"]);
        assert_eq!(steps("/sys/devices/virtual/net/lo"), [""; 0]);
        assert_eq!(steps(""), [""; 0]);
    }
}
