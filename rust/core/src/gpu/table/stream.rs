//! Copies on a stream of the table's runtime.
#![allow(unsafe_code, reason = "calls the host program's C callbacks")]

use std::ffi::{c_int, c_void};
use std::ptr;

use super::super::{CopyStream, Direction, GpuError};
use super::GpuTable;
use super::layout::MemcpyFn;
use super::runtime::{SUCCESS, check, unsupported};

/// `flagcxInProgress`.
const IN_PROGRESS: c_int = 7;
/// `flagcxEventDisableTiming`.
const WITHOUT_TIMING: c_int = 1;

type StreamFn = unsafe extern "C" fn(*mut c_void) -> c_int;
type RecordFn = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;

/// A stream and the event that marks points on it. Holds the callbacks of the table that made them: objects of one
/// adaptor must not be given to another.
#[derive(Debug)]
pub(super) struct TableStream {
    stream: *mut c_void,
    event: *mut c_void,
    copy: MemcpyFn,
    record: RecordFn,
    query: StreamFn,
    destroy_event: Option<StreamFn>,
    destroy_stream: Option<StreamFn>,
}

// SAFETY: the callbacks may be called from any thread (the table's promise), and the objects behind the pointers are
// used by one thread at a time, since every method takes `&mut self`.
unsafe impl Send for TableStream {}

impl TableStream {
    pub(super) fn open(table: &GpuTable) -> Result<Self, GpuError> {
        let unsupported_copy = || unsupported("copy device memory");
        let copy = table.device_memcpy.ok_or_else(unsupported_copy)?;
        let create_stream = table.stream_create.ok_or_else(unsupported_copy)?;
        let create_event = table.event_create.ok_or_else(unsupported_copy)?;
        let record = table.event_record.ok_or_else(unsupported_copy)?;
        let query = table.event_query.ok_or_else(unsupported_copy)?;
        let mut opened = Self {
            stream: ptr::null_mut(),
            event: ptr::null_mut(),
            copy,
            record,
            query,
            destroy_event: None,
            destroy_stream: None,
        };
        // SAFETY: the table's owner promised conforming callbacks; the out parameter is valid.
        check("streamCreate", unsafe { create_stream(&raw mut opened.stream) })?;
        // From here on, dropping `opened` destroys what was made.
        opened.destroy_stream = table.stream_destroy;
        // SAFETY: as above.
        check("eventCreate", unsafe { create_event(&raw mut opened.event, WITHOUT_TIMING) })?;
        opened.destroy_event = table.event_destroy;
        Ok(opened)
    }
}

impl CopyStream for TableStream {
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        direction: Direction,
    ) -> Result<(), GpuError> {
        let (destination, source) = (destination as *mut c_void, source as *mut c_void);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        // SAFETY: the caller promises both ranges; the stream is this table's own.
        check("deviceMemcpy", unsafe {
            (self.copy)(destination, source, length, direction as c_int, self.stream, ptr::null_mut())
        })
    }

    fn mark(&mut self) -> Result<(), GpuError> {
        // SAFETY: event and stream are this table's own and alive.
        check("eventRecord", unsafe { (self.record)(self.event, self.stream) })
    }

    fn is_done(&mut self) -> Result<bool, GpuError> {
        // SAFETY: the event is this table's own and alive.
        match unsafe { (self.query)(self.event) } {
            SUCCESS => Ok(true),
            IN_PROGRESS => Ok(false),
            code => check("eventQuery", code).map(|()| true),
        }
    }
}

impl Drop for TableStream {
    fn drop(&mut self) {
        for (operation, destroy, object) in [
            ("eventDestroy", self.destroy_event, self.event),
            ("streamDestroy", self.destroy_stream, self.stream),
        ] {
            let Some(destroy) = destroy else { continue };
            // SAFETY: the object is this table's own, and nothing uses it after this.
            if let Err(error) = check(operation, unsafe { destroy(object) }) {
                tracing::warn!("{error}");
            }
        }
    }
}
