//! GPU memory of other processes of this host, opened here: kept open between transfers, so many allocations at most.
//!
//! The driver opens and closes an allocation without a lock. Its entry is in the list meanwhile, so that a thread which needs the
//! same allocation waits for that, and no other thread does. One that goes while a transfer uses it is closed by the worker that ends
//! the transfer: that worker's other copies wait for the driver.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::fabric::{FabricError, MemoryRegion};
use crate::gpu::{CurrentGpu, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcInfo, OpenedShare, Owner};
use crate::memory::{Hold, Region};
use crate::process::ProcessIdentity;
use crate::sync::{Condvar, Mutex, lock, wait};

/// Allocations of one peer that are kept open. One more closes the one that was not used for the longest time.
const KEPT: usize = 16;

/// How long a thread that waits for another one's call of the driver sleeps before it looks again without being woken.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is open of one peer's memory.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// The process that the peer has announced; `None` if it is not known, or is this one.
    peer: Option<ProcessIdentity>,
    list: Arc<List>,
}

#[derive(Debug, Default)]
struct List {
    state: Mutex<State>,
    /// Notified when the driver has opened or closed an allocation, or could not.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The one that was used last at the end.
    imports: Vec<Import>,
    /// Numbers given out so far.
    numbers: u64,
    /// How often all that was kept was let go. What the driver opens meanwhile is not kept either: the peer may be about to free it.
    releases: u64,
    /// The connection is closed: nothing is kept open beyond the transfers that use it.
    closed: bool,
}

/// An allocation, from before the driver opens it until it has closed it.
#[derive(Debug)]
struct Import {
    number: u64,
    handle: [u8; IPC_HANDLE_BYTES],
    gpu: i32,
    runtime: Arc<dyn GpuRuntime>,
    /// Says whether the memory is the peer's still, where that can be said.
    owner: Option<Arc<Owner>>,
    /// Bytes of the allocation, where they are known.
    length: Option<u64>,
    /// Open for as long as transfers hold it, or it is kept. None is there while the driver opens or closes it.
    region: Weak<Region>,
    /// Keeps it open between transfers.
    kept: Option<Arc<Region>>,
}

/// An allocation of another process, closed when dropped: not under the lock of the list.
#[derive(Debug)]
struct Opened {
    runtime: Arc<dyn GpuRuntime>,
    gpu: i32,
    /// `None` while it is dropped.
    memory: Option<OpenedShare>,
    /// Where it has its entry.
    list: Arc<List>,
    number: u64,
}

/// Memory of the peer that is open for a transfer.
#[derive(Debug)]
pub(super) struct Opening {
    /// Where the allocation begins here.
    pub(super) start: u64,
    /// Its bytes, where they are known.
    pub(super) length: Option<u64>,
    /// Keeps it open.
    pub(super) hold: Hold,
}

impl Imports {
    pub(super) fn of_peer(peer: Option<ProcessIdentity>) -> Self {
        Self { peer, list: Arc::default() }
    }

    /// Opens the allocation that `info` names, unless it is open. Memory that its owner has deregistered, or of a process that
    /// has ended, is refused, also if it is open still. Waits for another thread that opens or closes the same allocation.
    pub(super) fn open(
        &self,
        runtime: &Arc<dyn GpuRuntime>,
        gpu: i32,
        info: &IpcInfo,
    ) -> Result<Opening, GpuError> {
        let entry = match self.list.find_or_enter(runtime, gpu, info) {
            Found::Entered(entry) => entry,
            Found::Open { region, number, owner, length } => {
                if let Some(owner) = owner {
                    owner.check().inspect_err(|_| self.list.let_go(number))?;
                }
                return opening(&**runtime, &region, length);
            }
        };
        let _entered = CurrentGpu::ensure(&**runtime, gpu)?;
        let memory = OpenedShare::open(runtime, &info.handle, self.peer)?;
        let (address, length, owner) = (memory.address(), memory.length(), memory.owner().cloned());
        let (list, number) = (Arc::clone(&self.list), entry.number);
        let opened = Opened { runtime: Arc::clone(runtime), gpu, memory: Some(memory), list, number };
        let region = Region::imported(address, length.unwrap_or(info.size).max(1), Arc::new(opened));
        let opening = opening(&**runtime, &region, length);
        entry.fill(&region, owner, length);
        opening
    }

    /// Keeps nothing open beyond the transfers that use it, nor what is being opened now: the peer must not free memory that is open
    /// here.
    pub(super) fn release(&self) {
        let mut state = lock(&self.list.state);
        state.releases += 1;
        let kept: Vec<_> = state.imports.iter_mut().filter_map(|import| import.kept.take()).collect();
        drop(state);
        drop(kept);
    }

    /// As [`Imports::release`], for what is opened later, too.
    pub(super) fn close(&self) {
        lock(&self.list.state).closed = true;
        self.release();
    }
}

