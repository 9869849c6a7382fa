//! Copies on a stream of the table's runtime.
#![allow(unsafe_code, reason = "calls the host program's C callbacks")]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use super::super::{CopyDirection, CopyStream, GpuError, host_call};
use super::GpuTable;
use super::layout::MemcpyFn;
use super::runtime::{SUCCESS, check, unsupported};
use crate::events::Notifier;

/// `flagcxInProgress`.
const IN_PROGRESS: c_int = 7;
/// `flagcxEventDisableTiming`.
const WITHOUT_TIMING: c_int = 1;
/// `flagcxUnhandledDeviceError`, which the adaptors answer when the vendor's runtime has failed: of a query, that the copies
/// before the event have failed with their GPU.
const DEVICE_ERROR: c_int = 1;

type StreamFn = unsafe extern "C" fn(*mut c_void) -> c_int;
type CreateEventFn = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;
type RecordFn = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;

/// A stream and the events that mark points on it. Holds the callbacks of the table that made them: objects of one adaptor
/// must not be given to another. Each call runs with the GPU that was current when the stream was made.
#[derive(Debug)]
pub(super) struct TableStream {
    table: GpuTable,
    /// `None` where the table cannot tell: what cannot be restored is not changed.
    gpu: Option<c_int>,
    stream: *mut c_void,
    /// By the number of the mark.
    events: Vec<*mut c_void>,
    copy: MemcpyFn,
    create_event: CreateEventFn,
    record: RecordFn,
    query: StreamFn,
}

// SAFETY: the callbacks may be called from any thread (the table's promise), and the objects behind the pointers are
// used by one thread at a time, since every method takes `&mut self`.
unsafe impl Send for TableStream {}

impl TableStream {
    /// Whether the table has what a stream needs.
    pub(super) fn is_offered(table: &GpuTable) -> bool {
        let GpuTable { device_memcpy, stream_create, event_create, event_record, event_query, .. } = table;
        device_memcpy.is_some()
            && stream_create.is_some()
            && event_create.is_some()
            && event_record.is_some()
            && event_query.is_some()
    }

    pub(super) fn open(table: &GpuTable) -> Result<Self, GpuError> {
        let unsupported_copy = || unsupported("copy GPU memory");
        let copy = table.device_memcpy.ok_or_else(unsupported_copy)?;
        let create_stream = table.stream_create.ok_or_else(unsupported_copy)?;
        let create_event = table.event_create.ok_or_else(unsupported_copy)?;
        let record = table.event_record.ok_or_else(unsupported_copy)?;
        let query = table.event_query.ok_or_else(unsupported_copy)?;
        let gpu = current(table).unwrap_or(None);
        let stream = ptr::null_mut();
        let table = *table;
        let mut opened = Self { table, gpu, stream, events: Vec::new(), copy, create_event, record, query };
        // SAFETY: the table's owner promised conforming callbacks; the out parameter is valid.
        check("streamCreate", unsafe { create_stream(&raw mut opened.stream) })?;
        // From here on, dropping `opened` destroys what was made.
        opened.event(0)?;
        Ok(opened)
    }

    /// The event of a mark, made if there is none. The stream's GPU is current.
    fn event(&mut self, mark: usize) -> Result<*mut c_void, GpuError> {
        while self.events.len() <= mark {
            let mut event = ptr::null_mut();
            // SAFETY: the table's owner promised conforming callbacks; the out parameter is valid.
            check("eventCreate", unsafe { (self.create_event)(&raw mut event, WITHOUT_TIMING) })?;
            self.events.push(event);
        }
        Ok(self.events.get(mark).copied().unwrap_or(ptr::null_mut()))
    }

    fn enter(&self) -> Result<Entered, GpuError> {
        Entered::new(self.table, self.gpu)
    }
}

