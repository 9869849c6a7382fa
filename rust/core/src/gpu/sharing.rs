//! GPU memory between processes of this host, by the way that its allocation has: the runtime's IPC handle, or files.

use std::sync::Arc;

use super::installed::cuda;
use super::memory_files::{FileReference, Offer, Owner, take};
use super::{GpuError, GpuRuntime, IPC_HANDLE_BYTES};
use crate::process::ProcessIdentity;

/// A range of GPU memory that other processes may open until this is dropped.
#[derive(Debug)]
pub struct Share {
    /// What the other process opens.
    pub handle: [u8; IPC_HANDLE_BYTES],
    /// Where the memory that the handle names begins in this process.
    pub base: u64,
    /// Of memory that is shared by files.
    _offer: Option<Offer>,
}

impl Share {
    /// Of no memory.
    #[cfg(all(test, not(flagcx_p2p_loom)))]
    pub(crate) fn played(handle: [u8; IPC_HANDLE_BYTES]) -> Self {
        Self { handle, base: 0, _offer: None }
    }

    /// Shares the memory at `address`. Legacy handles come first, because every process of FlagCX understands them.
    pub fn new(runtime: &Arc<dyn GpuRuntime>, address: u64, length: u64) -> Result<Self, GpuError> {
        let refused = match runtime.ipc_export(address) {
            Ok(export) => {
                let base = export.base.unwrap_or(address);
                return Ok(Self { handle: export.handle, base, _offer: None });
            }
            Err(refused) => refused,
        };
        let files = first_that_can(runtime, |runtime| runtime.memory_files(address, length));
        // No runtime has files at all: then what is wrong with the handle is the reason.
        let files = files.map_err(|error| if error.is_unsupported() { refused } else { error })?;
        let (base, offer) = (files.base, Offer::new(files)?);
        Ok(Self { handle: offer.handle(), base, _offer: Some(offer) })
    }
}

/// Memory of another process that is open here. Closed when dropped: nothing may use it any more, and the GPU for which it was
/// opened must be current.
#[derive(Debug)]
pub struct OpenedShare {
    address: u64,
    length: Option<u64>,
    owner: Option<Arc<Owner>>,
    /// `None` of a legacy handle.
    mapping: Option<Box<dyn MappedFiles>>,
    runtime: Arc<dyn GpuRuntime>,
}

impl OpenedShare {
    /// Opens what a handle names, for the current GPU. Files are taken of `peer` only, if it is known.
    pub fn open(
        runtime: &Arc<dyn GpuRuntime>,
        handle: &[u8; IPC_HANDLE_BYTES],
        peer: Option<ProcessIdentity>,
    ) -> Result<Self, GpuError> {
        let runtime = Arc::clone(runtime);
        let Some(reference) = FileReference::decode(handle) else {
            if FileReference::is_in(handle) {
                let reason = "its IPC information is malformed: ask its owner for it again".to_owned();
                return Err(GpuError::NotShared { reason });
            }
            let address = runtime.ipc_open(handle)?;
            let length = opened_length(&*runtime, address);
            return Ok(Self { address, length, owner: None, mapping: None, runtime });
        };
        let (owner, files) = take(&reference, peer)?;
        let mapping = first_that_can(&runtime, |runtime| runtime.map_files(&files))?;
        let (address, length) = (mapping.address(), files.length());
        Ok(Self { address, length, owner: Some(Arc::new(owner)), mapping: Some(mapping), runtime })
    }

    /// Where it begins here.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its bytes, where the driver says them, or the files.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The process that can say whether the memory is its own still; `None` of a legacy handle.
    pub fn owner(&self) -> Option<&Arc<Owner>> {
        self.owner.as_ref()
    }
}

impl Drop for OpenedShare {
    fn drop(&mut self) {
        if self.mapping.take().is_none()
            && let Err(error) = self.runtime.ipc_close(self.address)
        {
            tracing::warn!("the GPU memory of another process was not closed: {error}");
        }
    }
}

/// Bytes from the start of what was opened on; `None` where the runtime does not say them: then the driver itself has to refuse a
/// copy that leaves the memory.
pub(super) fn opened_length(runtime: &dyn GpuRuntime, address: u64) -> Option<u64> {
    match runtime.opened_range(address) {
        Ok((start, bytes)) => start.checked_add(bytes).and_then(|end| end.checked_sub(address)),
        Err(error) => {
            if !error.is_unsupported() {
                tracing::debug!(
                    "the length of another process's GPU memory is taken from its owner: {error}"
                );
            }
            None
        }
    }
}

/// Memory of another process that was mapped by its files; unmapped when dropped.
pub trait MappedFiles: Send + Sync + std::fmt::Debug {
    /// Where it begins here.
    fn address(&self) -> u64;
}

/// Asks the runtime in use, and where it has no files the CUDA driver: FlagCX's adaptor has no calls for them.
fn first_that_can<T>(
    runtime: &Arc<dyn GpuRuntime>,
    ask: impl Fn(&dyn GpuRuntime) -> Result<T, GpuError>,
) -> Result<T, GpuError> {
    match ask(&**runtime) {
        Err(error) if error.is_unsupported() => cuda().map_or(Err(error), |cuda| ask(&*cuda)),
        answer => answer,
    }
}

/// What a runtime without files answers.
pub(super) fn no_files<T>(runtime: &'static str) -> Result<T, GpuError> {
    Err(GpuError::Unsupported { runtime, operation: "share memory by file descriptors" })
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::super::PlayedRuntime;
    use super::*;

    #[test]
    fn a_malformed_reference_is_never_given_to_the_runtime() {
        let played = Arc::new(PlayedRuntime::default());
        let runtime = Arc::clone(&played) as Arc<dyn GpuRuntime>;
        let mut handle = [0; IPC_HANDLE_BYTES];
        handle[..16].copy_from_slice(b"flagcx-p2p\0files");
        let error = OpenedShare::open(&runtime, &handle, None).unwrap_err();
        assert!(matches!(error, GpuError::NotShared { .. }), "{error}");
        assert_eq!(played.opens(), 0);
    }
}
