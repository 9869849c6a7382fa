//! Registering memory and describing it to peers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Engine, EngineError};
use crate::fabric::{Access, DmaBuf, SharedFile};
use crate::gpu::{self, CurrentGpu};
use crate::memory::{MemoryKind, Region, RegionId, Segment, check_mapped_file, holds, is_allocated};
use crate::transfer::RemoteRange;

/// How memory is registered. The default finds out what kind it is, gives all rights, and announces it.
#[derive(Clone, Copy, Debug)]
pub struct RegisterOptions {
    /// What kind of memory it is, as far as the caller knows.
    pub kind: MemoryKind,
    /// What it may be used for. Of memory that is mapped for reading only, the rights to write are left out;
    /// GPU memory that peers flush when they write is registered for their READs as well, because that is how they flush.
    pub access: Access,
    /// Whether peers are told of it. They need a descriptor otherwise: [`Engine::describe`].
    pub announced: bool,
    /// The dma-buf that the memory is a part of, if its exporter gave one: what a NIC needs for some GPU memory.
    pub dma_buf: Option<DmaBuf>,
    /// The file that the memory is mapped from, if peers of this host may map it too. Not needed for memory of
    /// [`Engine::allocate`], and ignored there. [`SharedFile::is_own`] is taken as false: other processes may change
    /// the file.
    pub file: Option<SharedFile>,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        Self { kind: MemoryKind::Probe, access: Access::FULL, announced: true, dma_buf: None, file: None }
    }
}

impl Engine {
    /// Registers `length` bytes of memory at `address` for local and remote use.
    ///
    /// The same range again answers the same id and counts one more owner. Peers that are connected already are told of it
    /// too. No page of it is touched.
    ///
    /// # Errors
    /// [`EngineError::Registry`] when the range wraps, is registered with another length or other rights, cannot be
    /// accessed, or the device refuses it; [`EngineError::SharedFile`] when it is no shared mapping of
    /// [`RegisterOptions::file`]; [`EngineError::Unavailable`] for an engine without a device; [`EngineError::Closed`], or
    /// [`EngineError::Registry`] if that happens meanwhile, for one that is closed.
    ///
    /// # Safety
    /// `address..address + length` must stay mapped until [`Engine::deregister`] has been called as often as this and
    /// the last call has returned, and the caller must expect peers to read and write it at any time.
    #[allow(unsafe_code, reason = "declares the caller's promise; does nothing unsafe itself")]
    pub unsafe fn register(
        &self,
        address: u64,
        length: u64,
        options: RegisterOptions,
    ) -> Result<RegionId, EngineError> {
        self.require_open("register memory")?;
        let RegisterOptions { kind, access, announced, dma_buf, file } = options;
        let registry = &self.context_for(self.nic.need_of(address, kind))?.registry;
        // It may have been closed while the NIC was chosen; the close then knew of no registry to end.
        self.require_open("register memory")?;
        if let Some(file) = &file
            && !is_allocated(address, length)
        {
            check_mapped_file((address, length), file.fd, file.offset, access.local_write)?;
        }
        // Allocations name their file themselves; of no other one is it known that it stays as it is.
        let file = file.map(|file| SharedFile { is_own: false, ..file });
        // A runtime that answers for the current GPU is asked with that of the memory; then the caller's choice holds again.
        let runtime = (kind != MemoryKind::Host).then(gpu::runtime);
        let _entered =
            runtime.as_deref().and_then(|runtime| CurrentGpu::of_address(runtime, address, self.gpu_index));
        Ok(registry.register((address, length), kind, access, announced, dma_buf, file)?)
    }

    /// Ends a registration, or the use of it by one of its owners.
    ///
    /// Waits for transfers in flight on it, at most for the transfer time-out (else 30 s); then they are ended as timed out by
    /// moving their queue pairs to ERROR, which takes a few seconds at most.
    ///
    /// True when nothing touches the memory any more. False when it must stay mapped: it has other owners, or a
    /// stopped process of this host is in the middle of a copy (logged). An id of another engine, or an unknown one,
    /// is a logged no-op.
    pub fn deregister(&self, id: RegionId) -> bool {
        self.deregister_since(id, Instant::now())
    }

    /// Waits for a turn of `patience` until no transfer uses a region of which [`Engine::deregister`] would wait for them. False
    /// if one does; true too once transfers have had their time since `begun`.
    #[doc(hidden)]
    pub fn wait_for_users(&self, id: RegionId, begun: Instant, patience: Duration) -> bool {
        let Ok(Some(context)) = self.chosen() else { return true };
        let Some(region) = context.registry.of_sole_owner(id) else { return true };
        context.wait_for_users(&region, begun, patience)
    }

    /// As [`Engine::deregister`], of which the wait has begun before.
    #[doc(hidden)]
    pub fn deregister_since(&self, id: RegionId, begun: Instant) -> bool {
        let context = match self.chosen() {
            Ok(Some(context)) => context,
            Ok(None) => return no_such_region(id),
            Err(_) => return true,
        };
        match context.registry.remove(id) {
            Ok(Some(region)) => context.retire(vec![region], begun),
            Ok(None) => false,
            Err(()) => no_such_region(id),
        }
    }

    /// A descriptor for `size` bytes at `address` inside a region of this engine, for a peer to name in its
    /// [`Iov`](crate::Iov): how it gets there is the program's matter.
    ///
    /// # Errors
    /// [`EngineError::Memory`] when the region is unknown or does not hold the range, `size` is 4 GiB or more, or the range crosses
    /// a boundary between two segments of the region: the device could not register all of it at once.
    pub fn describe(&self, id: RegionId, address: u64, size: u64) -> Result<RemoteRange, EngineError> {
        let error =
            |problem: &str| EngineError::Memory { address, length: size, problem: problem.to_owned() };
        let snapshot = self.chosen()?.map(|context| context.registry.snapshot());
        let region = snapshot.as_ref().and_then(|snapshot| snapshot.by_id(id));
        let region = region.ok_or_else(|| error("this engine has no such region"))?;
        let size = u32::try_from(size).map_err(|_| error("a descriptor holds at most 4 GiB - 1"))?;
        if !holds(region.address, region.length, address, u64::from(size)) {
            return Err(error("is not inside the region that it names"));
        }
        let segment = region.segment_holding(address, u64::from(size)).ok_or_else(|| {
            let boundary = region.segment_at(address).map_or(region.address, Segment::end);
            error(&format!(
                "crosses from one segment of the region to the next at {boundary:#x}, and a descriptor has the key of one: \
                 describe the parts before and behind it apart"
            ))
        })?;
        Ok(RemoteRange { address, size, rkey: segment.rkey })
    }

    /// The region that holds a range; `None` if none does.
    #[doc(hidden)]
    pub fn find_region(&self, address: u64, length: u64) -> Option<Arc<Region>> {
        self.chosen().ok()??.registry.snapshot().by_address(address, length).cloned()
    }

    pub(super) fn find_region_by_id(&self, id: RegionId) -> Option<Arc<Region>> {
        self.chosen().ok()??.registry.snapshot().by_id(id).cloned()
    }

    /// Ends every registration, of all regions at once; `begun` is when the engine began to close.
    pub(super) fn deregister_all(&self, begun: Instant) {
        if let Ok(Some(context)) = self.chosen() {
            // What is left is in the log.
            let _ = context.retire(context.registry.remove_all(), begun);
        }
    }
}

/// Ends nothing, and says so.
fn no_such_region(id: RegionId) -> bool {
    tracing::info!(region = id.0, "deregister: this engine has no such region, nothing to do");
    true
}