fn current(table: &GpuTable) -> Result<Option<c_int>, GpuError> {
    let Some(get_device) = table.get_device.filter(|_| table.set_device.is_some()) else { return Ok(None) };
    let mut gpu = 0;
    // SAFETY: the table's owner promised a conforming callback; the out parameter is valid.
    check("getDevice", unsafe { get_device(&raw mut gpu) })?;
    Ok(Some(gpu))
}

/// A GPU that is current until this is dropped.
struct Entered {
    table: GpuTable,
    /// What was current before, if it was another one.
    before: Option<c_int>,
}

impl Entered {
    fn new(table: GpuTable, gpu: Option<c_int>) -> Result<Self, GpuError> {
        match current(&table) {
            Ok(before) => {
                let before = before.filter(|before| gpu.is_some_and(|gpu| gpu != *before));
                if before.is_some() {
                    set(&table, gpu)?;
                }
                Ok(Self { table, before })
            }
            // Some adaptors answer so on a thread that has not chosen a GPU yet, and nothing else works on it. It cannot be
            // left without one again.
            Err(_) if gpu.is_some() => set(&table, gpu).map(|()| Self { table, before: None }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Err(error) = set(&self.table, self.before) {
            tracing::warn!("the caller's current GPU could not be restored: {error}");
        }
    }
}

fn set(table: &GpuTable, gpu: Option<c_int>) -> Result<(), GpuError> {
    let (Some(set_device), Some(gpu)) = (table.set_device, gpu) else { return Ok(()) };
    // SAFETY: the table's owner promised a conforming callback.
    check("setDevice", unsafe { set_device(gpu) })
}

impl CopyStream for TableStream {
    unsafe fn copy(
        &mut self,
        destination: u64,
        source: u64,
        length: u64,
        direction: CopyDirection,
    ) -> Result<(), GpuError> {
        let (destination, source) = (destination as *mut c_void, source as *mut c_void);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let _entered = self.enter()?;
        // SAFETY: the caller promises both ranges; the stream is this table's own.
        check("deviceMemcpy", unsafe {
            (self.copy)(destination, source, length, direction as c_int, self.stream, ptr::null_mut())
        })
    }

    fn mark(&mut self, mark: usize) -> Result<(), GpuError> {
        let _entered = self.enter()?;
        let event = self.event(mark)?;
        // SAFETY: event and stream are this table's own and alive.
        check("eventRecord", unsafe { (self.record)(event, self.stream) })
    }

    fn is_done(&mut self, mark: usize) -> Result<bool, GpuError> {
        let Some(&event) = self.events.get(mark) else { return Ok(true) };
        let _entered = self.enter()?;
        // SAFETY: the event is this table's own and alive.
        match unsafe { (self.query)(event) } {
            SUCCESS => Ok(true),
            IN_PROGRESS => Ok(false),
            code => check("eventQuery", code)
                .map(|()| true)
                .map_err(|error| error.lost_if(|code| code == DEVICE_ERROR)),
        }
    }

    fn notify(&mut self, notifier: &Arc<Notifier>) -> Result<(), GpuError> {
        let wanted = || unsupported("call the host when a stream has come so far");
        let call = self.table.launch_host_func.ok_or_else(wanted)?;
        let _entered = self.enter()?;
        host_call::launch(notifier, |called, argument| {
            // SAFETY: the stream is this table's own and alive; the function takes the argument from any thread.
            check("launchHostFunc", unsafe { call(self.stream, called, argument) })
        })
    }
}

impl Drop for TableStream {
    fn drop(&mut self) {
        let _entered = self.enter();
        let events = self.events.iter().map(|event| ("eventDestroy", self.table.event_destroy, *event));
        for (operation, destroy, object) in
            events.chain([("streamDestroy", self.table.stream_destroy, self.stream)])
        {
            let Some(destroy) = destroy.filter(|_| !object.is_null()) else { continue };
            // SAFETY: the object is this table's own, and nothing uses it after this.
            if let Err(error) = check(operation, unsafe { destroy(object) }) {
                tracing::warn!("{error}");
            }
        }
    }
}
