//! Memory of the played GPU, and the runtime by which engines know it.

use std::sync::Arc;

use flagcx_p2p::internals::gpu::{self, CudaRuntime};

use crate::cuda::{self, cuda};

/// The runtime of the process, until this is dropped.
pub(crate) struct Installed(());

impl Installed {
    /// The calling thread gets the context of the first GPU.
    pub(crate) fn new() -> Self {
        let runtime = CudaRuntime::load(cuda::library().to_str().unwrap()).unwrap();
        gpu::install(Some(Arc::new(runtime)));
        cuda().set_context(cuda().primary(0));
        Self(())
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        gpu::install(None);
    }
}

/// An allocation.
pub(crate) struct GpuMemory {
    address: u64,
    length: usize,
}

impl GpuMemory {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let (address, length) = (cuda().allocate(bytes.len()), bytes.len());
        // SAFETY: both ranges are valid and as long.
        unsafe { cuda().copy(address, bytes.as_ptr().expose_provenance() as u64, length) };
        Self { address, length }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        // SAFETY: both ranges are valid and as long.
        unsafe { cuda().copy(bytes.as_mut_ptr().expose_provenance() as u64, self.address, self.length) };
        bytes
    }
}

impl Drop for GpuMemory {
    fn drop(&mut self) {
        cuda().free(self.address);
    }
}
