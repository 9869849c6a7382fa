//! What the connections of one engine share of one NIC.

use std::sync::Arc;

use super::device_events::{DeviceEvents, DeviceHealth};
use crate::fabric::{Device, FabricError};
use crate::memory::Registry;
use crate::pool::WorkerPool;
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
}

impl NicContext {
    /// The device.
    pub fn device(&self) -> &Arc<dyn Device> {
        self.pool.device()
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
