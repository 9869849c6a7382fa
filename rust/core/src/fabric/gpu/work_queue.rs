//! A work queue over a copy stream.
#![allow(unsafe_code, reason = "starts copies by address")]

use std::sync::Arc;

use super::completion_queue::CopyStreams;
use super::copies::Copies;
use super::is_gpu;
use crate::fabric::{
    Batch, FabricError, Opcode, PathKind, Paths, Posted, QueuePairCaps, Sge, WorkQueue, WorkRequest,
};
use crate::gpu::{CopyDirection, CopyStream, GpuError};
use crate::sync::{Mutex, lock};

/// Opens a stream, in the context of its GPU, which need not be the calling thread's.
pub type OpenStream = Box<dyn Fn() -> Result<Box<dyn CopyStream>, GpuError> + Send>;

/// Copies in order on one stream.
pub struct GpuWorkQueue {
    caps: QueuePairCaps,
    open: OpenStream,
    copies: Arc<Mutex<Copies>>,
    streams: Arc<CopyStreams>,
}

impl GpuWorkQueue {
    /// A queue of `depth` requests on a new stream, completing into the queue of `streams`.
    pub fn new(
        streams: &Arc<CopyStreams>,
        depth: u32,
        max_sge: u32,
        open: OpenStream,
    ) -> Result<Self, GpuError> {
        let copies = Arc::new(Mutex::new(Copies::new(open()?)));
        streams.attach(&copies);
        let caps = QueuePairCaps { send_depth: depth.max(1), max_sge: max_sge.max(1), max_inline: 0 };
        Ok(Self { caps, open, copies, streams: Arc::clone(streams) })
    }
}

impl WorkQueue for GpuWorkQueue {
    fn caps(&self) -> QueuePairCaps {
        self.caps
    }

    /// Returns once the copies have been started, which for pageable host memory may be once they are done.
    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        let mut copies = lock(&self.copies);
        let room = self.caps.send_depth.saturating_sub(copies.outstanding()) as usize;
        let taken = batch.requests.len().min(room);
        let mut started = 0;
        if copies.error().is_none() {
            for request in batch.requests.iter().take(taken) {
                if let Err(error) = start(&mut *copies.stream, batch.opcode, request, batch.entries) {
                    copies.started(batch, started);
                    copies.failed(batch, started, &error);
                    started += 1;
                    copies.flushed(batch, started, taken);
                    return answer(batch, taken);
                }
                started += 1;
            }
            copies.started(batch, started);
        }
        copies.flushed(batch, started, taken);
        answer(batch, taken)
    }

    fn set_error(&mut self) -> Result<(), FabricError> {
        lock(&self.copies).break_off("moved to ERROR");
        Ok(())
    }

    fn is_broken(&self) -> bool {
        lock(&self.copies).error().is_some()
    }

    fn paths(&self) -> Paths {
        Paths::both(PathKind::InProcess)
    }

    fn can_stop(&self) -> bool {
        false
    }

    fn renew(&mut self) -> Result<(), FabricError> {
        let mut copies = lock(&self.copies);
        if copies.outstanding() > 0 {
            return Err(FabricError::Unsupported("copies are under way on the stream".to_owned()));
        }
        let stream = (self.open)().map_err(|error| FabricError::Unsupported(error.to_string()))?;
        copies.renew(stream);
        Ok(())
    }

    fn error_text(&self) -> String {
        lock(&self.copies).error().unwrap_or_default().to_owned()
    }
}

impl Drop for GpuWorkQueue {
    /// Copies under way go on: the completion queue keeps the stream until they are done.
    fn drop(&mut self) {
        lock(&self.copies).is_orphaned = true;
        self.streams.sweep();
    }
}

impl std::fmt::Debug for GpuWorkQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuWorkQueue").field("caps", &self.caps).finish_non_exhaustive()
    }
}

fn answer(batch: &Batch<'_>, taken: usize) -> Posted {
    if taken == batch.requests.len() { Posted::all(batch) } else { Posted::cut(taken, libc::ENOMEM) }
}

/// Starts the copies of one request.
fn start(
    stream: &mut dyn CopyStream,
    opcode: Opcode,
    request: &WorkRequest,
    entries: &[Sge],
) -> Result<(), GpuError> {
    let first = request.first_sge as usize;
    let entries = entries.get(first..first + usize::from(request.sge_count)).unwrap_or_default();
    let mut remote = request.remote_address;
    for entry in entries.iter().filter(|entry| entry.length > 0) {
        let (near, far) = ((entry.address, is_gpu(entry.lkey)), (remote, is_gpu(request.rkey)));
        let (from, to) = if opcode == Opcode::Write { (near, far) } else { (far, near) };
        let direction = match (from.1, to.1) {
            (true, true) => CopyDirection::GpuToGpu,
            (true, false) => CopyDirection::GpuToHost,
            (false, _) => CopyDirection::HostToGpu,
        };
        // SAFETY: the poster promises that the ranges are valid, of the kinds that their keys say, and stay so until the
        // request has completed (provider contract, "Retirement"): it completes only once the stream says that a mark behind
        // these copies is reached, or that it is lost.
        unsafe { stream.copy(to.0, from.0, u64::from(entry.length), direction) }?;
        remote = remote.wrapping_add(u64::from(entry.length));
    }
    Ok(())
}
