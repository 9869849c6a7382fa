//! Registered memory of one engine.

/// Names a region. Unique in the process, never 0, never reused, owned by one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct RegionId(pub u64);

/// What the caller knows of the memory that it registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryKind {
    /// Ask the device runtime.
    #[default]
    Probe,
    /// Host memory.
    Host,
    /// Device memory.
    Device,
}
