//! What is known of a connection and its peer.

use std::net::{IpAddr, SocketAddr};

use super::rail::{LANES_PER_RAIL, Rail};
use super::{Connection, LaneEnds, LaneHandle};
use crate::fabric::{PathKind, Paths};
use crate::pool::LaneHealth;

/// The peer of a connection, as the handshake told.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Its control address.
    pub control: SocketAddr,
    /// Its address as seen by us.
    pub ip: IpAddr,
    /// Its GPU index.
    pub gpu_index: i32,
    /// Whether it is on this host.
    pub local: bool,
    /// Whether it is in this process.
    pub same_process: bool,
    /// Whether it runs this engine (false: the original).
    pub ours: bool,
    /// Random per engine: a restarted peer has another one. 0 from an original engine.
    pub incarnation: u64,
}

/// What is known of a connection, for operators and the extension API.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The peer's control address, `ip:port`.
    pub peer: String,
    /// How bytes travel now; the slower path where READs and WRITEs take different ones.
    pub path: PathKind,
    /// The path of each.
    pub paths: Paths,
    /// Lanes of all rails that have been made; those of the first were agreed at the handshake.
    pub lanes: usize,
    /// Lanes in working order now.
    pub healthy_lanes: usize,
    /// Whether the peer is on this host.
    pub local: bool,
    /// Whether the peer runs this engine (false: the original).
    pub ours: bool,
    /// The peer's GPU index.
    pub gpu_index: i32,
}

impl Connection {
    /// The peer, as the handshake told.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// What is known of the connection now: its path, and how many of its lanes work.
    pub fn info(&self) -> ConnectionInfo {
        let paths = self.paths();
        ConnectionInfo {
            peer: self.peer.control.to_string(),
            path: paths.slower(),
            paths,
            lanes: self.all_lanes().filter(|(_, lane)| lane.status.was_made()).count(),
            healthy_lanes: self
                .all_lanes()
                .filter(|(_, lane)| self.is_here() && lane.status.health() == LaneHealth::Healthy)
                .count(),
            local: self.peer.local,
            ours: self.peer.ours,
            gpu_index: self.peer.gpu_index,
        }
    }

    /// Whether transfers can still be started: it is not closed, and a lane works or is being rebuilt.
    pub fn is_usable(&self) -> bool {
        self.is_here()
            && !self.is_closed()
            && self.all_lanes().any(|(index, lane)| match lane.status.health() {
                LaneHealth::Healthy => true,
                // A further rail that was never up may be one that never comes.
                LaneHealth::Broken | LaneHealth::Drained => {
                    let rail = index / LANES_PER_RAIL;
                    self.heals && (rail == 0 || self.rails.get(rail).is_some_and(Rail::is_added))
                }
                LaneHealth::Closed => false,
            })
    }

    /// The ends of the first lane, as they were at the connect: GIDs and path MTUs of both sides.
    #[doc(hidden)]
    pub fn lane_ends(&self) -> Option<LaneEnds> {
        self.ends
    }

    /// How bytes travel now: a lane that has left a path for another one speaks for all.
    pub(super) fn paths(&self) -> Paths {
        if !self.is_here() {
            return self.paths;
        }
        let of_lane = |lane: &LaneHandle| lane.worker.with_state(|state| state.paths(lane.key));
        let mut lanes = self.lanes.iter().filter_map(of_lane);
        let Some(first) = lanes.next() else { return self.paths };
        lanes.find(|paths| *paths != first && paths.slower() == PathKind::Tcp).unwrap_or(first)
    }
}
