//! The current device, changed for a while.

use super::{DeviceError, DeviceRuntime, SavedDevice};

/// Keeps a device current for the calling thread, until dropped. The host program's own choice then holds again.
#[derive(Debug)]
pub struct CurrentDevice<'a> {
    runtime: &'a dyn DeviceRuntime,
    saved: SavedDevice,
    /// A guard restores the thread that it was made on.
    _thread_bound: std::marker::PhantomData<*const ()>,
}

impl<'a> CurrentDevice<'a> {
    /// Makes `device` current.
    pub fn enter(runtime: &'a dyn DeviceRuntime, device: i32) -> Result<Self, DeviceError> {
        let saved = runtime.enter(device)?;
        Ok(Self { runtime, saved, _thread_bound: std::marker::PhantomData })
    }

    /// Makes `device` current if another one is. `None` when it is current already, or there is nothing to choose from.
    pub fn ensure(runtime: &'a dyn DeviceRuntime, device: i32) -> Option<Self> {
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
