//! The memory of a rig: the program's own, or the engine's.
#![allow(unsafe_code, reason = "maps memory, registers it by address, and copies in and out of it")]

use std::ptr::NonNull;
use std::sync::Arc;

use flagcx_p2p::internals::engine::{Engine, RegisterOptions, RegisteredBuffer};
use flagcx_p2p::internals::memory::RegionId;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Where the memory of a run comes from: `FLAGCX_P2P_TEST_MEMORY`, `own` unless it is `allocated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Mapped by the program and registered: no peer can map it.
    Own,
    /// `Engine::allocate`. Between processes no path is forced then, so that one that needs such memory is taken.
    Allocated,
}

impl Memory {
    pub fn of_run() -> Self {
        match std::env::var("FLAGCX_P2P_TEST_MEMORY").as_deref() {
            Err(_) | Ok("own") => Self::Own,
            Ok("allocated") => Self::Allocated,
            Ok(other) => panic!("FLAGCX_P2P_TEST_MEMORY is {other}: set own or allocated"),
        }
    }
}

/// Registered memory of an engine, until it is dropped.
#[derive(Debug)]
pub enum Buffer {
    Own(OwnMemory),
    Allocated(RegisteredBuffer),
}

impl Buffer {
    /// `length` zeroed bytes, of the kind of this run.
    pub fn new(engine: &Arc<Engine>, length: usize) -> Self {
        Self::of(Memory::of_run(), engine, length)
    }

    /// `length` zeroed bytes of that kind.
    pub fn of(memory: Memory, engine: &Arc<Engine>, length: usize) -> Self {
        match memory {
            Memory::Own => Self::Own(OwnMemory::new(engine, length)),
            Memory::Allocated => Self::Allocated(engine.allocate(length).unwrap()),
        }
    }

    pub fn address(&self) -> u64 {
        match self {
            Self::Own(own) => own.start.as_ptr() as u64,
            Self::Allocated(buffer) => buffer.address(),
        }
    }

    pub fn length(&self) -> usize {
        match self {
            Self::Own(own) => own.length,
            Self::Allocated(buffer) => buffer.len(),
        }
    }

    pub fn region(&self) -> RegionId {
        match self {
            Self::Own(own) => own.region,
            Self::Allocated(buffer) => buffer.region(),
        }
    }

    /// Overwrites all of it.
    pub fn fill(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Own(own) if own.length == bytes.len() => {
                // SAFETY: mapped with that length, and only accessed by copies.
                unsafe { own.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                true
            }
            Self::Own(_) => false,
            Self::Allocated(buffer) => buffer.write(0, bytes),
        }
    }

    pub fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length()];
        match self {
            // SAFETY: as in `fill`, the other way round.
            Self::Own(own) => unsafe {
                own.start.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
            },
            Self::Allocated(buffer) => assert!(buffer.read(0, &mut bytes)),
        }
        bytes
    }
}

#[derive(Debug)]
pub struct OwnMemory {
    start: NonNull<u8>,
    length: usize,
    region: RegionId,
    engine: Arc<Engine>,
}

// SAFETY: the memory belongs to no thread, and it is only accessed by copies that expect concurrent changes.
unsafe impl Send for OwnMemory {}
// SAFETY: as above; no reference into it is made.
unsafe impl Sync for OwnMemory {}

impl OwnMemory {
    fn new(engine: &Arc<Engine>, length: usize) -> Self {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a mapping at an address that the kernel chooses overlaps nothing.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), length, rights, MapFlags::PRIVATE) };
        let start = NonNull::new(start.unwrap().cast()).unwrap();
        // SAFETY: mapped until `drop`, which deregisters first.
        let region =
            unsafe { engine.register(start.as_ptr() as u64, length as u64, RegisterOptions::default()) };
        Self { start, length, region: region.unwrap(), engine: Arc::clone(engine) }
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        // Also after it was deregistered by its id, or with its engine: then there is nothing left to do.
        if self.engine.deregister(self.region) {
            // SAFETY: mapped in `new`; nothing accesses it any more.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}
