//! Inspection of host memory for registration.

use super::MemoryKind;
use super::inspect::{CpuAccess, Inaccessible, InaccessibleReason, inspect};
use super::readable::is_readable;
use super::registry::RegistryError;
use crate::fabric::{Backing, FabricError};

/// The result of inspecting a range before its registration. The default is for an unknown range.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostInspection {
    /// The CPU cannot access all of it. A NIC may: it can be memory of a device without a runtime in this process.
    pub(super) inaccessible: Option<Inaccessible>,
    /// Some of it is not writable.
    pub(super) read_only: bool,
    pub(super) backing: Backing,
    /// The mappings leave open whether the CPU can read it.
    doubtful: bool,
}

impl HostInspection {
    /// Of memory that the engine has allocated: an access never fails, whatever it is mapped from.
    pub(super) fn of_allocation() -> Self {
        Self { backing: Backing::Anonymous, ..Self::default() }
    }

    pub(super) fn at(address: u64, length: u64) -> Self {
        match inspect(address, length) {
            Err(inaccessible) => Self { inaccessible: Some(inaccessible), ..Self::default() },
            Ok(None) => Self { doubtful: true, ..Self::default() },
            Ok(Some(found)) => {
                let read_only = found.access == CpuAccess::ReadOnly;
                if read_only {
                    tracing::info!(
                        "memory {address:#x}+{length} is not writable: registered for reading only"
                    );
                }
                Self {
                    inaccessible: None,
                    read_only,
                    backing: if found.anonymous { Backing::Anonymous } else { Backing::Mapped },
                    doubtful: found.device,
                }
            }
        }
    }

    /// What memory is after inspection. Of a runtime that copies GPU memory and cannot tell it from other memory, that is a GPU's
    /// which the CPU cannot access from its first byte on.
    pub(super) fn kind(&self, told: MemoryKind) -> MemoryKind {
        let is_out_of_reach = |inaccessible: Inaccessible| {
            inaccessible.offset == 0
                && matches!(
                    inaccessible.reason,
                    InaccessibleReason::NotMapped | InaccessibleReason::NotReadable
                )
        };
        match told {
            MemoryKind::Probe if self.inaccessible.is_some_and(is_out_of_reach) => MemoryKind::Gpu,
            MemoryKind::Probe => MemoryKind::Host,
            told => told,
        }
    }

    /// Whether the CPU may read it. Touches pages, where the mappings do not say.
    pub(super) fn is_readable(&self, address: u64, length: u64) -> bool {
        self.inaccessible.is_none() && (!self.doubtful || is_readable(address, length))
    }

    /// The error of a provider that has refused the range, with the inaccessible byte if that is the reason.
    pub(super) fn explain(&self, error: FabricError) -> RegistryError {
        match (&error, self.inaccessible) {
            (FabricError::Call { errno: libc::EFAULT, .. }, Some(inaccessible)) => inaccessible.into(),
            _ => error.into(),
        }
    }
}
