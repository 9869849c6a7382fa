//! Readers of sysfs. A missing or malformed attribute reads as `None`: virtual machines and containers show few of them.

use std::path::{Path, PathBuf};

use super::CpuSet;

/// A sysfs tree: the machine's own, or a recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The tree below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The resolved path of the hardware behind an RDMA device. Software RDMA devices give that of the network
    /// interface which they sit on.
    pub fn rdma_device_path(&self, name: &str) -> Option<PathBuf> {
        let class = self.below("class/infiniband", name)?;
        let interface = || {
            let parent = std::fs::read_to_string(class.join("parent")).ok()?;
            self.interface_path(parent.trim())
        };
        class.join("device").canonicalize().ok().or_else(interface)
    }

    /// The resolved path of the hardware behind a network interface; `None` for virtual ones.
    pub fn interface_path(&self, name: &str) -> Option<PathBuf> {
        self.below("class/net", name)?.join("device").canonicalize().ok()
    }

    /// The resolved path of a PCI device, given as GPU runtimes write it (`0000:3B:00.0`, `3B:00.0`).
    pub fn pci_path(&self, bus_id: &str) -> Option<PathBuf> {
        let lower = bus_id.trim_end_matches('\0').to_ascii_lowercase();
        let full = if lower.matches(':').count() == 1 { format!("0000:{lower}") } else { lower };
        // Some runtimes write the domain with eight digits.
        let short = full.strip_prefix("0000").filter(|rest| rest.find(':') == Some(4)).unwrap_or(&full);
        self.below("bus/pci/devices", short)?.canonicalize().ok()
    }

    /// The NUMA node of the device at `path`; `None` when the machine has none or does not report it.
    pub fn numa_node(&self, path: &Path) -> Option<u32> {
        read_upwards(path, "numa_node")?.parse().ok()
    }

    /// The CPUs near the device at `path`.
    pub fn local_cpus(&self, path: &Path) -> Option<CpuSet> {
        let list = read_upwards(path, "local_cpulist")?;
        CpuSet::parse_list(&list).ok().filter(|set| !set.is_empty())
    }

    /// What the device's PCI link carries in one direction, in Mbit/s.
    pub fn link_mbps(&self, path: &Path) -> Option<u32> {
        let speed = read_upwards(path, "current_link_speed")?;
        let width: u32 = read_upwards(path, "current_link_width")?.parse().ok()?;
        let (number, unit) = speed.split_once(' ')?;
        let gigatransfers: f64 = number.parse().ok().filter(|_| unit.starts_with("GT/s"))?;
        // The first two generations spend two bits in ten on the line code, later ones two in 130.
        let payload = if gigatransfers < 6.0 { 0.8 } else { 128.0 / 130.0 };
        let mbps = gigatransfers * 1000.0 * payload * f64::from(width);
        (1.0..1e9).contains(&mbps).then_some(mbps as u32)
    }

    /// A directory entry. The name comes from a library or the user: only one path component is taken.
    fn below(&self, class: &str, name: &str) -> Option<PathBuf> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        plain.then(|| self.root.join(class).join(name))
    }
}

/// An attribute of the device at `path`, or of the nearest parent that has it: network and virtio devices are a few
/// levels below their PCI device.
fn read_upwards(path: &Path, attribute: &str) -> Option<String> {
    path.ancestors()
        .take(4)
        .find_map(|directory| std::fs::read_to_string(directory.join(attribute)).ok())
        .map(|text| text.trim().to_owned())
}
