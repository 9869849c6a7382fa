//! GPU memory of other processes of this host, opened here: kept open between transfers, so many allocations at most.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::fabric::{FabricError, MemoryRegion};
use crate::gpu::{CurrentGpu, GpuError, GpuRuntime, IPC_HANDLE_BYTES, IpcInfo, OpenedShare, Owner};
use crate::memory::{Hold, Region};
use crate::process::ProcessIdentity;
use crate::sync::{Mutex, lock};

/// Allocations of one peer that are kept open. One more closes the one that was not used for the longest time.
const KEPT: usize = 16;

/// What is open of one peer's memory, the allocation that was used last at the end.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// The process that the peer has announced; `None` if it is not known, or is this one.
    peer: Option<ProcessIdentity>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Import>,
    /// The connection is closed: nothing is kept open beyond the transfers that use it.
    closed: bool,
}

#[derive(Debug)]
struct Import {
    handle: [u8; IPC_HANDLE_BYTES],
    gpu: i32,
    runtime: Arc<dyn GpuRuntime>,
    /// Says whether the memory is the peer's still, where that can be said.
    owner: Option<Arc<Owner>>,
    /// Bytes of the allocation, where they are known.
    length: Option<u64>,
    /// Open for as long as transfers hold it, or it is kept.
    region: Weak<Region>,
    /// Keeps it open between transfers.
    kept: Option<Arc<Region>>,
}

/// An allocation of another process, closed when dropped.
#[derive(Debug)]
struct Opened {
    runtime: Arc<dyn GpuRuntime>,
    gpu: i32,
    /// `None` while it is dropped.
    memory: Option<OpenedShare>,
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
        Self { peer, state: Mutex::default() }
    }

    /// Opens the allocation that `info` names, unless it is open. Memory that its owner has deregistered, or of a process that
    /// has ended, is refused, also if it is open still.
    pub(super) fn open(
        &self,
        runtime: &Arc<dyn GpuRuntime>,
        gpu: i32,
        info: &IpcInfo,
    ) -> Result<Opening, GpuError> {
        let mut state = lock(&self.state);
        // Closed since the last transfer that used them.
        state.open.retain(|import| import.region.strong_count() > 0);
        let is_it = |import: &Import| {
            import.handle == info.handle && import.gpu == gpu && Arc::ptr_eq(&import.runtime, runtime)
        };
        // One that is open but not kept must not be opened again: not every runtime counts.
        let found = state.open.iter().position(is_it).map(|place| state.open.remove(place));
        if let Some(owner) = found.as_ref().and_then(|import| import.owner.as_ref()) {
            owner.check()?;
        }
        let open = found.and_then(|import| Some((import.region.upgrade()?, import)));
        let (region, import) = match open {
            Some(open) => open,
            None => self.import(runtime, gpu, info, !state.closed)?,
        };
        let (start, length, hold) = (region.address, import.length, region.hold());
        state.open.push(import);
        if state.open.iter().filter(|import| import.kept.is_some()).count() > KEPT {
            let oldest = state.open.iter_mut().filter(|import| import.kept.is_some());
            let oldest =
                oldest.min_by_key(|import| import.kept.as_ref().is_some_and(|region| region.in_use()));
            oldest.and_then(|import| import.kept.take());
        }
        // A region that nothing revokes can always be held.
        let hold = hold.ok_or_else(|| GpuError::Unsupported {
            runtime: runtime.name(),
            operation: "use closed memory",
        })?;
        Ok(Opening { start, length, hold })
    }

    fn import(
        &self,
        runtime: &Arc<dyn GpuRuntime>,
        gpu: i32,
        info: &IpcInfo,
        keep: bool,
    ) -> Result<(Arc<Region>, Import), GpuError> {
        let _entered = CurrentGpu::ensure(&**runtime, gpu)?;
        let memory = OpenedShare::open(runtime, &info.handle, self.peer)?;
        let (address, length, owner) = (memory.address(), memory.length(), memory.owner().cloned());
        let opened = Opened { runtime: Arc::clone(runtime), gpu, memory: Some(memory) };
        let region = Region::imported(address, length.unwrap_or(info.size).max(1), Arc::new(opened));
        let import = Import {
            handle: info.handle,
            gpu,
            runtime: Arc::clone(runtime),
            owner,
            length,
            region: Arc::downgrade(&region),
            kept: keep.then(|| Arc::clone(&region)),
        };
        Ok((region, import))
    }

    /// Keeps nothing open beyond the transfers that use it: the peer must not free memory that is open here.
    pub(super) fn release(&self) {
        lock(&self.state).open.iter_mut().for_each(|import| import.kept = None);
    }

    /// As [`Imports::release`], for what is opened later, too.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.release();
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
        let _entered = CurrentGpu::ensure(&*self.runtime, self.gpu);
        drop(self.memory.take());
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;
    use crate::gpu::PlayedRuntime;

    fn info(number: u8) -> IpcInfo {
        IpcInfo { handle: [number; IPC_HANDLE_BYTES], base: 0, offset: 0, size: 64 }
    }

    #[test]
    fn an_allocation_is_opened_once_and_the_oldest_idle_one_closed() {
        let played = Arc::new(PlayedRuntime::default());
        let runtime = Arc::clone(&played) as Arc<dyn GpuRuntime>;
        let imports = Imports::default();
        let Opening { start: first, hold: in_use, .. } = imports.open(&runtime, 0, &info(0)).unwrap();
        for number in 1..=KEPT as u8 {
            drop(imports.open(&runtime, 0, &info(number)).unwrap());
        }
        assert_eq!(
            (played.opens(), played.open()),
            (KEPT + 1, KEPT),
            "the second one, not that in use, was closed"
        );
        assert_eq!(imports.open(&runtime, 0, &info(0)).unwrap().start, first);
        assert_eq!(played.opens(), KEPT + 1);
        drop(imports.open(&runtime, 0, &info(1)).unwrap());
        assert_eq!((played.opens(), played.open()), (KEPT + 2, KEPT));
        let again = imports.open(&runtime, 0, &info(0)).unwrap();
        imports.release();
        assert_eq!(played.open(), 1, "transfers use it");
        drop(imports.open(&runtime, 0, &info(0)).unwrap());
        drop(in_use);
        assert_eq!((played.opens(), played.open()), (KEPT + 2, 1), "one that is open is not opened again");
        drop(again);
        assert_eq!(played.open(), 0, "released while it was in use, it is closed by the last transfer");
        drop(imports.open(&runtime, 0, &info(0)).unwrap());
        assert_eq!((played.opens(), played.open()), (KEPT + 3, 1));
        imports.close();
        assert_eq!(played.open(), 0);
        drop(imports.open(&runtime, 0, &info(0)).unwrap());
        assert_eq!(played.open(), 0, "nothing is kept after the close");
    }

    /// The played runtime has GPU 0 only.
    #[test]
    fn nothing_is_opened_on_a_gpu_that_cannot_be_made_current() {
        let played = Arc::new(PlayedRuntime::default());
        let runtime = Arc::clone(&played) as Arc<dyn GpuRuntime>;
        let error = Imports::default().open(&runtime, 1, &info(0)).unwrap_err();
        assert!(matches!(error, GpuError::Unsupported { .. }), "{error}");
        assert_eq!(played.opens(), 0);
    }
}