impl Drop for Imports {
    /// What is kept knows the list, which would keep itself.
    fn drop(&mut self) {
        self.close();
    }
}

fn opening(runtime: &dyn GpuRuntime, region: &Arc<Region>, length: Option<u64>) -> Result<Opening, GpuError> {
    // A region that nothing revokes can always be held.
    let hold = region
        .hold()
        .ok_or_else(|| GpuError::Unsupported { runtime: runtime.name(), operation: "use closed memory" })?;
    Ok(Opening { start: region.address, length, hold })
}

/// What the list has of an allocation.
enum Found<'a> {
    Open {
        region: Arc<Region>,
        number: u64,
        owner: Option<Arc<Owner>>,
        length: Option<u64>,
    },
    /// Nothing: the caller opens it.
    Entered(Entry<'a>),
}

impl List {
    fn find_or_enter(&self, runtime: &Arc<dyn GpuRuntime>, gpu: i32, info: &IpcInfo) -> Found<'_> {
        let mut state = lock(&self.state);
        loop {
            let is_it = |import: &Import| {
                import.handle == info.handle && import.gpu == gpu && Arc::ptr_eq(&import.runtime, runtime)
            };
            let Some(place) = state.imports.iter().position(is_it) else {
                return Found::Entered(self.enter(&mut state, runtime, gpu, info));
            };
            let import = state.imports.remove(place);
            let found = import.region.upgrade();
            let (number, owner, length) = (import.number, import.owner.clone(), import.length);
            state.imports.push(import);
            match found {
                Some(region) => return Found::Open { region, number, owner, length },
                // It must not be opened beside a close, or another time: not every runtime counts.
                None => state = wait(&self.changed, state, LOOK_AGAIN),
            }
        }
    }

    fn enter(&self, state: &mut State, runtime: &Arc<dyn GpuRuntime>, gpu: i32, info: &IpcInfo) -> Entry<'_> {
        let number = state.numbers;
        state.numbers += 1;
        state.imports.push(Import {
            number,
            handle: info.handle,
            gpu,
            runtime: Arc::clone(runtime),
            owner: None,
            length: None,
            region: Weak::new(),
            kept: None,
        });
        Entry { list: self, number, releases: state.releases, is_filled: false }
    }

    /// Keeps an allocation open no longer than transfers use it.
    fn let_go(&self, number: u64) {
        let mut state = lock(&self.state);
        let kept = state.numbered(number).and_then(|import| import.kept.take());
        drop(state);
        drop(kept);
    }

    /// The driver has nothing to do with an allocation any more.
    fn remove(&self, number: u64) {
        let mut state = lock(&self.state);
        let place = state.imports.iter().position(|import| import.number == number);
        let gone = place.map(|place| state.imports.remove(place));
        drop(state);
        self.changed.notify_all();
        drop(gone);
    }
}

impl State {
    fn numbered(&mut self, number: u64) -> Option<&mut Import> {
        self.imports.iter_mut().find(|import| import.number == number)
    }

    /// What is kept no longer, if too many are.
    fn excess(&mut self) -> Option<Arc<Region>> {
        if self.imports.iter().filter(|import| import.kept.is_some()).count() <= KEPT {
            return None;
        }
        let kept = self.imports.iter_mut().filter(|import| import.kept.is_some());
        let oldest = kept.min_by_key(|import| import.kept.as_ref().is_some_and(|region| region.in_use()));
        oldest.and_then(|import| import.kept.take())
    }
}

/// The entry of an allocation that is being opened; it goes if that fails.
struct Entry<'a> {
    list: &'a List,
    number: u64,
    /// [`State::releases`] when it was entered.
    releases: u64,
    is_filled: bool,
}

impl Entry<'_> {
    fn fill(mut self, region: &Arc<Region>, owner: Option<Arc<Owner>>, length: Option<u64>) {
        self.is_filled = true;
        let mut state = lock(&self.list.state);
        let keep = !state.closed && state.releases == self.releases;
        if let Some(import) = state.numbered(self.number) {
            (import.owner, import.length) = (owner, length);
            import.region = Arc::downgrade(region);
            import.kept = keep.then(|| Arc::clone(region));
        }
        let excess = state.excess();
        drop(state);
        self.list.changed.notify_all();
        drop(excess);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.is_filled {
            self.list.remove(self.number);
        }
    }
}

impl MemoryRegion for Opened {
    fn lkey(&self) -> u32 {
        crate::memory::NO_KEY
    }

    fn rkey(&self) -> u32 {
        crate::memory::NO_KEY
    }

    fn revoke(&self, _deadline: Instant) -> Result<(), FabricError> {
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let entered = CurrentGpu::ensure(&*self.runtime, self.gpu);
        drop(self.memory.take());
        drop(entered);
        self.list.remove(self.number);
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests;
