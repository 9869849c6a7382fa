//! Memory to register: of the heap, or mapped from a file that peers may map as well.
#![allow(unsafe_code, reason = "maps memory")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;

use flagcx_p2p::internals::fabric::{Backing, SharedFile};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What buffers are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The heap, registered as memory of this kind.
    Heap(Backing),
    /// A memfd that is sealed and reserved, as the engine makes it.
    Own,
    /// A memfd that is neither.
    Foreign,
    /// A memfd that is neither and is said to be.
    Claimed,
}

/// The name of every file here, as it stands in /proc/PID/maps of processes that map it.
pub const NAME: &str = "flagcx-test-region";

pub enum Memory {
    Heap(Box<[u8]>, Backing),
    Mapped(MappedFile),
}

/// A whole file, mapped.
pub struct MappedFile {
    pub file: OwnedFd,
    address: *mut u8,
    length: usize,
    kind: Kind,
}

// SAFETY: it owns its mapping.
unsafe impl Send for MappedFile {}

impl Memory {
    pub fn new(kind: Kind, length: usize, fill: u8) -> Self {
        match kind {
            Kind::Heap(backing) => Self::Heap(vec![fill; length].into_boxed_slice(), backing),
            kind => {
                let mut memory = Self::Mapped(MappedFile::new(kind, length));
                memory.bytes_mut().fill(fill);
                memory
            }
        }
    }

    pub fn backing(&self) -> Backing {
        match self {
            Self::Heap(_, backing) => *backing,
            Self::Mapped(_) => Backing::Mapped,
        }
    }

    /// For its registration.
    pub fn file(&self) -> Option<SharedFile> {
        match self {
            Self::Heap(..) => None,
            Self::Mapped(mapped) => Some(SharedFile {
                fd: mapped.file.as_raw_fd(),
                offset: 0,
                is_own: mapped.kind != Kind::Foreign,
            }),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Heap(bytes, _) => bytes,
            // SAFETY: the mapping lives as long as this.
            Self::Mapped(mapped) => unsafe { std::slice::from_raw_parts(mapped.address, mapped.length) },
        }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes, _) => bytes,
            // SAFETY: as above, and it is borrowed mutably.
            Self::Mapped(mapped) => unsafe { std::slice::from_raw_parts_mut(mapped.address, mapped.length) },
        }
    }
}

impl MappedFile {
    fn new(kind: Kind, length: usize) -> Self {
        let file = memfd_create(NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, length as u64).unwrap();
        if kind == Kind::Own {
            fallocate(&file, FallocateFlags::empty(), 0, length as u64).unwrap();
            fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL).unwrap();
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping where the kernel chooses.
        let address = unsafe { mmap(null_mut(), length, protection, MapFlags::SHARED, &file, 0) }.unwrap();
        Self { file, address: address.cast(), length, kind }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: mapped by this.
        unsafe { munmap(self.address.cast(), self.length) }.unwrap();
    }
}

/// How many mappings of such files process `pid` has.
pub fn mapped_regions(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains(NAME)).count()
}
