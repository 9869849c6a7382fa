//! Transfers that the device runtime moves: those under way, and the streams that they run on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gpu::{CopyStream, CurrentDevice, GpuError, GpuRuntime, IPC_HANDLE_BYTES};
use crate::memory::Hold;
use crate::pool::{PartOwner, RequestFailure};
use crate::sync::{Mutex, lock};
use crate::transfer::{CompletionStatus, Task, TransferId};

/// Streams kept for reuse.
const MAX_IDLE: usize = 16;

/// Only callers poll these transfers: one that waits polls this often, at least.
pub(super) const LOOK: Duration = Duration::from_micros(200);

/// How long a caller that has waited for `waited` sleeps before its next look: a sixteenth of it, which is what the sleep may
/// add to the transfer.
pub(super) fn nap(waited: Duration) -> Duration {
    (waited / 16).min(LOOK)
}

/// The device transfers of one engine.
#[derive(Debug)]
pub(super) struct DeviceCopies {
    running: Mutex<HashMap<TransferId, Running>>,
    /// Copies of transfers that were refused when some had been started, and did not end in time: they hold their memory
    /// until they have.
    abandoned: Mutex<Vec<Copies>>,
    /// Streams on which nothing runs; `None` once the engine is closed.
    idle: Mutex<Option<Vec<Stream>>>,
}

impl Default for DeviceCopies {
    fn default() -> Self {
        Self { running: Mutex::default(), abandoned: Mutex::default(), idle: Mutex::new(Some(Vec::new())) }
    }
}

#[derive(Debug)]
struct Running {
    /// The connection that it belongs to.
    connection: u64,
    task: &'static Task,
    copies: Copies,
}

/// What a transfer needs until its last copy is done. Dropped in this order.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) stream: Stream,
    /// The peer's memory, as far as it had to be opened.
    pub(super) opened: Vec<OpenedMemory>,
    /// Our regions.
    pub(super) holds: Vec<Hold>,
}

/// A stream of one device of one runtime.
#[derive(Debug)]
pub(super) struct Stream {
    runtime: Arc<dyn GpuRuntime>,
    device: i32,
    stream: Box<dyn CopyStream>,
}

/// Device memory of another process, closed when dropped.
#[derive(Debug)]
pub(super) struct OpenedMemory {
    runtime: Arc<dyn GpuRuntime>,
    device: i32,
    pub(super) address: u64,
}

impl DeviceCopies {
    /// A stream of `device` that was used before.
    pub(super) fn idle_stream(&self, runtime: &Arc<dyn GpuRuntime>, device: i32) -> Option<Stream> {
        let fits = |stream: &Stream| Arc::ptr_eq(&stream.runtime, runtime) && stream.device == device;
        self.release_abandoned();
        let mut idle = lock(&self.idle);
        let idle = idle.as_mut()?;
        idle.iter().position(fits).map(|index| idle.swap_remove(index))
    }

    /// Gives back a stream on which nothing runs.
    pub(super) fn keep(&self, stream: Stream) {
        if let Some(idle) = lock(&self.idle).as_mut() {
            if idle.len() == MAX_IDLE {
                // The oldest may belong to a runtime that was replaced.
                idle.remove(0);
            }
            idle.push(stream);
        }
    }

    /// The engine is closed: gives its streams back to their runtimes now, for a handle of a connection, or its recovery, may
    /// live on.
    pub(super) fn close(&self) {
        self.release_abandoned();
        drop(lock(&self.idle).take());
    }

    /// Takes what a refused transfer had started: gives it back when it is over, at once or by `deadline`, else whenever
    /// somebody looks.
    pub(super) fn abandon(&self, mut copies: Copies, deadline: Instant) {
        if !copies.stream.drain(deadline) {
            tracing::warn!(
                "cannot tell whether the copies of a refused transfer are over: their memory stays in use"
            );
            lock(&self.abandoned).push(copies);
        }
    }

    fn release_abandoned(&self) {
        lock(&self.abandoned).retain_mut(|copies| !copies.stream.drain(Instant::now()));
    }

    /// Takes charge of a transfer whose copies have been started and marked.
    pub(super) fn add(&self, id: TransferId, connection: u64, task: &'static Task, copies: Copies) {
        lock(&self.running).insert(id, Running { connection, task, copies });
    }

    /// Looks whether a transfer is over, and ends it if so.
    pub(super) fn poll(&self, id: TransferId) {
        let mut running = lock(&self.running);
        let Some(over) = running.get_mut(&id).map(|transfer| transfer.copies.stream.stream.is_done()) else {
            return;
        };
        if matches!(over, Ok(false)) {
            return;
        }
        let transfer = running.remove(&id);
        drop(running);
        if let Some(transfer) = transfer {
            self.end(transfer, over.err());
        }
    }

    /// The same for all.
    pub(super) fn poll_all(&self) {
        for id in self.ids(|_| true) {
            self.poll(id);
        }
        self.release_abandoned();
    }

    /// Waits until every transfer of a connection is over; false if `deadline` came first.
    pub(super) fn finish(&self, connection: u64, deadline: Instant) -> bool {
        loop {
            let ids = self.ids(|running| running.connection == connection);
            if ids.is_empty() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            ids.into_iter().for_each(|id| self.poll(id));
            std::thread::sleep(LOOK);
        }
    }

