//! The current GPU, changed for a while.

use super::{GpuError, GpuRuntime, SavedGpu};

/// Keeps a GPU current for the calling thread, until dropped. The host program's own choice then holds again.
#[derive(Debug)]
pub struct CurrentGpu<'a> {
    runtime: &'a dyn GpuRuntime,
    saved: SavedGpu,
    /// A guard restores the thread that it was made on.
    _thread_bound: std::marker::PhantomData<*const ()>,
}

impl<'a> CurrentGpu<'a> {
    /// Makes `gpu` current.
    pub fn enter(runtime: &'a dyn GpuRuntime, gpu: i32) -> Result<Self, GpuError> {
        let saved = runtime.enter(gpu)?;
        Ok(Self { runtime, saved, _thread_bound: std::marker::PhantomData })
    }

    /// Makes `gpu` current unless it is, also on a thread that has none. `None` when it is current already, or there is
    /// nothing to choose from. What makes, uses or ends a stream or a mapping begins with this.
    ///
    /// # Errors
    /// Those of [`GpuRuntime::enter`], such as a GPU that is not there: nothing of it can be used then.
    pub fn ensure(runtime: &'a dyn GpuRuntime, gpu: i32) -> Result<Option<Self>, GpuError> {
        if runtime.is_current(gpu) { Ok(None) } else { Self::enter(runtime, gpu).map(Some) }
    }

    /// Makes the GPU of `address` current, or `otherwise` if the runtime does not say which that is; a negative number names
    /// none. Only runtimes of which answers depend on the current GPU need it. With others nothing is changed, so that a question makes
    /// no context, which takes time and memory of the GPU. If it fails, the question is asked as the thread stands.
    pub fn of_address(runtime: &'a dyn GpuRuntime, address: u64, otherwise: i32) -> Option<Self> {
        if !runtime.depends_on_current() {
            return None;
        }
        let gpu = runtime.gpu_of(address).unwrap_or(otherwise);
        if gpu < 0 {
            return None;
        }
        Self::ensure(runtime, gpu).unwrap_or_else(|error| {
            tracing::debug!("GPU {gpu} of {address:#x} cannot be made current: {error}");
            None
        })
    }
}

impl Drop for CurrentGpu<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.restore(self.saved) {
            tracing::warn!("the caller's current GPU could not be restored: {error}");
        }
    }
}
