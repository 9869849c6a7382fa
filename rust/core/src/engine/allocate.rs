//! Memory of an engine's own: which kind, and its registration.
#![allow(unsafe_code, reason = "registers memory that the allocation keeps mapped")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::memory::RegisterOptions;
use super::nic::Need;
use super::{Engine, EngineError};
use crate::fabric::{Access, PathKind};
use crate::fork::PerProcess;
use crate::memory::{Allocation, AllocationError, MemoryKind, RegionId};

/// How memory is allocated. The default is pages of the normal size, all rights, announced.
#[derive(Clone, Copy, Debug)]
pub struct AllocateOptions {
    /// In huge pages of the default size (`Hugepagesize` of /proc/meminfo), from the pool that the administrator has made.
    pub huge_pages: bool,
    /// What it may be used for.
    pub access: Access,
    /// Whether peers are told of it. They need a descriptor otherwise: [`Engine::describe`].
    pub announced: bool,
}

impl Default for AllocateOptions {
    fn default() -> Self {
        Self { huge_pages: false, access: Access::FULL, announced: true }
    }
}

/// Allocated and registered.
#[derive(Debug)]
pub(super) struct Allocated {
    pub(super) allocation: Arc<Allocation>,
    pub(super) region: RegionId,
}

impl Engine {
    /// Allocates at least `length` bytes and registers the first `length` of them.
    pub(super) fn allocate_region(
        &self,
        length: usize,
        options: AllocateOptions,
    ) -> Result<Allocated, EngineError> {
        self.require_open("allocate memory")?;
        let bytes = length as u64;
        let allocation = self.allocate_memory(bytes, options)?;
        let AllocateOptions { access, announced, .. } = options;
        let options =
            RegisterOptions { kind: MemoryKind::Host, access, announced, ..RegisterOptions::default() };
        // SAFETY: the allocation is as long, and stays mapped while a registration uses it.
        match unsafe { self.register(allocation.address(), bytes, options) } {
            Ok(region) => Ok(Allocated { allocation, region }),
            Err(error) => {
                allocation.release();
                Err(error)
            }
        }
    }

    /// Shared memory where the device lets peers map it.
    fn allocate_memory(&self, bytes: u64, options: AllocateOptions) -> Result<Arc<Allocation>, EngineError> {
        let device = self.context_for(Need::HostMemory)?.pool.device();
        let AllocateOptions { huge_pages, access, .. } = options;
        if !huge_pages && !device.attributes().capabilities.shared_files {
            return Ok(Allocation::anonymous(bytes)?);
        }
        match Allocation::shared(bytes, huge_pages, !access.remote_write) {
            Err(error) if error.is_denied() && !huge_pages && self.config.path != Some(PathKind::Shared) => {
                tell_once(&error);
                Ok(Allocation::anonymous(bytes)?)
            }
            allocated => Ok(allocated?),
        }
    }
}

fn tell_once(error: &AllocationError) {
    static TOLD: PerProcess<AtomicBool> = PerProcess::new(AtomicBool::default);
    // Relaxed: only which thread is the first one matters.
    if !TOLD.get().swap(true, Ordering::Relaxed) {
        tracing::warn!("{error}. Memory that peers cannot map is allocated instead: they take another path");
    }
}
