//! A runtime and a stream for unit tests of what is built on them: they count, and answer what a test tells them.
#![allow(unsafe_code, reason = "a stream that copies nothing")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{
    CopyDirection, CopyStream, DmaBufExport, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcExport, PointerKind,
    SavedGpu,
};

#[derive(Debug, Default)]
pub(crate) struct PlayedRuntime {
    pub(crate) opens: AtomicUsize,
    pub(crate) closes: AtomicUsize,
    /// Bytes that it says of what it has opened, if it says any.
    pub(crate) opened_bytes: Option<u64>,
    /// The allocation of which each opening waits for the test.
    pub(crate) slow_open: Option<(u8, Gate)>,
    /// That of which each close does.
    pub(crate) slow_close: Option<(u8, Gate)>,
}

/// Where calls wait for the test.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Calls that have come, and how many may pass.
    calls: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut calls = self.calls.lock().unwrap();
        calls.0 += 1;
        let number = calls.0;
        self.changed.notify_all();
        drop(self.changed.wait_while(calls, |(_, passes)| *passes < number).unwrap());
    }

    /// Waits until a call waits here.
    pub(crate) fn wait_for_call(&self) {
        let calls = self.calls.lock().unwrap();
        drop(self.changed.wait_while(calls, |(came, passes)| came <= passes).unwrap());
    }

    /// Lets one more call pass.
    pub(crate) fn let_pass(&self) {
        self.calls.lock().unwrap().1 += 1;
        self.changed.notify_all();
    }

    /// Lets all calls pass.
    pub(crate) fn open_for_all(&self) {
        self.calls.lock().unwrap().1 = usize::MAX;
        self.changed.notify_all();
    }
}

/// Where an allocation is opened.
const FIRST: u64 = 0x1000;

fn pass_if_slow(gate: Option<&(u8, Gate)>, number: u8) {
    if let Some((_, gate)) = gate.filter(|(slow, _)| *slow == number) {
        gate.pass();
    }
}

impl PlayedRuntime {
    pub(crate) fn slow_open(&self) -> &Gate {
        &self.slow_open.as_ref().unwrap().1
    }

    pub(crate) fn slow_close(&self) -> &Gate {
        &self.slow_close.as_ref().unwrap().1
    }

    /// Calls of `ipc_open`.
    pub(crate) fn opens(&self) -> usize {
        self.opens.load(Ordering::SeqCst)
    }

    /// Allocations that are open.
    pub(crate) fn open(&self) -> usize {
        self.opens() - self.closes.load(Ordering::SeqCst)
    }
}

fn cannot<T>() -> Result<T, GpuError> {
    Err(GpuError::Unsupported { runtime: "played", operation: "do this" })
}

impl GpuRuntime for PlayedRuntime {
    fn name(&self) -> &'static str {
        "played"
    }
    fn pointer_kind(&self, _: u64) -> Result<PointerKind, GpuError> {
        cannot()
    }
    fn gpu_count(&self) -> Result<u32, GpuError> {
        Ok(1)
    }
    fn current_gpu(&self) -> Result<i32, GpuError> {
        Ok(0)
    }
    fn pci_bus_id(&self, _: i32) -> Result<String, GpuError> {
        cannot()
    }
    fn enter(&self, _: i32) -> Result<SavedGpu, GpuError> {
        cannot()
    }
    fn restore(&self, _: SavedGpu) -> Result<(), GpuError> {
        Ok(())
    }
    fn open_stream(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        cannot()
    }
    fn ipc_export(&self, _: u64) -> Result<IpcExport, GpuError> {
        cannot()
    }
    fn ipc_open(&self, handle: &[u8; IPC_HANDLE_BYTES]) -> Result<u64, GpuError> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        pass_if_slow(self.slow_open.as_ref(), handle[0]);
        Ok(FIRST * (1 + u64::from(handle[0])))
    }
    fn opened_range(&self, address: u64) -> Result<(u64, u64), GpuError> {
        self.opened_bytes.map_or_else(cannot, |bytes| Ok((address, bytes)))
    }
    fn ipc_close(&self, address: u64) -> Result<(), GpuError> {
        pass_if_slow(self.slow_close.as_ref(), (address / FIRST - 1) as u8);
        self.closes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn dma_buf(&self, _: u64, _: u64) -> Result<DmaBufExport, GpuError> {
        cannot()
    }
}

/// What streams of one test have done, and what they answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlayedStreams(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Copies are done.
    pub(crate) done: bool,
    /// What a question whether they are is answered with instead.
    pub(crate) answer: Option<GpuError>,
    /// What the next copy is refused with.
    pub(crate) refuse: Option<GpuError>,
    /// Opening a stream fails.
    pub(crate) closed: bool,
    pub(crate) opened: usize,
    pub(crate) copies: usize,
    /// Streams that have not been dropped.
    pub(crate) live: usize,
}

#[derive(Debug)]
struct PlayedStream(PlayedStreams);

impl PlayedStreams {
    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    pub(crate) fn open(&self) -> Result<Box<dyn CopyStream>, GpuError> {
        let mut script = self.script();
        if script.closed {
            return cannot();
        }
        (script.opened, script.live) = (script.opened + 1, script.live + 1);
        Ok(Box::new(PlayedStream(self.clone())))
    }
}

impl CopyStream for PlayedStream {
    unsafe fn copy(&mut self, _: u64, _: u64, _: u64, _: CopyDirection) -> Result<(), GpuError> {
        let mut script = self.0.script();
        script.copies += 1;
        script.refuse.take().map_or(Ok(()), Err)
    }
    fn mark(&mut self, _: usize) -> Result<(), GpuError> {
        Ok(())
    }
    fn is_done(&mut self, _: usize) -> Result<bool, GpuError> {
        let script = self.0.script();
        script.answer.clone().map_or(Ok(script.done), Err)
    }
    fn notify(&mut self, _: &Arc<crate::events::Notifier>) -> Result<(), GpuError> {
        cannot()
    }
}

impl Drop for PlayedStream {
    fn drop(&mut self) {
        self.0.script().live -= 1;
    }
}
