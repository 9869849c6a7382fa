//! Copies on a CUDA stream.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::Arc;

use super::super::{CopyStream, DeviceError, Direction};
use super::symbols::Symbols;

const ERROR_NOT_READY: c_int = 600;
/// The program's legacy default stream does not wait for this one, nor this one for it.
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;

/// A stream and the event that marks points on it. NULL where not made yet.
#[derive(Debug)]
pub(super) struct CudaStream {
    driver: Arc<Symbols>,
    stream: *mut c_void,
    event: *mut c_void,
}

// SAFETY: the driver may be called from any thread, and every method takes `&mut self`.
unsafe impl Send for CudaStream {}

impl CudaStream {
    pub(super) fn open(driver: &Arc<Symbols>) -> Result<Self, DeviceError> {
        let mut opened = Self { driver: Arc::clone(driver), stream: ptr::null_mut(), event: ptr::null_mut() };
        // SAFETY: the out parameter is valid.
        let code = unsafe { (driver.stream_create)(&raw mut opened.stream, STREAM_NON_BLOCKING) };
        driver.check("cuStreamCreate", code)?;
        // SAFETY: as above.
        let code = unsafe { (driver.event_create)(&raw mut opened.event, EVENT_DISABLE_TIMING) };
        driver.check("cuEventCreate", code)?;
        Ok(opened)
    }
}

impl CopyStream for CudaStream {
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        _direction: Direction,
    ) -> Result<(), DeviceError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // SAFETY: the caller promises both ranges. Addresses are unified: the driver sees their kinds itself.
        let code = unsafe { (self.driver.memcpy_async)(destination, source, length, self.stream) };
        self.driver.check("cuMemcpyAsync", code)
    }

    fn mark(&mut self) -> Result<(), DeviceError> {
        // SAFETY: both are this object's own and alive.
        self.driver.check("cuEventRecord", unsafe { (self.driver.event_record)(self.event, self.stream) })
    }

    fn is_done(&mut self) -> Result<bool, DeviceError> {
        // SAFETY: the event is this object's own and alive.
        match unsafe { (self.driver.event_query)(self.event) } {
            ERROR_NOT_READY => Ok(false),
            code => self.driver.check("cuEventQuery", code).map(|()| true),
        }
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
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
