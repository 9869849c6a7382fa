//! Readers of sysfs. A missing or malformed attribute reads as `None`: virtual machines and containers show few of them.

use std::path::{Path, PathBuf};

use super::{CpuSet, NicPort, NumaNode, natural_order};

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

    /// What the PCI link of the device at `path` can carry in one direction, in Mbit/s: by its largest speed, because an idle GPU
    /// runs its link at the smallest; where that is not known, by the current one.
    pub fn link_mbps(&self, path: &Path) -> Option<u32> {
        let link = |speed: &str, width: &str| {
            let speed = std::fs::read_to_string(path.join(speed)).ok()?;
            let width: u32 = std::fs::read_to_string(path.join(width)).ok()?.trim().parse().ok()?;
            let (number, unit) = speed.trim().split_once(' ')?;
            let gigatransfers: f64 = number.parse().ok().filter(|_| unit.starts_with("GT/s"))?;
            // The first two generations spend two bits in ten on the line code, later ones two in 130.
            let payload = if gigatransfers < 6.0 { 0.8 } else { 128.0 / 130.0 };
            let mbps = gigatransfers * 1000.0 * payload * f64::from(width);
            // A virtual function shows a width of 0 or 255 lanes.
            ((1.0..1e9).contains(&mbps) && width <= WIDEST_LINK).then_some(mbps as u32)
        };
        link("max_link_speed", "max_link_width").or_else(|| link("current_link_speed", "current_link_width"))
    }

    /// Whether the RDMA device at `path` is a virtual function, or a subfunction below its PCI device.
    pub fn is_virtual_function(&self, path: &Path) -> bool {
        let subfunction =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains(".sf."));
        subfunction || path.join("physfn").exists()
    }

    /// The bus ids of the GPUs, in the order of their addresses; a program's runtime may number them otherwise.
    pub fn gpus(&self) -> Vec<String> {
        let devices = self.root.join("bus/pci/devices");
        let is_gpu = |id: &String| {
            let number = |attribute: &str| {
                let text = std::fs::read_to_string(devices.join(id).join(attribute)).ok()?;
                u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
            };
            let Some(class) = number("class") else { return false };
            match class >> 8 {
                DISPLAY_3D | DISPLAY_OTHER | ACCELERATOR => true,
                // Board management controllers have one as well.
                DISPLAY_VGA => number("vendor").is_some_and(|vendor| GPU_VENDORS.contains(&vendor)),
                _ => false,
            }
        };
        let mut gpus: Vec<_> = names(&devices).into_iter().filter(is_gpu).collect();
        gpus.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        gpus
    }

    /// Every active port of every RDMA device, in the natural order of names.
    pub fn nic_ports(&self) -> Vec<NicPort> {
        let class = self.root.join("class/infiniband");
        let mut devices = names(&class);
        devices.sort_by(|a, b| natural_order(a, b));
        let mut found = Vec::new();
        for name in devices {
            let ports = class.join(&name).join("ports");
            let mut numbers: Vec<u8> = names(&ports).iter().filter_map(|port| port.parse().ok()).collect();
            numbers.sort_unstable();
            for port in numbers {
                let text = |attribute: &str| {
                    std::fs::read_to_string(ports.join(port.to_string()).join(attribute)).unwrap_or_default()
                };
                // `4: ACTIVE`, `400 Gb/sec (4X NDR)`.
                if !text("state").starts_with("4:") {
                    continue;
                }
                let gigabits: f64 =
                    text("rate").split(' ').next().and_then(|rate| rate.parse().ok()).unwrap_or(0.0);
                let speed_mbps = (gigabits * 1000.0) as u32;
                found.push(NicPort {
                    path: self.rdma_device_path(&name),
                    name: name.clone(),
                    port,
                    speed_mbps,
                });
            }
        }
        found
    }

    /// The NUMA nodes that have CPUs, by number.
    pub fn numa_nodes(&self) -> Vec<NumaNode> {
        let nodes = self.root.join("devices/system/node");
        let node = |name: &String| {
            let id = name.strip_prefix("node")?.parse().ok()?;
            let cpus = std::fs::read_to_string(nodes.join(name).join("cpulist")).ok()?;
            let cpus = CpuSet::parse_list(&cpus).ok().filter(|cpus| !cpus.is_empty())?;
            Some(NumaNode { id, cpus })
        };
        let mut found: Vec<_> = names(&nodes).iter().filter_map(node).collect();
        found.sort_by_key(|node| node.id);
        found
    }

    /// The kernel's description of the processors: `cpu:type:x86,ven0000fam0006mod0055:...`.
    pub fn cpu_model(&self) -> Option<String> {
        std::fs::read_to_string(self.root.join("devices/system/cpu/modalias")).ok()
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

/// The names in a directory, in no order; none if it is not there.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Lanes of the widest PCI link.
const WIDEST_LINK: u32 = 32;

/// Classes of PCI devices, as of the PCI code and ID assignment specification.
const DISPLAY_VGA: u32 = 0x0300;
const DISPLAY_3D: u32 = 0x0302;
const DISPLAY_OTHER: u32 = 0x0380;
const ACCELERATOR: u32 = 0x1200;

/// Vendors of GPUs that also drive a screen: NVIDIA and AMD.
const GPU_VENDORS: [u32; 2] = [0x10de, 0x1002];
