//! The registry of a further NIC, which has what that of the first one has: a thread registers there what is registered here.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{Entry, FurtherNicError, Registry};
use crate::fabric::FabricError;
use crate::memory::region::{Region, RegionId};

impl Registry {
    /// This registry, which keeps what further NICs need to register the same memory.
    pub(crate) fn with_further_nics(self) -> Self {
        Self { has_further_nics: true, ..self }
    }

    /// From now on `other`, which is empty, has the regions of this registry that `takes` lets it have, with the same ids. They
    /// are registered with its device in the background, those that are here already first; a region that leaves this
    /// registry leaves that one too. What its device refuses is not in it, which the log says; if the reason may pass, it is tried
    /// again later.
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

    /// Whether further NICs still register what is registered here. Not what a device has refused, which may take it later.
    pub(crate) fn is_registering_further(&self) -> bool {
        self.regions.lock().further.iter().any(FurtherNic::is_at_work)
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
    /// Refused for a reason that may pass, the oldest first.
    put_off: VecDeque<Weak<Region>>,
    /// How long the device is left alone after it has refused one of them again, and until when.
    pause: Duration,
    again_at: Option<Instant>,
    /// The thread has one.
    is_at_work: bool,
    closed: bool,
}

/// Pauses before what was refused is tried again: the first one, and the longest, to which they double. A device that has no room costs one
/// command for each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A region for the thread to register.
struct Next {
    region: Arc<Region>,
    /// It was refused before.
    is_again: bool,
}

impl Queue {
    /// The next one, and until when to wait for one if there is none now.
    fn next(&mut self, now: Instant) -> Result<Next, Option<Instant>> {
        while let Some(region) = self.waiting.pop_front() {
            if let Some(region) = region.upgrade() {
                return Ok(Next { region, is_again: false });
            }
        }
        if self.again_at.is_some_and(|at| now < at) {
            return Err(self.again_at);
        }
        while let Some(region) = self.put_off.pop_front() {
            if let Some(region) = region.upgrade() {
                return Ok(Next { region, is_again: true });
            }
        }
        (self.pause, self.again_at) = (Duration::ZERO, None);
        Err(None)
    }

    /// It was refused for a reason that may pass.
    fn put_off(&mut self, Next { region, is_again }: &Next, now: Instant) {
        push(&mut self.put_off, region);
        if *is_again || self.again_at.is_none() {
            self.pause = (2 * self.pause).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            self.again_at = Some(now + self.pause);
        }
    }
}

fn push(queue: &mut VecDeque<Weak<Region>>, region: &Arc<Region>) {
    if queue.len() == queue.capacity() {
        // Before it grows: a device that hangs keeps no room for regions that are gone.
        queue.retain(|region| region.strong_count() > 0);
    }
    queue.push_back(Arc::downgrade(region));
}

/// Whether the device may take what it has refused with this error once it has more room, or less to do.
fn may_pass(error: &FabricError) -> bool {
    match error {
        FabricError::Call { errno, .. } => matches!(
            *errno,
            libc::ENOMEM
                | libc::EAGAIN
                | libc::EBUSY
                | libc::EINTR
                | libc::ENOBUFS
                | libc::ENOSPC
                | libc::EMFILE
                | libc::ENFILE
        ),
        FabricError::TimedOut { .. } => true,
        FabricError::Unsupported(_)
        | FabricError::Peer { .. }
        | FabricError::StillInUse { .. }
        | FabricError::Library { .. } => false,
    }
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
        push(&mut queue.waiting, region);
        drop(queue);
        self.0.changed.notify_one();
    }

    fn is_at_work(&self) -> bool {
        let queue = self.0.lock();
        queue.is_at_work || queue.waiting.iter().any(|region| region.strong_count() > 0)
    }
}

impl Drop for FurtherNic {
    /// The thread ends by itself after what it is doing.
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.waiting.clear();
        queue.put_off.clear();
        drop(queue);
        self.0.changed.notify_one();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Registered, or there is nothing more to do.
    Over,
    /// Refused for a reason that may pass.
    PutOff,
}

impl Shared {
    fn run(&self) {
        while let Some(next) = self.next() {
            if self.register(&next) == Outcome::PutOff {
                self.lock().put_off(&next, Instant::now());
            }
        }
    }

    /// Waits for the next region; `None` once there is none to come.
    fn next(&self) -> Option<Next> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            let now = Instant::now();
            let next = queue.next(now);
            queue.is_at_work = matches!(next, Ok(Next { is_again: false, .. }));
            queue = match next {
                Ok(next) => return Some(next),
                Err(None) => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Err(Some(at)) => {
                    let waited = self.changed.wait_timeout(queue, at.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn register(&self, Next { region: first, is_again }: &Next) -> Outcome {
        let Some(recipe) = first.recipe() else { return Outcome::Over };
        if !(self.takes)(first) {
            return Outcome::Over;
        }
        // Dropped last: a thread that deregisters the region waits until this one is kept, or discarded.
        let Some(under_way) = first.further().begin() else { return Outcome::Over };
        match recipe.register(first, &*self.registry.device) {
            Ok(made) => {
                if !under_way.keep(&self.registry, &made, first) {
                    made.discard();
                } else if *is_again {
                    let (device, id) = (self.registry.device.attributes().name.as_str(), first.id.0);
                    tracing::info!(
                        device,
                        "region {id}, which was refused here before, is registered here now"
                    );
                }
            }
            Err(error) => {
                self.tell_refusal(first, &error.to_string());
                if may_pass(&error) {
                    return Outcome::PutOff;
                }
            }
        }
        Outcome::Over
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
