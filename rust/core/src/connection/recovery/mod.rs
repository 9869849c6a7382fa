//! What a connection does when a lane fails, the peer says something, or the device changes: the rules alone.
//!
//! A [`Machine`] has no clock, no socket, no thread and no queue pair. Its driver tells it what has happened and when,
//! and carries out the [`Action`]s that it answers. Therefore tests run it in virtual time.
//!
//! # What a driver does
//!
//! * It reports what has happened, in order, and carries out every action before it reports the next event. What waits in
//!   the socket, and what the lanes and the device say, is reported before [`Machine::timeout`].
//! * It never blocks on a frame. While the socket takes none it uses [`Machine::next_local_action`]; a frame that was not
//!   taken within [`STEP_LIMIT`] is an error of the channel ([`Machine::channel_lost`]).
//! * Queue pairs that are made belong to the driver, under the name of lane and attempt, until `Install` or `Discard`. What
//!   is discarded while a helper works on it is destroyed when the helper is done. After `Lose` it destroys all of them.
//! * It tells [`Machine::lane_closed`] when a lane's worker destroys a queue pair that does not flush. `Install` on such
//!   a lane destroys the new queue pair.
//!
//! # How a lane heals
//!
//! The side that connected leads, so that both never ask at once. A lane heals in its place:
//!
//! ```text
//! leader: lane broken -> drained -> new queue pair ── Rebuild ──▶ follower: breaks and drains its lane,
//!                                                                 new queue pair, connects it to the leader's
//!         connects its own, lane healthy  ◀── Rebuilt ──
//!                                          ── Ready ──▶           lane healthy
//! ```
//! A follower whose lane fails first says Broken and waits to be asked. Interrupted requests are posted again only
//! after this, when the old queue pairs of both ends are in ERROR and drained, so nothing of the old ones can still
//! arrive. The side that closes a lane for good says Refused, so that the other does not wait for it.

mod actions;
mod driver;
mod follower;
mod lane;
mod leader;
mod limit;
mod machine;
mod reason;
mod rebuilds;

use std::time::Duration;

pub(super) use driver::{Driver, Parts};
pub(super) use machine::{Machine, RebuildPolicy};
pub(super) use rebuilds::Rebuilds;

use actions::Action;
use reason::{Failure, LostReason};

/// Rebuilds of one lane that may fail in a row before it is given up. A lane that comes back and fails again starts
/// anew: what bounds a transfer then is how often one of its parts may be interrupted.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// How long one step of a rebuild may take: the drain that a peer waits for, its answer, a driver's `Connect`, a frame
/// that waits to be sent.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(3);

/// How long a driver may take for [`Action::Create`], [`Action::CreateConnected`] and [`Action::Connect`]. The driver
/// itself gives up after [`STEP_LIMIT`] and says why; this is for one that cannot.
pub(super) const DRIVER_LIMIT: Duration = Duration::from_secs(4);

/// How long a follower waits for a rebuild: longer than a leader that lives tries.
pub(super) const FOLLOW_LIMIT: Duration = Duration::from_secs(12);

/// How long lanes wait for a port that is down before they are given up: with a rebuild behind it, shorter than a
/// follower waits.
pub(super) const PORT_LIMIT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
