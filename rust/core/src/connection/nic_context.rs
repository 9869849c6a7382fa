//! What the connections of one engine share of one NIC.

use std::sync::{Arc, Weak};

use super::device_commands::DeviceCommands;
use super::device_events::{DeviceEvents, DeviceHealth};
use super::nic_flow::NicFlow;
use super::nic_record::bytes_per_second;
use crate::fabric::{Device, FabricError};
use crate::memory::Registry;
use crate::pool::{LaneStatus, WorkerPool};
use crate::rails::RailCounts;
use crate::sync::{Mutex, lock};
use crate::transfer::SlicePolicy;

/// A NIC that an engine has opened, kept until the engine ends.
#[derive(Debug)]
pub struct NicContext {
    /// The number by which peers know it: its place in [`Context::nics`](super::Context::nics).
    pub number: u16,
    /// Its workers.
    pub pool: Arc<WorkerPool>,
    /// The engine's memory as this NIC knows it: the same ids on all of them, with keys of this one. What this NIC has not
    /// registered, not yet or not at all, is not in it.
    pub registry: Arc<Registry>,
    /// How transfers are cut into work requests, if queue pairs are granted what is asked.
    pub policy: SlicePolicy,
    /// What the device says on its own; `None` where they cannot be read.
    pub(super) device_events: Option<Arc<DeviceEvents>>,
    /// What all connections of the engine have under way on it.
    pub(super) flow: Arc<NicFlow>,
    /// What its device is to do beside, and may take long for.
    pub(super) commands: Arc<DeviceCommands>,
    /// The lanes of all connections on it, of which `flow` is the sum.
    pub(super) lanes: Mutex<Vec<Weak<LaneStatus>>>,
}

impl NicContext {
    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        self.pool.device()
    }

    /// A lane on this NIC was made.
    pub(super) fn count_lane(&self, lane: &Arc<LaneStatus>) {
        let mut lanes = lock(&self.lanes);
        // Those that are gone, each time their number has doubled.
        if lanes.len() == lanes.capacity() {
            lanes.retain(|lane| lane.strong_count() > 0);
        }
        lanes.push(Arc::downgrade(lane));
    }

    /// What the lanes on it count.
    pub(super) fn counts(&self) -> RailCounts {
        let lanes = lock(&self.lanes);
        lanes.iter().filter_map(Weak::upgrade).fold(RailCounts::default(), |sum, lane| add_counts(sum, &lane))
    }

    /// How the device is, as far as its events tell.
    pub fn device_health(&self) -> DeviceHealth {
        health(self.device_events.as_deref())
    }

    /// Refuses when nothing can move over the device now.
    pub fn require_port(&self) -> Result<(), FabricError> {
        require_port(&**self.device(), self.device_health())
    }
}

/// Adds what a lane counts.
pub(super) fn add_counts(sum: RailCounts, lane: &LaneStatus) -> RailCounts {
    let ((completions, in_flight), (started, ended)) = (lane.requests(), lane.counts.bytes());
    RailCounts {
        completions: sum.completions.wrapping_add(completions),
        bytes_done: sum.bytes_done.wrapping_add(ended),
        in_flight: sum.in_flight + u64::from(in_flight),
        bytes_in_flight: sum.bytes_in_flight.saturating_add(started.saturating_sub(ended)),
    }
}

/// The flow of a device, the port of which has this speed.
pub(super) fn flow_of(device: &dyn Device) -> Arc<NicFlow> {
    let mbps = device.port().map_or(0, |port| port.speed_mbps);
    Arc::new(NicFlow::new(bytes_per_second(mbps)))
}

/// The events of a device; `None`, with a line in the log, where they cannot be read.
pub(super) fn listen(device: &Arc<dyn Device>) -> Option<Arc<DeviceEvents>> {
    DeviceEvents::of_device(device)
        .inspect_err(|error| {
            tracing::warn!("cannot listen to the asynchronous events of the device: {error}")
        })
        .ok()
}

/// What the events of a device say of it.
pub(super) fn health(events: Option<&DeviceEvents>) -> DeviceHealth {
    events.map_or(DeviceHealth::Up, DeviceEvents::health)
}

/// Refuses when nothing can move over a device of this health.
pub(super) fn require_port(device: &dyn Device, health: DeviceHealth) -> Result<(), FabricError> {
    let attributes = device.attributes();
    let name = format!("{} port {}", attributes.name, attributes.port);
    match health {
        DeviceHealth::Up => Ok(()),
        DeviceHealth::PortDown(since) => Err(FabricError::Unsupported(format!(
            "{name} has been down for {} ms: bring its link up",
            since.elapsed().as_millis()
        ))),
        DeviceHealth::Lost(reason) => Err(FabricError::Unsupported(format!(
            "{name} cannot be used any more: {reason}; start the process again once it is back"
        ))),
    }
}
