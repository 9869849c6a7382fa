//! Transfers: what a caller asked for, cut into slices, and how it ended.

use std::fmt;
use std::time::Duration;

use crate::fork::Forked;
use crate::pool::EndState;

mod build;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod build_tests;
mod cutter;
mod direct;
mod end_notice;
mod failed;
mod free_list;
mod iovs;
mod on_rail;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod on_rail_segments_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod on_rail_tests;
mod outcomes;
mod plan;
mod record;
mod region_resolver;
mod remote_range;
mod segments;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod segments_tests;
mod slice_policy;
mod slice_sizes;
mod slots;
mod table;
mod worker_slots;

pub use crate::fabric::{CompletionStatus, Opcode};
pub use build::{build, build_one};
pub use cutter::{CheckedIov, Cutter, Placed, Run, TooManyRequests};
pub use direct::{DirectPieces, LONGEST_DIRECT};
pub(crate) use end_notice::{AtEnd, EndNotice};
pub use failed::Asked;
pub use iovs::IovSource;
pub use on_rail::OnRail;
pub use outcomes::REMEMBERED;
pub use plan::{Plan, Share, Spread};
pub use record::{TimeLimit, TransferGeneration, TransferRecord};
pub use region_resolver::Scope;
pub(crate) use region_resolver::{READ_ONLY_THERE, find_local};
pub use remote_range::RemoteRange;
pub use slice_policy::SlicePolicy;
pub use slice_sizes::SliceSizes;
pub use table::{Live, MOST_TRANSFERS, NewTransfer, Table};

/// One piece of a transfer as the caller names it.
#[derive(Clone, Copy, Debug)]
pub struct Iov {
    /// Local address: source of a WRITE, destination of a READ.
    pub local: u64,
    /// Bytes. No more than the remote range's size, unless they are more than its 32 bits can say: 4 GiB and more are checked
    /// against the regions that the peer announced alone, and by the fabric towards memory that it did not announce.
    pub length: u64,
    /// Local region; `None` looks it up by address.
    pub region: Option<crate::memory::RegionId>,
    /// Remote range; the piece begins where it does.
    pub remote: RemoteRange,
}

/// Names a transfer of one engine. Not given again before 2^42 other transfers; 0 means "already complete".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct TransferId(pub u64);

impl TransferId {
    /// What a call answers for a transfer that has ended well when it returns: one that was small enough for the calling thread to
    /// copy, or was to end so, with [`Request::at_once`](crate::Request::at_once). Every call that takes an id knows it.
    pub const COMPLETE: Self = Self(0);
}

/// How a transfer ended.
///
/// Of a WRITE that is not `Done`, what was on its way may still arrive at the peer until every lane of the connection is
/// healthy again, or the connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes are where they belong.
    Done,
    /// Something failed; the destination's content is unspecified within the transfer's own ranges.
    Failed(Failure),
    /// Not finished within its deadline; nothing touches its memory any more.
    TimedOut,
    /// Ended by the caller; nothing touches its memory any more.
    Cancelled,
}

/// Why a transfer failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{status} at {} of the transfer with {peer}{}{reason}",
    self.pieces(),
    if .reason.is_empty() { "" } else { ": " }
)]
pub struct Failure {
    /// Index of the first piece known to have failed, or of the first of those that may be it.
    pub iov: usize,
    /// Index of the last piece that may be it. As [`Failure::iov`] where the device names the request that failed; others name
    /// the oldest of those that were posted together.
    pub last_iov: usize,
    /// Completion status of it.
    pub status: CompletionStatus,
    /// The vendor's own code, 0 if none.
    pub vendor_error: u32,
    /// The peer, `ip:port` of its control listener.
    pub peer: String,
    /// What happened, in words.
    pub reason: String,
}

/// What is known of a transfer id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Still running.
    Pending,
    /// Ended.
    Ended(Outcome),
    /// Never issued, or longer ago than the engine remembers.
    Unknown,
}

