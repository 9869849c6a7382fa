//! What the choice of a NIC needs to know of a machine, read in one go.

use std::path::PathBuf;

use super::{CpuSet, Distance, PciPlace, Sysfs, distance};

/// GPUs, NICs and NUMA nodes of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTopology {
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// The NICs to choose from.
    pub nics: Vec<Nic>,
    /// The NUMA nodes; empty where the kernel shows none.
    pub numa: Vec<NumaNode>,
    /// What the link between processor sockets carries in one direction, in Mbit/s; `None` for processors that are not known.
    pub socket_mbps: Option<u32>,
}

/// A GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Its number, as the program's runtime counts.
    pub index: i32,
    /// Its bus id, as in `0000:3b:00.0`.
    pub bus_id: String,
    /// Where it is.
    pub place: PciPlace,
}

/// A port of a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// The device's name, as in `mlx5_0`.
    pub name: String,
    /// The port's number, from 1.
    pub port: u8,
    /// Its speed in Mbit/s; 0 if that is not known.
    pub speed_mbps: u32,
    /// Whether it is a virtual function or a subfunction, which shares the port with its physical function.
    pub is_virtual: bool,
    /// Where it is.
    pub place: PciPlace,
}

/// A NUMA node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// Its CPUs.
    pub cpus: CpuSet,
}

/// A port of a NIC, as its driver reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicPort {
    /// The device's name.
    pub name: String,
    /// The port's number.
    pub port: u8,
    /// Its speed in Mbit/s; 0 if that is not known.
    pub speed_mbps: u32,
    /// The resolved path of its hardware in sysfs.
    pub path: Option<PathBuf>,
}

impl HostTopology {
    /// Reads the places of GPUs (number and bus id) and of NICs, in any order.
    pub fn read(sysfs: &Sysfs, gpus: &[(i32, String)], nics: Vec<NicPort>) -> Self {
        let gpu = |(index, bus_id): &(i32, String)| Gpu {
            index: *index,
            bus_id: bus_id.clone(),
            place: sysfs.pci_path(bus_id).map(|path| PciPlace::read(sysfs, &path)).unwrap_or_default(),
        };
        let nic = |NicPort { name, port, speed_mbps, path }: NicPort| Nic {
            name,
            port,
            speed_mbps,
            is_virtual: path.as_deref().is_some_and(|path| sysfs.is_virtual_function(path)),
            place: path.map(|path| PciPlace::read(sysfs, &path)).unwrap_or_default(),
        };
        Self {
            gpus: gpus.iter().map(gpu).collect(),
            nics: nics.into_iter().map(nic).collect(),
            numa: sysfs.numa_nodes(),
            socket_mbps: sysfs.cpu_model().and_then(|model| socket_mbps(&model)),
        }
    }

    /// The GPU with a number.
    pub fn gpu(&self, index: i32) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.index == index)
    }

    /// The one NUMA node that has all of `cpus`; `None` if they are of several.
    pub fn node_of(&self, cpus: &CpuSet) -> Option<u32> {
        let mut nodes = self.numa.iter().filter(|node| !node.cpus.intersection(cpus).is_empty());
        let first = nodes.next()?;
        nodes.next().is_none().then_some(first.id)
    }

    /// How far a NIC is from a GPU.
    pub fn distance(&self, gpu: &Gpu, nic: &Nic) -> Distance {
        distance(&gpu.place, &nic.place, self.has_one_node())
    }

    /// What the path between them carries at most, in Mbit/s: the slowest of the port, the PCI links, and the link between sockets.
    pub fn path_mbps(&self, gpu: &Gpu, nic: &Nic) -> u32 {
        let common = gpu.place.common(&nic.place);
        let links = [gpu.place.slowest_below(common), nic.place.slowest_below(common)];
        let socket = self.socket_mbps.filter(|_| self.distance(gpu, nic) == Distance::System);
        links.into_iter().chain([socket]).flatten().fold(nic.speed_mbps, u32::min)
    }

    /// Whether nothing shows which NIC belongs to which GPU: no two of them share a PCI switch, as in virtual machines.
    pub fn is_flat(&self) -> bool {
        let known = self.gpus.iter().any(|gpu| !gpu.place.steps.is_empty());
        let mut pairs = self.gpus.iter().flat_map(|gpu| self.nics.iter().map(move |nic| (gpu, nic)));
        known && !pairs.any(|(gpu, nic)| self.distance(gpu, nic) < Distance::HostBridge)
    }

    pub(super) fn has_one_node(&self) -> bool {
        self.numa.len() <= 1
    }
}

/// From the kernel's description of the processor (`cpu:type:x86,ven0000fam0006mod0055:...`): the bandwidth that the original engine
/// reckons with, in GB/s.
fn socket_mbps(modalias: &str) -> Option<u32> {
    let number = |key: &str, digits: usize| {
        let (_, rest) = modalias.split_once(key)?;
        u32::from_str_radix(rest.get(..digits)?, 16).ok()
    };
    let (vendor, family, model) = (number("ven", 4)?, number("fam", 4)?, number("mod", 4)?);
    let gigabytes = match (vendor, family, model) {
        (INTEL, 0..6, _) | (INTEL, 6, 0..SKYLAKE_SP) => 6,
        (INTEL, ..) => 10,
        (AMD, ..) => 16,
        _ => return None,
    };
    Some(gigabytes * 8000)
}

/// X86_VENDOR_INTEL of Linux.
const INTEL: u32 = 0;
/// X86_VENDOR_AMD of Linux.
const AMD: u32 = 2;
/// The model of Skylake-SP in Intel's family 6; later servers have larger ones.
const SKYLAKE_SP: u32 = 0x55;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_between_sockets() {
        let of = |ids: &str| socket_mbps(&format!("cpu:type:x86,{ids}:feature:,0000,0001"));
        assert_eq!(of("ven0000fam0006mod004F"), Some(48_000), "Broadwell");
        assert_eq!(of("ven0000fam0006mod0055"), Some(80_000), "Skylake-SP");
        assert_eq!(of("ven0000fam0006mod008F"), Some(80_000), "Sapphire Rapids");
        assert_eq!(of("ven0002fam0019mod0011"), Some(128_000), "EPYC");
        assert_eq!(of("ven0007fam0006mod0000"), None);
        assert_eq!(socket_mbps("cpu:type:aarch64:feature:,0000"), None);
    }

    #[test]
    fn cpus_of_one_node_or_of_several() {
        let node = |id, cpus| NumaNode { id, cpus: CpuSet::parse_list(cpus).unwrap() };
        let machine = HostTopology { numa: vec![node(0, "0-3"), node(1, "4-7")], ..HostTopology::default() };
        let of = |cpus| machine.node_of(&CpuSet::parse_list(cpus).unwrap());
        assert_eq!([of("1-2"), of("6"), of("3-4"), of(""), of("9")], [Some(0), Some(1), None, None, None]);
    }
}
