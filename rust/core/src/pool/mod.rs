//! The worker pool of a NIC, shared by all engines of the process.
//!
//! A pool has workers; a worker owns one completion queue and the lanes (queue pairs) that complete into it. Its
//! [`WorkerState::step`] does all the work; it is run by a caller that waits, or by the worker's own thread when
//! none does. A pool moves lists of work requests, and reports to what they are parts of ([`PartOwner`]).

mod absent_queue_pair;
pub mod clock;
mod copy_clock;
mod copy_counts;
mod copying_thread;
mod direct_lane;
mod drive_guard;
mod early_ends;
mod groups;
mod jobs;
mod lane;
mod lane_counts;
mod lane_key;
mod lane_status;
mod lane_table;
mod metrics;
mod new_part;
mod parking;
mod part;
mod part_list;
mod part_owner;
mod places;
mod quick_clock;
mod request_list;
mod shared_worker;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod shared_worker_tests;
mod shares;
mod slow_clock;
mod spare_lists;
mod taken_part;
mod thread;
mod worker;
mod worker_bits;
mod worker_pool;

pub use direct_lane::DirectLane;
pub(crate) use drive_guard::OwnedDriveGuard;
pub use early_ends::EarlyEnds;
pub use lane::LaneSetup;
pub use lane_counts::LaneCounts;
pub use lane_key::LaneKey;
pub use lane_status::{BreakCause, LaneHealth, LaneStatus, LaneWatcher};
pub use new_part::NewPart;
pub use part_owner::{EndState, PartEnd, PartOwner, RequestFailure};
pub use request_list::{NotOnRail, RequestList};
pub use shared_worker::{Backlog, Submission, Worker};
pub use spare_lists::SpareLists;
pub use taken_part::TakenPart;
pub use worker::{LaneClose, ProbeError, StepReport, UnfinishedPart, WorkerLimits, WorkerState};
pub use worker_bits::{COPY_WORKER, WORKERS_PER_POOL, worker_bit, worker_of_bit, workers_used};
pub use worker_pool::{PoolOptions, WorkerPool};

use crate::fabric::FabricError;

/// Now, for [`Submission::begun`]: one reading for all parts of a transfer.
pub fn transfer_begins() -> u64 {
    quick_clock::now_ns().max(1)
}

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
