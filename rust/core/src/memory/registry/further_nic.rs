//! The registry of a further NIC, which has what that of the first one has: a thread registers there what is registered here.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use super::{Entry, FurtherNicError, Registry};
use crate::memory::region::{Region, RegionId};

impl Registry {
    /// This registry, which keeps what further NICs need to register the same memory.
    pub(crate) fn with_further_nics(self) -> Self {
        Self { has_further_nics: true, ..self }
    }

    /// From now on `other`, which is empty, has the regions of this registry that `takes` lets it have, with the same ids. They
    /// are registered with its device in the background, those that are here already first; a region that leaves this
    /// registry leaves that one too. What its device refuses is not in it, which the log says.
    pub(crate) fn add_further_nic(
        &self,
        other: Arc<Self>,
        takes: impl Fn(&Region) -> bool + Send + Sync + 'static,
    ) -> Result<(), FurtherNicError> {
        let further = FurtherNic::start(other, Box::new(takes)).map_err(FurtherNicError::NoThread)?;
        let mut state = self.regions.lock();
        if state.closed {
            return Err(FurtherNicError::Closed);
        }
        state.by_id.values().for_each(|entry| further.add(&entry.region));
        state.further.push(further);
        Ok(())
    }

    /// Keeps what the device of this registry, which is that of a further NIC, has registered of `first`, a region of the first
    /// one.
    pub(in crate::memory) fn keep_as_first(&self, region: Arc<Region>, first: &Region) {
        let mut state = self.regions.lock();
        let (id, asked, announced) = (region.id, region.access, self.announce(&region, Some(first)));
        state.by_id.insert(id, Entry { region, asked, owners: 1, announced });
        self.changed(&state);
    }

    /// The region has left the registry of the first NIC.
    pub(in crate::memory) fn take_out_as_first(&self, id: RegionId) {
        let mut state = self.regions.lock();
        let _ = self.take_out(&mut state, id);
    }
}

/// What registers the regions of the first NIC with a further one, until this is dropped.
#[derive(Debug)]
pub(super) struct FurtherNic(Arc<Shared>);

/// Whether a NIC is to register a region.
pub(super) type Takes = Box<dyn Fn(&Region) -> bool + Send + Sync>;

/// What the thread and the first registry share.
struct Shared {
    registry: Arc<Registry>,
    takes: Takes,
    queue: Mutex<Queue>,
    /// Notified when the queue gets something, or is closed.
    changed: Condvar,
    /// The log has a line about a region that the device has refused. Relaxed: only which is the first matters.
    has_refused: AtomicBool,
}

#[derive(Default)]
struct Queue {
    /// In the order of their registration. Weak: those that are gone before their turn need not be registered.
    waiting: VecDeque<Weak<Region>>,
    closed: bool,
}

impl FurtherNic {
    /// With a thread, which waits for regions.
    pub(super) fn start(registry: Arc<Registry>, takes: Takes) -> io::Result<Self> {
        let (queue, changed) = (Mutex::default(), Condvar::new());
        let shared =
            Arc::new(Shared { registry, takes, queue, changed, has_refused: AtomicBool::new(false) });
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new().name("p2p-further".to_owned()).spawn(move || of_thread.run())?;
        Ok(Self(shared))
    }

    /// Has the thread register `region`, soon. Never waits for a device.
    pub(super) fn add(&self, region: &Arc<Region>) {
        if !region.has_recipe() {
            return;
        }
        let mut queue = self.0.lock();
        if queue.waiting.len() == queue.waiting.capacity() {
            // Before it grows: a device that hangs keeps no room for regions that are gone.
            queue.waiting.retain(|region| region.strong_count() > 0);
        }
        queue.waiting.push_back(Arc::downgrade(region));
        drop(queue);
        self.0.changed.notify_one();
    }
}

impl Drop for FurtherNic {
    /// The thread ends by itself after what it is doing.
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.waiting.clear();
        drop(queue);
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        while let Some(region) = self.next() {
            self.register(&region);
        }
    }

    /// Waits for the next region; `None` once there is none to come.
    fn next(&self) -> Option<Arc<Region>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            match queue.waiting.pop_front() {
                Some(region) => {
                    if let Some(region) = region.upgrade() {
                        return Some(region);
                    }
                }
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn register(&self, first: &Arc<Region>) {
        let Some(recipe) = first.recipe() else { return };
        if !(self.takes)(first) {
            return;
        }
        // Dropped last: a thread that deregisters the region waits until this one is kept, or discarded.
        let Some(under_way) = first.further().begin() else { return };
        match recipe.register(first, &*self.registry.device) {
            Ok(made) => {
                if !under_way.keep(&self.registry, &made, first) {
                    made.discard();
                }
            }
            Err(error) => self.tell_refusal(first, &error.to_string()),
        }
    }

    fn tell_refusal(&self, region: &Region, error: &str) {
        let device = self.registry.device.attributes().name.as_str();
        let (id, address, length) = (region.id.0, region.address, region.length);
        if self.has_refused.swap(true, Ordering::Relaxed) {
            tracing::debug!(device, "region {id} ({address:#x}+{length}) is not registered here: {error}");
        } else {
            tracing::warn!(
                device,
                "region {id} ({address:#x}+{length}) is not registered here, so its transfers go over the other NICs: {error} (further \
                 lines about this device are of level DEBUG)"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.lock().waiting.len();
        f.debug_struct("FurtherNic").field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[path = "further_nic_tests.rs"]
mod tests;
