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
    pub fn ensure(runtime: &'a dyn GpuRuntime, gpu: i32) -> Option<Self> {
        if runtime.is_current(gpu) { None } else { Self::enter(runtime, gpu).ok() }
    }

    /// Makes `gpu` current if another one is. A thread that has none keeps none, so that a question about an address
    /// makes no context, which takes time and memory of the GPU.
    pub fn instead_of_another(runtime: &'a dyn GpuRuntime, gpu: i32) -> Option<Self> {
        let elsewhere = runtime.current_gpu().is_ok_and(|current| current != gpu);
        elsewhere.then(|| Self::enter(runtime, gpu).ok()).flatten()
    }
}

impl Drop for CurrentGpu<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.restore(self.saved) {
            tracing::warn!("the caller's current GPU could not be restored: {error}");
        }
    }
}
