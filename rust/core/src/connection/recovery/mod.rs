//! Recovery of a connection's lanes after failures, frames of the peer and changes of the device: the rules alone.
//!
//! A [`Machine`] has no clock, no socket, no thread and no queue pair. Its driver reports events with their times,
//! and carries out the [`Action`]s that it returns. Therefore tests run it in virtual time.
//!
//! # What a driver does
//!
//! * It reports events in order, and carries out every action before it reports the next event. Frames in the socket
//!   and the state of lanes and device are reported before [`Machine::timeout`].
//! * It never blocks on a frame. While the socket accepts none it uses [`Machine::next_local_action`]; a frame that
//!   was not sent within [`STEP_LIMIT`] is an error of the channel ([`Machine::channel_lost`]).
//! * New queue pairs belong to the driver, identified by lane and attempt, until `Install` or `Discard`. One that is
//!   discarded while a helper works on it is destroyed when the helper is done. After `Lose` it destroys all of them.
//! * It calls [`Machine::lane_closed`] when a lane's worker destroys a queue pair that does not flush. `Install` on
//!   such a lane destroys the new queue pair.
//!
//! # How a lane is rebuilt
//!
//! The side that opened the connection leads, so that both never request a rebuild at once. The index of a lane stays:
//!
//! ```text
//! leader: lane broken -> drained -> new queue pair ── Rebuild ──▶ follower: breaks and drains its lane,
//!                                                                 new queue pair, connects it to the leader's
//!         connects its own, lane healthy  ◀── Rebuilt ──
//!                                          ── Ready ──▶           lane healthy
//! ```
//! If a lane fails at the follower first, the follower sends Broken and waits for a request. Interrupted requests are
//! posted again only after this, when the old queue pairs of both ends are in ERROR and drained, so that no request
//! of the old ones can still arrive. The side that closes a lane for good sends Refused, so that the other does not
//! wait for it.
//!
//! # Several rails
//!
//! Lane `i` of rail `r` has the index `r *` [`LANES_PER_RAIL`] `+ i`. Rails are added while the connection is in use (`adding`), and their
//! lanes are then built as others are rebuilt; before, a trial shows that their NICs reach each other (`trying`). While another rail has a healthy lane,
//!
//! * parts of a lane that fails move there, once nothing of them can still arrive (`leaving`): READs when the queue pair here is drained,
//!   WRITEs when the peer has said that its own is too;
//! * a queue pair that does not drain is destroyed soon, which is as good if its device can: the driver says if not (`Machine::lane_lingers`). A command
//!   that takes long is waited for;
//! * no lane is closed for what time can heal: the leader rests between attempts, the follower waits on;
//! * a rail may be left: its lanes are not rebuilt until it is used again.
//!
//! When no other rail works, the limits hold again within which transfers fail, from that moment on.

mod actions;
mod adding;
mod driver;
mod follower;
mod lane;
mod leader;
mod leaving;
mod limit;
mod machine;
mod rail;
mod reason;
mod rebuilds;
mod requests;
mod trying;

use std::time::Duration;

pub(super) use driver::{Driver, Parts, RedialParts};
pub(super) use machine::{Machine, RebuildPolicy};
pub(super) use rebuilds::Rebuilds;
pub(super) use requests::RailRequests;

use super::rail::LANES_PER_RAIL;
use actions::Action;
use reason::{LostReason, RebuildFailure};

/// Rebuilds of one lane that may fail in a row before the lane is closed. A lane that was rebuilt and fails again has
/// all attempts again: what bounds a transfer then is how often one of its parts may be interrupted.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// Time limit of one step of a rebuild: the drain that a peer waits for, its answer, a driver's `Connect`, a frame
/// that waits to be sent.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(3);

/// How long a queue pair in ERROR may take to drain while its parts could leave it. NICs take microseconds, and to destroy it in vain costs no more
/// than a rebuild does. Shorter than a worker waits before it closes the lane.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_millis(100);

/// How long the command that destroys such a queue pair is waited for while another rail works. A device that has not answered by then may never.
pub(super) const DESTROY_LIMIT: Duration = Duration::from_secs(30);

/// How long a queue pair may take to drain on a device that is lost.
pub(super) const LOST_DRAIN_LIMIT: Duration = Duration::from_millis(10);

/// How long the answer to a rebuild is waited for that was requested when no other rail worked, once one does: the parts of the lane can
/// go there, but their end is asked for only before a request. A peer that is well has answered by then.
pub(super) const ALONE_LIMIT: Duration = Duration::from_millis(20);

/// How long a driver may take for [`Action::Create`], [`Action::CreateConnected`] and [`Action::Connect`]. The driver
/// itself fails after [`STEP_LIMIT`] with a reason; this limit covers a driver that cannot.
pub(super) const DRIVER_LIMIT: Duration = Duration::from_secs(4);

/// How long a follower waits for a rebuild: longer than a live leader tries.
pub(super) const FOLLOW_LIMIT: Duration = Duration::from_secs(12);

/// How long lanes wait for a port that is down before they are closed: together with the rebuild after it, shorter
/// than a follower waits.
pub(super) const PORT_LIMIT: Duration = Duration::from_secs(8);

/// How long a connection without another rail that works waits for one once a device is lost, or the peer has closed its end of a lane: shorter than a
/// follower waits.
pub(super) const DEVICE_LIMIT: Duration = Duration::from_secs(8);

/// How long a lane of which the device is lost is kept while another rail works and may still get keys of memory that only this one has: to
/// register tens of GiB takes seconds.
pub(super) const MEMORY_LIMIT: Duration = Duration::from_secs(60);

/// Where no other rail works and one may come, a lane of which a queue pair cannot be created is tried until its pauses are so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Pauses between the attempts of a lane that rests, while another rail works: the first one, and the last one, to which they double.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LAST_PAUSE: Duration = Duration::from_secs(2);

/// The last pause of a lane that has never been in working order: as long as that of a pair of NICs that do not reach each other.
pub(super) const LAST_PAUSE_UNMADE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
