//! For tests: the software device with a largest region, and registrations that fail when told.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::delegating_device::delegate_to_inner;
use crate::fabric::{
    Device, DeviceAttributes, FabricError, MemoryRange, MemoryRegion, SoftwareOptions, software,
};

#[derive(Debug)]
pub(crate) struct LimitedDevice {
    pub(crate) inner: Arc<dyn Device>,
    pub(crate) attributes: DeviceAttributes,
    pub(crate) state: Arc<Mutex<State>>,
    /// The registration of the range with this byte fails.
    pub(crate) fails_at: Option<u64>,
    /// How long each registration takes.
    pub(crate) pause: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Starts and lengths of what is registered.
    pub(crate) registered: BTreeSet<(u64, u64)>,
    under_way: usize,
    /// The most registrations that were under way at a time.
    pub(crate) most: usize,
}

/// A registration that counts its end.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn MemoryRegion>,
    range: (u64, u64),
    state: Arc<Mutex<State>>,
}

impl LimitedDevice {
    pub(crate) fn new(max_region: u64) -> Self {
        let inner = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let attributes = DeviceAttributes { max_region, ..inner.attributes().clone() };
        Self { inner, attributes, state: Arc::default(), fails_at: None, pause: Duration::ZERO }
    }

    pub(crate) fn state(&self) -> Arc<Mutex<State>> {
        Arc::clone(&self.state)
    }
}

impl Device for LimitedDevice {
    fn attributes(&self) -> &DeviceAttributes {
        &self.attributes
    }
    delegate_to_inner!();
    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        assert!(range.length <= self.attributes.max_region, "{range:?}");
        {
            let mut state = self.state.lock().unwrap();
            state.under_way += 1;
            state.most = state.most.max(state.under_way);
        }
        std::thread::sleep(self.pause);
        let mut state = self.state.lock().unwrap();
        state.under_way -= 1;
        if self.fails_at.is_some_and(|byte| (range.address..range.address + range.length).contains(&byte)) {
            return Err(FabricError::call("register memory", "limited", libc::ENOMEM));
        }
        let (inner, range) = (self.inner.register(range)?, (range.address, range.length));
        state.registered.insert(range);
        Ok(Arc::new(Counted { inner, range, state: Arc::clone(&self.state) }))
    }
}

impl MemoryRegion for Counted {
    fn lkey(&self) -> u32 {
        self.inner.lkey()
    }
    fn rkey(&self) -> u32 {
        self.inner.rkey()
    }
    fn revoke(&self, deadline: Instant) -> Result<(), FabricError> {
        self.state.lock().unwrap().registered.remove(&self.range);
        self.inner.revoke(deadline)
    }
}
