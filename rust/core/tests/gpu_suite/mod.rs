//! The checks of the suite over the CUDA driver, and what they need.
#![allow(unreachable_pub, reason = "a module of one test program")]

pub mod bandwidth;
pub mod by_files;
pub mod calls;
pub mod chaos;
pub mod cuda;
pub mod devices;
pub mod dma_buf;
pub mod entry_points;
pub mod failing;
pub mod group;
pub mod memory;
pub mod nic;
pub mod parent;
pub mod pointers;
pub mod threads;
pub mod two_processes;
pub mod vmm;