/// Why a transfer was not accepted. Nothing was posted, but for [`SubmitError::Gpu`] and [`SubmitError::Ended`]: there
/// some pieces may have been moved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The connection is of a process from which this one was forked.
    #[error(transparent)]
    Forked(#[from] Forked),
    /// No pieces.
    #[error("a transfer needs at least one piece")]
    Empty,
    /// A piece's local range is in no registered region of the engine, or not inside the one that it names.
    #[error("piece {iov}: local range {address:#x}+{length} {problem}")]
    Local {
        /// Index of the piece.
        iov: usize,
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A piece's remote range is outside its descriptor or outside the peer's region.
    #[error("piece {iov}: remote range {address:#x}+{length} {problem}")]
    Remote {
        /// Index of the piece.
        iov: usize,
        /// Start.
        address: u64,
        /// Bytes.
        length: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The transfer needs more work requests than one transfer may have.
    #[error(
        "piece {iov} is where the transfer exceeds {max} work requests: start it in parts, or raise \
         FLAGCX_P2P_SLICE_SIZE",
        max = crate::pool::RequestList::LONGEST
    )]
    TooLong {
        /// Index of the piece.
        iov: usize,
    },
    /// The GPU runtime cannot move a piece.
    #[error("piece {iov}: {reason}")]
    Gpu {
        /// Index of the piece.
        iov: usize,
        /// Why.
        reason: String,
    },
    /// A call that waits for the end: the transfer ended otherwise than well.
    #[error("the transfer ended: {0}")]
    Ended(Outcome),
    /// There is no room, and the call was not to wait: a waiting queue is full, or [`MOST_TRANSFERS`] ids are in use. Try
    /// again after the end of some transfer has been asked for.
    #[error("there is no room for more transfers: ask about some that have ended, then try again")]
    WouldBlock,
    /// No id of a transfer became free until the transfer deadline.
    #[error(
        "all {most} transfer ids of the engine are in use, and none became free within {waited:?}: a transfer keeps its id \
         until its end has been asked for (XferStatus, XferResult, XferWait or TestBatch), so ask about some before starting \
         more"
    )]
    NoId {
        /// [`MOST_TRANSFERS`].
        most: usize,
        /// How long the call has waited.
        waited: Duration,
    },
    /// The waiting queue stayed full until the transfer deadline.
    #[error("the waiting queue stayed full for {0:?}")]
    QueueFull(Duration),
    /// More failed transfers of the connection are held for callers that ask only whether they have ended than an engine
    /// keeps, see `FLAGCX_P2P_FAILED_HOLD_MS`.
    #[error(
        "1,048,576 failed transfers with {peer} are within FLAGCX_P2P_FAILED_HOLD_MS: ask how they ended \
         (flagcxP2pEngineXferResult), or destroy the connection"
    )]
    TooManyFailures {
        /// The peer.
        peer: String,
    },
    /// The connection is closed or broken beyond repair.
    #[error("connection to {peer} is down: {reason}")]
    Down {
        /// Its control address.
        peer: String,
        /// Why.
        reason: String,
    },
}

impl Failure {
    /// The piece that failed, in words, or those of which one did.
    pub fn pieces(&self) -> String {
        match (self.iov, self.last_iov) {
            (first, last) if last > first => {
                format!("one of the pieces {first} to {last} (the device does not tell which)")
            }
            (piece, _) => format!("piece {piece}"),
        }
    }
}

impl Outcome {
    /// Without the details.
    pub(crate) fn state(&self) -> EndState {
        match self {
            Self::Done => EndState::Done,
            Self::Failed(_) => EndState::Failed,
            Self::TimedOut => EndState::TimedOut,
            Self::Cancelled => EndState::Cancelled,
        }
    }

    /// Of an ended transfer; `failure` says what failed, if a request did.
    fn new(state: EndState, failure: Option<Failure>) -> Self {
        match state {
            EndState::Done => Self::Done,
            EndState::TimedOut => Self::TimedOut,
            EndState::Cancelled => Self::Cancelled,
            EndState::Failed => Self::Failed(failure.unwrap_or_else(|| Failure {
                iov: 0,
                last_iov: 0,
                status: CompletionStatus::General,
                vendor_error: 0,
                peer: String::new(),
                reason: String::new(),
            })),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}
