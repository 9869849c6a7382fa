//! Registered memory of one engine: ids, look-up by id and by address, and what is in use.

mod allocation;
mod announced;
#[cfg(all(test, not(flagcx_p2p_loom)))]
pub(crate) mod delegating_device;
mod further_nics;
mod gpu_flush;
mod gpu_memory;
mod history;
mod host_inspection;
mod inspect;
mod key_on_rail;
mod keys_of_rail;
mod last_region;
#[cfg(all(test, not(flagcx_p2p_loom)))]
pub(crate) mod limited_device;
mod nic_registration;
mod process_regions;
mod published;
mod range_index;
mod readable;
mod recent;
mod recipe;
mod region;
mod region_uses;
mod registry;
mod remote_level;
mod remote_regions;
mod remote_table;
mod segment;
mod shared_export;
mod sharing;
mod unreachable;

pub use allocation::{Allocation, AllocationError, SharedFileError, check_mapped_file, is_allocated};
pub use announced::Announced;
pub(crate) use announced::Subscription;
pub use gpu_flush::GpuFlush;
pub use history::{Cursor, History, Limits};
pub use inspect::{CpuAccess, Inaccessible, InaccessibleReason, Inspection, inspect};
pub use key_on_rail::KeyOnRail;
pub use process_regions::{has_gpu_regions, region_in_process};
pub use range_index::{RangeIndex, holds};
pub use recent::{Lease, LocalRange, Recent};
pub use region::{Hold, MemoryKind, Region, RegionId};
pub use registry::{FurtherNicError, RegionSnapshot, Registry, RegistryError};
pub use remote_regions::RemoteRegions;
pub use remote_table::{RemoteCheck, RemoteRegion, RemoteTable};
pub use segment::Segment;
pub use unreachable::NO_KEY;
