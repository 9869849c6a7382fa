//! Anonymous memory, registered: the safe way for Rust callers.
#![allow(unsafe_code, reason = "maps memory and copies in and out of it through raw pointers")]

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::memory::RegisterOptions;
use super::{Engine, EngineError};
use crate::fork::OfProcess;
use crate::memory::{MemoryKind, Region, RegionId};

/// Memory of an engine that is registered for as long as it lives.
///
/// Dropping it waits for transfers that use it, deregisters it and unmaps it: [`Engine::deregister`] says how long that may
/// take. Peers that it was announced to may change it at any time, so its bytes are read and written by copy only; of bytes
/// that a peer writes at the same moment, a read finds either. It keeps its engine alive. A forked child has a copy of the
/// bytes, which no peer sees.
#[derive(Debug)]
pub struct RegisteredBuffer {
    start: NonNull<u8>,
    length: usize,
    region: OfProcess<Arc<Region>>,
    engine: Arc<Engine>,
}

// SAFETY: the memory belongs to no thread, and it is only accessed by copies that expect concurrent changes.
unsafe impl Send for RegisteredBuffer {}
// SAFETY: as above; `&self` methods make no references into the memory.
unsafe impl Sync for RegisteredBuffer {}

impl Engine {
    /// Maps zeroed memory of `length` bytes, aligned to a page, and registers it with all rights, announced to peers.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] for no bytes, [`EngineError::Unavailable`] when the system maps no memory, and those of
    /// [`Engine::register`].
    pub fn allocate(self: &Arc<Self>, length: usize) -> Result<RegisteredBuffer, EngineError> {
        if length == 0 {
            return Err(EngineError::Invalid("a registered buffer needs at least one byte".to_owned()));
        }
        let flags = MapFlags::PRIVATE;
        // SAFETY: an anonymous mapping at an address that the kernel chooses overlaps nothing.
        let mapping = unsafe {
            mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)
        }
        .map_err(|error| EngineError::Unavailable(format!("cannot map {length} bytes: {error}")))?;
        let options = RegisterOptions { kind: MemoryKind::Host, ..RegisterOptions::default() };
        // SAFETY: the mapping lives until `drop`, which deregisters first.
        let registered = unsafe { self.register(mapping as u64, length as u64, options) };
        let region = registered.map(|id| self.find_region_by_id(id));
        match (region, NonNull::new(mapping.cast())) {
            (Ok(Some(region)), Some(start)) => Ok(RegisteredBuffer {
                start,
                length,
                region: OfProcess::new(region),
                engine: Arc::clone(self),
            }),
            (registered, _) => {
                // SAFETY: mapped above, and nothing else has its address.
                let _ = unsafe { munmap(mapping, length) };
                Err(registered
                    .err()
                    .unwrap_or_else(|| EngineError::Unavailable("mapped at address 0".to_owned())))
            }
        }
    }
}

impl RegisteredBuffer {
    /// The address of the first byte, in this process: what [`Iov::local`](crate::Iov::local) takes and peers name.
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes; never true.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The id of its registration.
    pub fn region(&self) -> RegionId {
        self.region.id
    }

    /// Copies `bytes` into the buffer from `offset` on. False, and nothing is copied, if they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        if !self.fits(offset, bytes.len()) {
            return false;
        }
        // SAFETY: in bounds as checked, and `bytes` cannot overlap memory that is never borrowed. A peer may write at
        // the same time; what is in the overlap is then either's, which the type's promise to callers says.
        unsafe { self.start.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Fills `bytes` with the content from `offset` on. False, and nothing is copied, if the buffer has fewer.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        if !self.fits(offset, bytes.len()) {
            return false;
        }
        // SAFETY: as in `write`, the other way round.
        unsafe { self.start.as_ptr().add(offset).copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    fn fits(&self, offset: usize, length: usize) -> bool {
        offset <= self.length && length <= self.length - offset
    }
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        let is_here = OfProcess::is_here(&self.region);
        // Also when the engine was closed before, and deregistered it then.
        let owned = self.engine.deregister(self.region.id);
        // A forked child has a copy of the bytes, which nothing else uses.
        if !owned || is_here && (self.region.in_use() || self.region.memory().revoke(Instant::now()).is_err())
        {
            // Ending the registration has told what.
            tracing::info!(
                region = self.region.id.0,
                "{} bytes stay mapped: something still uses them",
                self.length
            );
            return;
        }
        // SAFETY: mapped in `allocate` with this length, deregistered above, and no reference into it exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
