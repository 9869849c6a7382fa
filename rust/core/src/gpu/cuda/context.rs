//! The context of the calling thread, changed for a while.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::c_void;
use std::ptr;

use super::super::GpuError;
use super::symbols::Symbols;

/// A context that is current until this is dropped.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    driver: &'a Symbols,
    /// What was current before, if it was another one.
    before: Option<*mut c_void>,
}

impl<'a> Entered<'a> {
    pub(super) fn new(driver: &'a Symbols, context: *mut c_void) -> Result<Self, GpuError> {
        let mut before = ptr::null_mut();
        // SAFETY: the out parameter is valid.
        driver.check("cuCtxGetCurrent", unsafe { (driver.get_context)(&raw mut before) })?;
        if before == context {
            return Ok(Self { driver, before: None });
        }
        // SAFETY: the driver refuses a context that is no more.
        driver.check("cuCtxSetCurrent", unsafe { (driver.set_context)(context) })?;
        Ok(Self { driver, before: Some(before) })
    }

    /// One that has been made current already, instead of `before`.
    pub(super) fn already(driver: &'a Symbols, before: *mut c_void) -> Self {
        Self { driver, before: Some(before) }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        if let Err(error) = restore(self.driver, before) {
            tracing::warn!("the caller's context could not be restored: {error}");
        }
    }
}

/// Makes `before`, which was current on this thread, current again. If it is gone the thread has none: not that of the engine,
/// in which its further calls would seem to work.
pub(super) fn restore(driver: &Symbols, before: *mut c_void) -> Result<(), GpuError> {
    // SAFETY: it was current on this thread; the driver refuses one that is gone.
    let code = unsafe { (driver.set_context)(before) };
    if code != 0 {
        // SAFETY: NULL takes the context away.
        unsafe { (driver.set_context)(ptr::null_mut()) };
    }
    driver.check("cuCtxSetCurrent", code)
}
