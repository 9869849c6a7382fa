//! The PCI and NUMA position of devices, the NIC for a GPU, and the CPUs for a NIC's workers.
//!
//! Everything is read from sysfs below a root that the caller passes, so a recorded tree can stand for another machine.

mod affinity;
mod choose;
mod cpu_set;
mod distance;
mod gid_type;
mod sysfs;

pub use affinity::{cpus_near, current_affinity, pin_current_thread, worker_cpus};
pub use choose::{Nic, choose_nic};
pub use cpu_set::{CpuSet, CpuSetError};
pub use distance::{Distance, distance};
pub use gid_type::{gid_interface, roce_version};
pub use sysfs::Sysfs;
