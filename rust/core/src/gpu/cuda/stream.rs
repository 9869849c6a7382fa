//! Copies on a CUDA stream.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::Arc;

use super::super::{CopyStream, Direction, GpuError};
use super::symbols::Symbols;

const ERROR_NOT_READY: c_int = 600;
/// The program's legacy default stream does not wait for this one, nor this one for it.
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;

/// A stream and the event that marks points on it. NULL where not made yet. Any thread may use it, also one that has no
/// context or another one: each call runs in the context that was current when the stream was made.
#[derive(Debug)]
pub(super) struct CudaStream {
    driver: Arc<Symbols>,
    context: *mut c_void,
    stream: *mut c_void,
    event: *mut c_void,
}

// SAFETY: the driver may be called from any thread, and every method takes `&mut self`.
unsafe impl Send for CudaStream {}

impl CudaStream {
    pub(super) fn open(driver: &Arc<Symbols>) -> Result<Self, GpuError> {
        let context = ptr::null_mut();
        let mut opened =
            Self { driver: Arc::clone(driver), context, stream: ptr::null_mut(), event: ptr::null_mut() };
        // SAFETY: the out parameter is valid.
        driver.check("cuCtxGetCurrent", unsafe { (driver.get_context)(&raw mut opened.context) })?;
        // SAFETY: the out parameter is valid.
        let code = unsafe { (driver.stream_create)(&raw mut opened.stream, STREAM_NON_BLOCKING) };
        driver.check("cuStreamCreate", code)?;
        // SAFETY: as above.
        let code = unsafe { (driver.event_create)(&raw mut opened.event, EVENT_DISABLE_TIMING) };
        driver.check("cuEventCreate", code)?;
        Ok(opened)
    }

    fn enter(&self) -> Result<Entered<'_>, GpuError> {
        Entered::new(&self.driver, self.context)
    }
}

/// A context that is current until this is dropped.
#[derive(Debug)]
struct Entered<'a> {
    driver: &'a Symbols,
    /// What was current before, if it was another one.
    before: Option<*mut c_void>,
}

impl<'a> Entered<'a> {
    fn new(driver: &'a Symbols, context: *mut c_void) -> Result<Self, GpuError> {
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
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let Some(before) = self.before else { return };
        // SAFETY: it was current on this thread.
        let code = unsafe { (self.driver.set_context)(before) };
        if let Err(error) = self.driver.check("cuCtxSetCurrent", code) {
            tracing::warn!("the caller's context could not be restored: {error}");
        }
    }
}

impl CopyStream for CudaStream {
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        _direction: Direction,
    ) -> Result<(), GpuError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let _entered = self.enter()?;
        // SAFETY: the caller promises both ranges. Addresses are unified: the driver sees their kinds itself.
        let code = unsafe { (self.driver.memcpy_async)(destination, source, length, self.stream) };
        self.driver.check("cuMemcpyAsync", code)
    }

    fn mark(&mut self) -> Result<(), GpuError> {
        let _entered = self.enter()?;
        // SAFETY: both are this object's own and alive.
        self.driver.check("cuEventRecord", unsafe { (self.driver.event_record)(self.event, self.stream) })
    }

    fn is_done(&mut self) -> Result<bool, GpuError> {
        let _entered = self.enter()?;
        // SAFETY: the event is this object's own and alive.
        match unsafe { (self.driver.event_query)(self.event) } {
            ERROR_NOT_READY => Ok(false),
            code => self.driver.check("cuEventQuery", code).map(|()| true),
        }
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // Without its context there is nothing left to destroy.
        let Ok(_entered) = self.enter() else { return };
        let driver = &self.driver;
        for (operation, destroy, object) in [
            ("cuEventDestroy", driver.event_destroy, self.event),
            ("cuStreamDestroy", driver.stream_destroy, self.stream),
        ] {
            if object.is_null() {
                continue;
            }
            // SAFETY: the object is this one's own, and nothing uses it after this.
            if let Err(error) = driver.check(operation, unsafe { destroy(object) }) {
                tracing::warn!("{error}");
            }
        }
    }
}
