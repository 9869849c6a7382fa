//! What the task sees of devices and lanes.

use crate::connection::{Connection, DeviceHealth};
use crate::pool::{BreakCause, LaneHealth};

/// State of the device, or of a lane that is not healthy.
#[derive(Debug)]
pub(super) enum Observation {
    Device {
        rail: usize,
        health: DeviceHealth,
    },
    /// `failed`: neither has this end moved it to ERROR, nor was it broken by a request that an end has refused.
    Broken {
        lane: usize,
        reason: String,
        failed: bool,
    },
    /// As [`Observation::Broken`], and nothing is outstanding.
    Drained {
        lane: usize,
        reason: String,
        failed: bool,
    },
    /// `leaks`: its queue pair could not be destroyed.
    Closed {
        lane: usize,
        leaks: bool,
    },
}

/// The state of the devices and of the lanes that are not healthy. Those that are not `made` yet have not failed.
pub(super) fn observe(connection: &Connection, made: u64) -> Vec<Observation> {
    let devices = connection.rail_devices().map(|(rail, health)| Observation::Device { rail, health });
    let mut seen: Vec<_> = devices.collect();
    for (lane, handle) in connection.all_lanes() {
        let health = handle.status.health();
        let is_made = 1_u64.checked_shl(lane as u32).is_some_and(|bit| made & bit != 0);
        if is_made && matches!(health, LaneHealth::Broken | LaneHealth::Drained) {
            connection.note_broken(lane, &handle.status.reason());
        }
        let failed = handle.status.break_cause() == BreakCause::Failure;
        let reason = || handle.status.reason();
        match health {
            LaneHealth::Healthy => {}
            LaneHealth::Broken => {
                seen.push(Observation::Broken { lane, reason: reason(), failed });
                // Wakes the worker to drain it, which it may not do on its own when it has no requests.
                handle.worker.kick();
            }
            LaneHealth::Drained => seen.push(Observation::Drained { lane, reason: reason(), failed }),
            LaneHealth::Closed => {
                seen.push(Observation::Closed { lane, leaks: handle.status.leaks() });
            }
        }
    }
    seen
}
