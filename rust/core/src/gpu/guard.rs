//! The current device, changed for a while.

use super::{GpuError, GpuRuntime, SavedDevice};

/// Keeps a device current for the calling thread, until dropped. The host program's own choice then holds again.
#[derive(Debug)]
pub struct CurrentDevice<'a> {
    runtime: &'a dyn GpuRuntime,
    saved: SavedDevice,
    /// A guard restores the thread that it was made on.
    _thread_bound: std::marker::PhantomData<*const ()>,
}

impl<'a> CurrentDevice<'a> {
    /// Makes `device` current.
    pub fn enter(runtime: &'a dyn GpuRuntime, device: i32) -> Result<Self, GpuError> {
        let saved = runtime.enter(device)?;
        Ok(Self { runtime, saved, _thread_bound: std::marker::PhantomData })
    }

    /// Makes `device` current unless it is, also on a thread that has none. `None` when it is current already, or there is
    /// nothing to choose from. What makes, uses or ends a stream or a mapping begins with this.
    pub fn ensure(runtime: &'a dyn GpuRuntime, device: i32) -> Option<Self> {
        if runtime.is_current(device) { None } else { Self::enter(runtime, device).ok() }
    }

    /// Makes `device` current if another one is. A thread that has none keeps none, so that a question about an address
    /// makes no context, which takes time and memory of the GPU.
    pub fn instead_of_another(runtime: &'a dyn GpuRuntime, device: i32) -> Option<Self> {
        let elsewhere = runtime.current_device().is_ok_and(|current| current != device);
        elsewhere.then(|| Self::enter(runtime, device).ok()).flatten()
    }
}

impl Drop for CurrentDevice<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.restore(self.saved) {
            tracing::warn!("the caller's current device could not be restored: {error}");
        }
    }
}
