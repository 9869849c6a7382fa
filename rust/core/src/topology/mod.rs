//! Where devices sit in this machine, which NIC suits a GPU, and which CPUs suit a NIC.
//!
//! Everything is read from sysfs below a root that the caller gives, so a recorded tree stands for another machine.

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