    fn ids(&self, wanted: impl Fn(&Running) -> bool) -> Vec<TransferId> {
        let running = lock(&self.running);
        running.iter().filter(|(_, running)| wanted(running)).map(|(id, _)| *id).collect()
    }

    fn end(&self, transfer: Running, error: Option<GpuError>) {
        let Running { task, copies: Copies { stream, opened, holds }, .. } = transfer;
        match error {
            None => self.keep(stream),
            Some(error) => task.fail(RequestFailure {
                iov: 0,
                status: CompletionStatus::General,
                vendor_error: 0,
                reason: error.to_string(),
            }),
        }
        // Before the caller is told, who may free the memory then.
        drop((opened, holds));
        task.end_part();
    }
}

impl Drop for DeviceCopies {
    /// What still runs keeps its memory for as long as the process lives.
    fn drop(&mut self) {
        self.poll_all();
        std::mem::take(&mut *lock(&self.abandoned)).into_iter().for_each(std::mem::forget);
        std::mem::take(&mut *lock(&self.running)).into_values().for_each(std::mem::forget);
    }
}

impl Stream {
    /// A new stream of `device`, which is current.
    pub(super) fn open(runtime: &Arc<dyn GpuRuntime>, device: i32) -> Result<Self, GpuError> {
        Ok(Self { runtime: Arc::clone(runtime), device, stream: runtime.open_stream()? })
    }

    /// The copies of this stream.
    pub(super) fn copies(&mut self) -> &mut dyn CopyStream {
        &mut *self.stream
    }

    /// Waits until nothing runs on it; false if `deadline` came first, or if the device cannot mark the end.
    fn drain(&mut self, deadline: Instant) -> bool {
        if self.stream.mark().is_err() {
            return false;
        }
        while let Ok(false) = self.stream.is_done() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

impl OpenedMemory {
    /// Opens what `handle` names. `device` is current.
    pub(super) fn open(
        runtime: &Arc<dyn GpuRuntime>,
        device: i32,
        handle: &[u8; IPC_HANDLE_BYTES],
    ) -> Result<Self, GpuError> {
        Ok(Self { address: runtime.ipc_open(handle)?, device, runtime: Arc::clone(runtime) })
    }
}

impl Drop for OpenedMemory {
    fn drop(&mut self) {
        let _entered = CurrentDevice::ensure(&*self.runtime, self.device);
        if let Err(error) = self.runtime.ipc_close(self.address) {
            tracing::warn!("the device memory of another process was not closed: {error}");
        }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::gpu::{Direction, HostRuntime};
    use crate::transfer::TimeLimit;

    /// What it answers, and whether its stream was closed.
    #[derive(Debug, Default)]
    struct Device {
        refuses: AtomicBool,
        done: AtomicBool,
        closed: AtomicBool,
    }

    #[derive(Debug)]
    struct Slow(Arc<Device>);

    impl CopyStream for Slow {
        #[allow(unsafe_code, reason = "moves nothing")]
        unsafe fn copy(&mut self, _: u64, _: u64, _: u64, _: Direction) -> Result<(), GpuError> {
            Ok(())
        }
        fn mark(&mut self) -> Result<(), GpuError> {
            let refuses = self.0.refuses.load(Ordering::SeqCst);
            if refuses { Err(GpuError::Unsupported { runtime: "test", operation: "mark" }) } else { Ok(()) }
        }
        fn is_done(&mut self) -> Result<bool, GpuError> {
            Ok(self.0.done.load(Ordering::SeqCst))
        }
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.closed.store(true, Ordering::SeqCst);
        }
    }

    fn on(device: &Arc<Device>) -> Copies {
        let stream =
            Stream { runtime: Arc::new(HostRuntime), device: 0, stream: Box::new(Slow(Arc::clone(device))) };
        Copies { stream, opened: Vec::new(), holds: Vec::new() }
    }

    /// Memory is held as long as copies may run, also when the device refuses to mark their end.
    #[test]
    fn abandoned_copies_are_kept_until_they_are_over() {
        let device = Arc::new(Device::default());
        let refuses = |refuses| device.refuses.store(refuses, Ordering::SeqCst);
        let done = |done| device.done.store(done, Ordering::SeqCst);
        let copies = DeviceCopies::default();
        refuses(true);
        done(true);
        copies.abandon(on(&device), Instant::now());
        copies.poll_all();
        assert!(!device.closed.load(Ordering::SeqCst), "done without a mark speaks of others");
        refuses(false);
        done(false);
        copies.poll_all();
        assert!(!device.closed.load(Ordering::SeqCst));
        done(true);
        copies.close();
        assert!(device.closed.load(Ordering::SeqCst));
    }

    /// A connection waits for its copies only so long.
    #[test]
    fn copies_that_outlive_their_engine_keep_their_memory() {
        let [slow, over] = [false, true].map(|done| {
            let device = Arc::new(Device::default());
            device.done.store(done, Ordering::SeqCst);
            device
        });
        let copies = DeviceCopies::default();
        for (id, device) in [&slow, &over].into_iter().enumerate() {
            let task: &Task = Box::leak(Box::default());
            task.start(1, TimeLimit::NEVER);
            copies.add(TransferId(id as u64), 0, task, on(device));
        }
        copies.close();
        drop(copies);
        assert!(over.closed.load(Ordering::SeqCst));
        assert!(!slow.closed.load(Ordering::SeqCst));
    }
}
