//! The lanes of one rail, and what they know of the rest of the connection.

use std::time::Instant;

use super::adding::Adding;
use super::lane::LaneMachine;
use super::trying::Trial;
use crate::connection::DeviceHealth;

/// One rail. Number 0 is there from the beginning, others are added.
#[derive(Debug)]
pub(super) struct Rail {
    /// None until both ends have it.
    pub(super) lanes: Vec<LaneMachine>,
    pub(super) adding: Adding,
    /// The trial of the path that it is to take.
    pub(super) trial: Trial,
    /// Number of the last trial.
    pub(super) trials: u32,
    /// That its lanes do not connect was reported.
    pub(super) is_unconnected: bool,
    pub(super) view: RailView,
}

/// What a lane knows of its rail and of the other ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct RailView {
    /// The health of its device.
    pub(super) device: DeviceHealth,
    /// Another rail has a healthy lane: parts can go there, and nothing is closed that time can heal.
    pub(super) others_healthy: bool,
    /// Another rail has one, or may get one: it can be rebuilt, is being made, or can be made.
    pub(super) others_come: bool,
    /// Other rails may get keys of memory that this one has.
    pub(super) memory_comes: bool,
    /// Since when no other rail has one, if any ever had.
    pub(super) alone_since: Option<Instant>,
    /// The rail is left: see [`RailView::is_held`].
    pub(super) left: bool,
}

impl Rail {
    pub(super) fn new(adding: Adding) -> Self {
        let view = RailView {
            device: DeviceHealth::Up,
            others_healthy: false,
            others_come: false,
            memory_comes: false,
            alone_since: None,
            left: false,
        };
        Self { lanes: Vec::new(), adding, trial: Trial::None, trials: 0, is_unconnected: false, view }
    }

    pub(super) fn has_healthy_lane(&self) -> bool {
        self.lanes.iter().any(LaneMachine::is_healthy)
    }

    /// Whether none of its lanes has ever been in working order, and all that are needed have failed as often as is tried in a row.
    pub(super) fn has_never_connected(&self) -> bool {
        let mut begun = self.lanes.iter().filter(|lane| !lane.is_unneeded()).peekable();
        begun.peek().is_some() && begun.all(LaneMachine::has_never_connected)
    }

    /// Whether a lane may still be used, now or later.
    pub(super) fn is_open(&self) -> bool {
        !self.lanes.iter().all(LaneMachine::is_closed)
    }

    /// Whether a lane is left for good, and not closed yet.
    pub(super) fn is_parting(&self) -> bool {
        self.lanes.iter().any(LaneMachine::is_parting)
    }

    /// Whether it has a healthy lane, or may get one.
    pub(super) fn may_work(&self) -> bool {
        let is_being_made =
            matches!(self.adding, Adding::Trying(_) | Adding::Opening(_) | Adding::Asked { .. });
        let is_gone = |lane: &LaneMachine| lane.is_closed() || lane.is_parting();
        !self.view.device_is_lost() && (!self.lanes.iter().all(is_gone) || is_being_made)
    }
}

impl RailView {
    pub(super) fn port_is_down(&self) -> bool {
        matches!(self.device, DeviceHealth::PortDown(_))
    }

    pub(super) fn device_is_lost(&self) -> bool {
        matches!(self.device, DeviceHealth::Lost(_))
    }

    /// Whether parts can leave the rail: to another one that works, or, of a device that is lost, to one that may.
    pub(super) fn can_be_left(&self) -> bool {
        self.others_healthy || self.device_is_lost() && self.others_come
    }

    /// Whether rebuilds of the rail are held. If no other rail works, each is tried.
    pub(super) fn is_held(&self) -> bool {
        self.left && self.others_healthy
    }
}
