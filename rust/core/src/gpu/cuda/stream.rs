//! Copies on a CUDA stream.
#![allow(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::Arc;

use super::super::{CopyDirection, CopyStream, GpuError, host_call};
use super::context::Entered;
use super::runtime::NAME;
use super::symbols::Symbols;
use crate::events::Notifier;

const ERROR_NOT_READY: c_int = 600;
/// The program's legacy default stream does not wait for this one, nor this one for it.
const STREAM_NON_BLOCKING: c_uint = 1;
const EVENT_DISABLE_TIMING: c_uint = 2;

/// Results that prove that nothing of a stream runs any more: its context has failed for good or is gone. A handle that is
/// ours and that the driver does not know any more (400) went with its context.
const LOST: &[c_int] = &[4, 201, 214, 220, 226, 400, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719];

/// A stream and the events that mark points on it. Any thread may use it, also one that has no context or another one: each
/// call runs in the context that was current when the stream was made.
#[derive(Debug)]
pub(super) struct CudaStream {
    driver: Arc<Symbols>,
    context: *mut c_void,
    /// NULL where not made yet.
    stream: *mut c_void,
    /// By the number of the mark.
    events: Vec<*mut c_void>,
}

// SAFETY: the driver may be called from any thread, and every method takes `&mut self`.
unsafe impl Send for CudaStream {}

impl CudaStream {
    pub(super) fn open(driver: &Arc<Symbols>) -> Result<Self, GpuError> {
        let context = ptr::null_mut();
        let mut opened =
            Self { driver: Arc::clone(driver), context, stream: ptr::null_mut(), events: Vec::new() };
        // SAFETY: the out parameter is valid.
        driver.check("cuCtxGetCurrent", unsafe { (driver.get_context)(&raw mut opened.context) })?;
        // SAFETY: the out parameter is valid.
        let code = unsafe { (driver.stream_create)(&raw mut opened.stream, STREAM_NON_BLOCKING) };
        driver.check("cuStreamCreate", code)?;
        opened.event(0)?;
        Ok(opened)
    }

    fn enter(&self) -> Result<Entered<'_>, GpuError> {
        Entered::new(&self.driver, self.context).map_err(is_lost)
    }

    fn check(&self, operation: &'static str, code: c_int) -> Result<(), GpuError> {
        self.driver.check(operation, code).map_err(is_lost)
    }

    /// The event of a mark, made if there is none. The stream's context is current.
    fn event(&mut self, mark: usize) -> Result<*mut c_void, GpuError> {
        while self.events.len() <= mark {
            let mut event = ptr::null_mut();
            // SAFETY: the out parameter is valid.
            let code = unsafe { (self.driver.event_create)(&raw mut event, EVENT_DISABLE_TIMING) };
            self.check("cuEventCreate", code)?;
            self.events.push(event);
        }
        Ok(self.events.get(mark).copied().unwrap_or(ptr::null_mut()))
    }
}

fn is_lost(error: GpuError) -> GpuError {
    error.lost_if(|code| LOST.contains(&code))
}

impl CopyStream for CudaStream {
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        _direction: CopyDirection,
    ) -> Result<(), GpuError> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let _entered = self.enter()?;
        // SAFETY: the caller promises both ranges. Addresses are unified: the driver sees their kinds itself.
        let code = unsafe { (self.driver.memcpy_async)(destination, source, length, self.stream) };
        self.check("cuMemcpyAsync", code)
    }

    fn mark(&mut self, mark: usize) -> Result<(), GpuError> {
        let driver = Arc::clone(&self.driver);
        let _entered = Entered::new(&driver, self.context).map_err(is_lost)?;
        let event = self.event(mark)?;
        // SAFETY: both are this object's own and alive.
        self.check("cuEventRecord", unsafe { (self.driver.event_record)(event, self.stream) })
    }

    fn is_done(&mut self, mark: usize) -> Result<bool, GpuError> {
        let Some(&event) = self.events.get(mark) else { return Ok(true) };
        let _entered = self.enter()?;
        // SAFETY: the event is this object's own and alive.
        match unsafe { (self.driver.event_query)(event) } {
            ERROR_NOT_READY => Ok(false),
            code => self.check("cuEventQuery", code).map(|()| true),
        }
    }

    fn notify(&mut self, notifier: &Arc<Notifier>) -> Result<(), GpuError> {
        let operation = "call the host when a stream has come so far";
        let call = self.driver.launch_host.ok_or(GpuError::Unsupported { runtime: NAME, operation })?;
        let _entered = self.enter()?;
        host_call::launch(notifier, |called, argument| {
            // SAFETY: the stream is this object's own and alive; the function takes the argument from any thread.
            self.check("cuLaunchHostFunc", unsafe { call(self.stream, called, argument) })
        })
    }
}

impl Drop for CudaStream {
    fn drop(&mut self) {
        // Without its context there is nothing left to destroy.
        let Ok(_entered) = self.enter() else { return };
        let driver = &self.driver;
        let events = self.events.iter().map(|event| ("cuEventDestroy", driver.event_destroy, *event));
        for (operation, destroy, object) in
            events.chain([("cuStreamDestroy", driver.stream_destroy, self.stream)])
        {
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
