//! The worker pool of a NIC, shared by all engines of the process.
//!
//! A pool has workers; a worker owns one completion queue and the lanes (queue pairs) that complete into it. Its
//! [`WorkerState::step`] does all the work; who runs it is a matter of convenience: a caller that waits, or the
//! worker's own thread when nobody waits.

pub mod clock;
mod early_ends;
mod groups;
mod lane;
mod metrics;
mod parking;
mod part;
mod part_list;
mod request_list;
mod shared_worker;
mod slice;
mod slice_sizes;
mod spare_lists;
mod task;
mod thread;
mod worker;
mod worker_pool;

pub use early_ends::EarlyEnds;
pub use lane::{LaneHealth, LaneKey, LaneSetup, LaneStatus, LaneWatcher};
pub use request_list::RequestList;
pub use shared_worker::{Begun, Submission, Worker};
pub use slice::{Chunk, Cutter, Placed, Run, SlicePolicy, TooManyRequests};
pub use slice_sizes::SliceSizes;
pub use spare_lists::SpareLists;
pub use task::{EndState, RequestFailure, Task, TaskGeneration, TimeLimit};
pub use worker::{LaneClose, OneRequest, StepReport, WorkerLimits, WorkerState};
pub use worker_pool::{PoolOptions, WorkerPool};

use crate::fabric::FabricError;

/// Why a pool could not do something.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PoolError {
    /// The fabric refused.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// A worker has 65,536 lanes already.
    #[error(
        "a worker can hold 65,536 queue pairs and does; raise FLAGCX_P2P_WORKERS_PER_POOL or close connections"
    )]
    TooManyLanes,
    /// The operating system refused a thread or file descriptor.
    #[error("cannot start a worker thread: {0}")]
    Thread(String),
}
