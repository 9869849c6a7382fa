//! The registrations of a region's memory with further NICs, made in the background, which end with the region.

use std::sync::Arc;

use super::region::Region;
use super::registry::Registry;
use crate::sync::{Mutex, lock};

/// What further NICs have registered of one region.
#[derive(Debug)]
pub(super) struct FurtherNics(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kept: Vec<OnNic>,
    /// Registrations that a device is making.
    under_way: usize,
    /// The region was taken out: nothing is kept any more.
    ended: bool,
}

/// The same memory, registered with another NIC.
#[derive(Clone, Debug)]
struct OnNic {
    registry: Arc<Registry>,
    region: Arc<Region>,
}

impl FurtherNics {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::default()))
    }

    /// Begins a registration; `None` if the region was taken out. Until the answer is dropped the region counts as in use.
    pub(super) fn begin(&self) -> Option<UnderWay<'_>> {
        let mut state = lock(&self.0);
        if state.ended {
            return None;
        }
        state.under_way += 1;
        Some(UnderWay(self))
    }

    /// Takes the region out of the registries of all further NICs. What is under way is not kept.
    pub(super) fn end(&self) {
        let kept = {
            let mut state = lock(&self.0);
            state.ended = true;
            state.kept.clone()
        };
        for OnNic { registry, region } in kept {
            registry.take_out_as_first(region.id);
        }
    }

    /// The region as the further NICs have it, also once it was taken out.
    pub(super) fn regions(&self) -> Vec<Arc<Region>> {
        lock(&self.0).kept.iter().map(|on_nic| Arc::clone(&on_nic.region)).collect()
    }

    /// Whether a transfer over a further NIC uses it, or one is being made to register it.
    pub(super) fn in_use(&self) -> bool {
        let state = lock(&self.0);
        state.under_way > 0 || state.kept.iter().any(|on_nic| on_nic.region.in_use())
    }

    /// Whether a NIC is registering it.
    pub(super) fn is_under_way(&self) -> bool {
        lock(&self.0).under_way > 0
    }
}

/// A registration that has begun.
#[derive(Debug)]
pub(super) struct UnderWay<'a>(&'a FurtherNics);

impl UnderWay<'_> {
    /// Puts what was registered into the registry of its NIC. False, and nothing is kept, if the region was taken out meanwhile.
    pub(super) fn keep(&self, registry: &Arc<Registry>, region: &Arc<Region>, first: &Region) -> bool {
        let mut state = lock(&self.0.0);
        if state.ended {
            return false;
        }
        // Under the lock: a thread that takes the region out finds it in both, or in none.
        registry.keep_as_first(Arc::clone(region), first);
        state.kept.push(OnNic { registry: Arc::clone(registry), region: Arc::clone(region) });
        true
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).under_way -= 1;
    }
}
