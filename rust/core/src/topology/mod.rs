//! The PCI and NUMA position of devices, the NIC for a GPU, and the CPUs for a NIC's workers.
//!
//! Everything is read from sysfs below a root that the caller passes, so a recorded tree can stand for another machine.

mod affinity;
mod cpu_set;
mod distance;
mod gid_type;
mod host_topology;
mod natural_order;
mod nic_map;
mod place;
mod rank;
mod sysfs;
mod topology_file;

pub use affinity::{cpus_near, current_affinity, pin_current_thread, worker_cpus};
pub use cpu_set::{CpuSet, CpuSetError};
pub use distance::{Distance, distance};
pub use gid_type::{gid_interface, roce_version};
pub use host_topology::{Gpu, HostTopology, Nic, NicPort, NumaNode};
pub use natural_order::natural_order;
pub use nic_map::{NicMap, NicOfGpu};
pub use place::{PciPlace, PciStep};
pub use rank::{Candidate, Choice, MemoryPlace, Reason};
pub use sysfs::Sysfs;
pub use topology_file::read_topology_file;
