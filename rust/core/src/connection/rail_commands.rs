//! What the recovery does with rails: it opens them, and takes the parts of their lanes.

use super::{Connection, DeviceHealth, LaneHandle};
use crate::control::RailRefusal;

/// Called by the connection's recovery. [`Connection::open_rail`] and [`Connection::move_parts`] block for commands of the device and for
/// locks of workers, never for the peer.
impl Connection {
    /// Opens this end of rail `rail`: its NIC, by its place in the list that was sent to the peer, and `lanes` lanes without queue pairs,
    /// which wait for their rebuilds.
    #[allow(clippy::unused_self, reason = "nothing is opened yet")]
    pub(super) fn open_rail(&self, rail: usize, nic: u16, lanes: usize) -> Result<(), RailRefusal> {
        let _ = (rail, nic, lanes);
        Err(RailRefusal::Limited)
    }

    /// Takes parts from a lane that is drained, and posts them on other rails: those that read, and, if `both_ends` are drained, those that
    /// write. Parts that no other rail can take stay, and wait for the rebuild.
    #[allow(clippy::unused_self, reason = "nothing is moved yet")]
    pub(super) fn move_parts(&self, lane: usize, both_ends: bool) {
        let _ = (lane, both_ends);
    }

    /// Leader: rail `rail` is not made.
    #[allow(clippy::unused_self, reason = "nothing is opened yet")]
    pub(super) fn rail_refused(&self, rail: usize, why: RailRefusal) {
        let _ = (rail, why);
    }

    /// Leader: the peer has need of a rail of NIC `own` here and NIC `peer` there.
    #[allow(clippy::unused_self, reason = "nothing is opened yet")]
    pub(super) fn rail_requested(&self, own: u16, peer: u16) {
        let _ = (own, peer);
    }

    /// The lanes of all rails with their indices: eight places for each rail.
    pub(super) fn all_lanes(&self) -> impl Iterator<Item = (usize, &LaneHandle)> {
        self.lanes.iter().enumerate()
    }

    /// The health of the NIC of each rail.
    pub(super) fn rail_devices(&self) -> impl Iterator<Item = (usize, DeviceHealth)> {
        std::iter::once((0, self.context.device_health()))
    }
}
