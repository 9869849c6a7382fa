//! Engines with several software NICs, of which each has switches for faults.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]
#![allow(missing_debug_implementations, missing_docs, reason = "helpers of tests")]

use std::sync::Arc;

use flagcx_p2p::internals::engine::{Engine, EngineOptions};
use flagcx_p2p::internals::fabric::software::{self, FaultSwitches, SoftwareDevice};
use flagcx_p2p::internals::fabric::{Device, DeviceList, PathKind, SoftwareOptions};

use crate::support;

/// The NICs of one end.
pub struct Nics {
    pub devices: Vec<Arc<SoftwareDevice>>,
}

impl Nics {
    /// So many, `sw0` to `sw7` at most.
    pub fn open(count: u32) -> Self {
        Self::on_path(count, None)
    }

    /// The same; bytes take this path.
    pub fn on_path(count: u32, force: Option<PathKind>) -> Self {
        let options =
            SoftwareOptions { device_count: count, switches: true, force, ..SoftwareOptions::default() };
        Self { devices: software::open_software(&options).unwrap() }
    }

    /// One of them by itself.
    pub fn only(&self, nic: usize) -> Self {
        Self { devices: vec![Arc::clone(&self.devices[nic])] }
    }

    /// An engine that has all of them to choose from.
    pub fn engine(&self, settings: &[(&str, &str)]) -> Arc<Engine> {
        let devices = self.devices.iter().map(|device| Arc::clone(device) as Arc<dyn Device>).collect();
        let devices = Some(Arc::new(DeviceList::of(devices)));
        Engine::open(support::config(settings), EngineOptions { gpu_index: 0, devices }).unwrap()
    }

    pub fn switches(&self, nic: usize) -> &FaultSwitches {
        self.devices[nic].switches().unwrap()
    }

    /// Turns a port off or on.
    pub fn set_port(&self, nic: usize, up: bool) {
        self.devices[nic].set_port(up);
    }

    pub fn lose(&self, nic: usize) {
        self.devices[nic].lose();
    }

    /// No faults any more, but for devices that are lost.
    pub fn heal(&self) {
        for (nic, device) in self.devices.iter().enumerate() {
            self.switches(nic).clear();
            if !device.port().unwrap().active {
                device.set_port(true);
            }
        }
    }

    /// Faults of all of them so far.
    pub fn injected(&self) -> u64 {
        (0..self.devices.len()).map(|nic| self.switches(nic).injected()).sum()
    }

    /// WRITEs that arrived after they were flushed, of all of them.
    pub fn landed(&self) -> u64 {
        (0..self.devices.len()).map(|nic| self.switches(nic).landed()).sum()
    }
}
