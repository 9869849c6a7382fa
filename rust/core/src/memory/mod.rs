//! Registered memory of one engine: ids, look-up by id and by address, and what is in use.

mod range_index;
mod region;
mod registry;

pub use range_index::{RangeIndex, holds};
pub use region::{Hold, MemoryKind, Region, RegionId};
pub use registry::{Registry, RegistryError, Snapshot};
