//! The lanes of a connection over copy streams: made in this process when they are needed, and never negotiated.

use std::sync::Arc;
use std::time::Instant;

use super::context::Context;
use super::gpu_imports::Imports;
use super::lanes::LaneHandle;
use crate::fabric::gpu::{CopyStreams, GpuWorkQueue};
use crate::fabric::{FabricError, Opcode, WorkQueue};
use crate::gpu::{CurrentGpu, GpuError, GpuRuntime};
use crate::pool::{EndState, LaneCounts, LaneHealth, LaneSetup, LaneStatus, PoolError};
use crate::process::ProcessIdentity;
use crate::sync::{Mutex, lock};

/// Copies that may be outstanding on one stream.
const DEPTH: u32 = 256;

/// Why a lane takes no more transfers that is not as it should be.
const REPLACED: &str = "its copy stream was replaced";

/// Those of one connection.
#[derive(Debug)]
pub(super) struct GpuLanes {
    /// `None` once the connection is closed.
    lanes: Mutex<Option<Vec<GpuLane>>>,
    imports: Imports,
    /// What is counted of all of them: they have one worker.
    pub(super) counts: Arc<LaneCounts>,
}

/// One lane for each GPU and opcode, so that copies of both directions go on at a time.
#[derive(Debug)]
struct GpuLane {
    runtime: Arc<dyn GpuRuntime>,
    gpu: i32,
    opcode: Opcode,
    handle: LaneHandle,
}

/// Why there is no lane.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLane {
    /// The connection is closed.
    #[error("it is closed")]
    Closed,
    /// The runtime makes no stream.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// There is no worker for it.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl GpuLanes {
    /// `peer`: see [`Imports::of_peer`].
    pub(super) fn of_peer(peer: Option<ProcessIdentity>) -> Self {
        Self { lanes: Mutex::new(Some(Vec::new())), imports: Imports::of_peer(peer), counts: Arc::default() }
    }

    /// Memory of the peer that is open.
    pub(super) fn imports(&self) -> &Imports {
        &self.imports
    }

    /// The lanes that there are.
    pub(super) fn handles(&self) -> Vec<LaneHandle> {
        lock(&self.lanes).iter().flatten().map(|lane| lane.handle.clone()).collect()
    }

    /// The lane for such transfers, on a stream in the context of that GPU.
    pub(super) fn lane(
        &self,
        context: &Context,
        runtime: &Arc<dyn GpuRuntime>,
        gpu: i32,
        opcode: Opcode,
    ) -> Result<LaneHandle, NoLane> {
        let mut lanes = lock(&self.lanes);
        let lanes = lanes.as_mut().ok_or(NoLane::Closed)?;
        let place = lanes.iter().position(|lane| lane.gpu == gpu && lane.opcode == opcode);
        if let Some(lane) = place.and_then(|place| lanes.get(place)) {
            // One that is being renewed takes parts, too.
            let is_usable = matches!(lane.handle.status.health(), LaneHealth::Healthy | LaneHealth::Broken);
            if is_usable && Arc::ptr_eq(&lane.runtime, runtime) {
                return Ok(lane.handle.clone());
            }
        }
        let handle = make(context, runtime, gpu, &self.counts)?;
        let lane = GpuLane { runtime: Arc::clone(runtime), gpu, opcode, handle: handle.clone() };
        match place.and_then(|place| lanes.get_mut(place)) {
            Some(old) => end(&std::mem::replace(old, lane).handle, EndState::Failed, REPLACED),
            None => lanes.push(lane),
        }
        Ok(handle)
    }

    /// Ends them: what is under way may go on until `deadline`. False if some copies go on after that: the lane is an orphan
    /// then, which keeps their memory.
    pub(super) fn close(&self, end_state: EndState, reason: &str, deadline: Instant) -> bool {
        let lanes = lock(&self.lanes).take().unwrap_or_default();
        let mut all = true;
        for GpuLane { handle, .. } in &lanes {
            let close = || handle.worker.close_lane(handle.key, end_state, reason);
            while !close() {
                if Instant::now() >= deadline {
                    end(handle, end_state, reason);
                    all = false;
                    break;
                }
                let _ = handle.worker.drive_as_caller();
                std::thread::yield_now();
            }
        }
        self.imports.close();
        all
    }
}

/// Closes a lane, as an orphan if copies are under way.
fn end(handle: &LaneHandle, end_state: EndState, reason: &str) {
    if !handle.worker.close_lane(handle.key, end_state, reason) {
        handle.worker.destroy_lane(handle.key, end_state, reason);
    }
    handle.worker.kick();
}

fn make(
    context: &Context,
    runtime: &Arc<dyn GpuRuntime>,
    gpu: i32,
    counts: &Arc<LaneCounts>,
) -> Result<LaneHandle, NoLane> {
    let (worker_index, worker) = context.pool.copy_worker()?;
    let streams = Arc::clone(runtime);
    let open = move || {
        let _entered = CurrentGpu::ensure(&*streams, gpu)?;
        streams.open_stream()
    };
    let status = Arc::new(LaneStatus::counted(None, Arc::clone(counts)));
    let setup = LaneSetup { status: Arc::clone(&status), heals: true };
    // Opened before the worker's lock is taken: the first stream of a GPU makes its context, which takes long.
    let stream = Mutex::new(Some(open()?));
    let open = move || lock(&stream).take().map_or_else(&open, Ok);
    let streams = worker.queue_handle().downcast::<CopyStreams>().ok_or_else(|| {
        NoLane::Pool(PoolError::Fabric(FabricError::Unsupported(
            "internal error: the worker of copies has another completion queue".to_owned(),
        )))
    })?;
    let queue: Box<dyn WorkQueue> = Box::new(GpuWorkQueue::new(&streams, DEPTH, 1, Box::new(open))?);
    let key = worker.with_state(|state| state.add_lane(queue, setup))?;
    // Parked without lanes, it would sleep on.
    worker.kick();
    Ok(LaneHandle { worker: Arc::clone(worker), worker_index, key, status, device_events: None })
}
