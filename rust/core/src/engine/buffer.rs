//! Allocated memory, registered: the safe way for Rust callers.
#![allow(unsafe_code, reason = "copies in and out of memory through raw pointers")]

use std::sync::Arc;

use super::allocate::{AllocateOptions, Allocated};
use super::{Engine, EngineError};
use crate::fork::OfProcess;
use crate::memory::{Allocation, RegionId};

/// Memory of an engine that is registered for as long as it lives.
///
/// Dropping it waits for transfers that use it, deregisters it and gives it back: [`Engine::deregister`] says how long that
/// may take. While the program has other registrations inside, it stays mapped until the last of them ends. Peers that it
/// was announced to may change it at any time, so its bytes are read and written by copy only; of bytes that a peer writes at
/// the same moment, a read finds either. It keeps its engine alive.
///
/// A forked child shares the bytes, where [`Engine::allocate`] gives shared memory: what it writes, its parent and the peers
/// see. It has a copy of them otherwise. Dropped there, it does nothing.
#[derive(Debug)]
pub struct RegisteredBuffer {
    length: usize,
    region: RegionId,
    allocation: OfProcess<Arc<Allocation>>,
    engine: Arc<Engine>,
}

impl Engine {
    /// Allocates zeroed memory of `length` bytes, aligned to a page, and registers it with all rights, announced to peers.
    ///
    /// On the software fabric it is memory that peers of this host can map (a memfd), all of it reserved by this
    /// call. Where the system denies that, and on an RDMA device, it is private anonymous memory.
    ///
    /// # Errors
    /// [`EngineError::Allocation`] for no bytes, for more shared memory than the host or the container has left, and when the
    /// system maps no memory; and those of [`Engine::register`]. Private memory is not compared with what is
    /// left: it is taken page by page as it is used.
    pub fn allocate(self: &Arc<Self>, length: usize) -> Result<RegisteredBuffer, EngineError> {
        self.allocate_with(length, AllocateOptions::default())
    }

    /// Allocates and registers memory as [`Engine::allocate`] does: in huge pages, with other rights, or not announced.
    ///
    /// Huge pages are those of a memfd on every device. The length is rounded up to whole ones, of which `length` bytes are
    /// registered.
    ///
    /// # Errors
    /// Those of [`Engine::allocate`]; [`EngineError::Allocation`] when the pool has not as many huge pages free, or the
    /// kernel has none.
    pub fn allocate_with(
        self: &Arc<Self>,
        length: usize,
        options: AllocateOptions,
    ) -> Result<RegisteredBuffer, EngineError> {
        let Allocated { allocation, region } = self.allocate_region(length, options)?;
        Ok(RegisteredBuffer {
            length,
            region,
            allocation: OfProcess::new(allocation),
            engine: Arc::clone(self),
        })
    }
}

impl RegisteredBuffer {
    /// The address of the first byte, in this process: what [`Iov::local`](crate::Iov::local) takes and peers name.
    pub fn address(&self) -> u64 {
        self.allocation.start().as_ptr() as u64
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
        self.region
    }

    /// Copies `bytes` into the buffer from `offset` on. False, and nothing is copied, if they do not fit.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        if !self.fits(offset, bytes.len()) {
            return false;
        }
        // SAFETY: in bounds as checked, and `bytes` cannot overlap memory that is never borrowed. A peer may write at
        // the same time; what is in the overlap is then either's, which the type's promise to callers says.
        unsafe {
            self.allocation.start().as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
        true
    }

    /// Fills `bytes` with the content from `offset` on. False, and nothing is copied, if the buffer has fewer.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> bool {
        if !self.fits(offset, bytes.len()) {
            return false;
        }
        // SAFETY: as in `write`, the other way round.
        unsafe {
            self.allocation
                .start()
                .as_ptr()
                .add(offset)
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len())
        };
        true
    }

    fn fits(&self, offset: usize, length: usize) -> bool {
        offset <= self.length && length <= self.length - offset
    }
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        if let Ok(allocation) = OfProcess::here(&self.allocation) {
            // Also when the engine was closed before, and deregistered it then.
            self.engine.deregister(self.region);
            allocation.release();
        }
    }
}
