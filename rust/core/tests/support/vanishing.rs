//! Memory that goes away while it is registered.
#![allow(unsafe_code, reason = "maps, protects and unmaps memory")]

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use flagcx_p2p::internals::fabric::SharedFile;
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, fallocate, ftruncate, memfd_create, open};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub const PAGE: usize = 4096;

/// How it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The file behind a shared mapping is truncated.
    Truncated,
    /// The file behind a private mapping is.
    TruncatedPrivate,
    /// A sparse file of a tmpfs that has become full.
    FullTmpfs,
    Unmapped,
    /// Nothing may be done with it any more.
    Protected,
    /// It may only be read.
    ReadOnly,
}

impl How {
    pub const ALL: [Self; 6] = [
        Self::Truncated,
        Self::TruncatedPrivate,
        Self::FullTmpfs,
        Self::Unmapped,
        Self::Protected,
        Self::ReadOnly,
    ];

    /// Whether another process can cause it, without a fault of the program.
    pub fn is_of_a_file(self) -> bool {
        matches!(self, Self::Truncated | Self::TruncatedPrivate | Self::FullTmpfs)
    }

    pub fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|how| format!("{how:?}") == name).unwrap()
    }
}

#[derive(Debug)]
pub struct Vanishing {
    how: How,
    start: *mut libc::c_void,
    length: usize,
    /// What is before this stays.
    from: usize,
    file: Option<OwnedFd>,
}

// SAFETY: an address range that no reference is made into.
unsafe impl Send for Vanishing {}

impl Vanishing {
    /// Maps `length` bytes, all 0x5a as far as they will stay, of which those from `from` on, at a page, are to go.
    /// `Err`: why not.
    pub fn new(how: How, length: usize, from: usize) -> Result<Self, String> {
        let file = match how {
            How::Truncated | How::TruncatedPrivate => {
                Some(memfd_create("vanishing", MemfdFlags::CLOEXEC).unwrap())
            }
            How::FullTmpfs => Some(file_of_full_tmpfs(from)?),
            How::Unmapped | How::Protected | How::ReadOnly => None,
        };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let place = lonely_address(length);
        let start = match &file {
            Some(file) => {
                ftruncate(file, length as u64).unwrap();
                let shared = if how == How::TruncatedPrivate { MapFlags::PRIVATE } else { MapFlags::SHARED };
                // SAFETY: nothing is replaced.
                unsafe { mmap(place, length, protection, shared | MapFlags::FIXED_NOREPLACE, file, 0) }
            }
            None => {
                let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
                // SAFETY: nothing is replaced.
                unsafe { mmap_anonymous(place, length, protection, flags) }
            }
        };
        let memory = Self { how, start: start.unwrap(), length, from, file };
        let present = if how == How::FullTmpfs { from } else { length };
        // SAFETY: mapped above, and no further than there are pages.
        unsafe { memory.start.cast::<u8>().write_bytes(0x5a, present) };
        Ok(memory)
    }

    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// What peers are to map, if anything; a program may say anything of it.
    pub fn shared_file(&self) -> Option<SharedFile> {
        let file = self.file.as_ref().filter(|_| self.how == How::Truncated)?;
        Some(SharedFile { fd: file.as_raw_fd(), offset: 0, is_own: true })
    }

    /// Lets it go.
    pub fn vanish(&self) {
        let (rest, left) = (self.start.wrapping_byte_add(self.from), self.length - self.from);
        match (&self.file, self.how) {
            // Its file system has been full all along.
            (_, How::FullTmpfs) => {}
            (Some(file), _) => ftruncate(file, self.from as u64).unwrap(),
            // SAFETY: memory of this object, without references.
            (_, How::Unmapped) => unsafe { munmap(rest, left) }.unwrap(),
            // SAFETY: as above.
            (_, How::Protected) => unsafe { mprotect(rest, left, MprotectFlags::empty()) }.unwrap(),
            // SAFETY: as above.
            (_, _) => unsafe { mprotect(rest, left, MprotectFlags::READ) }.unwrap(),
        }
    }
}

impl Drop for Vanishing {
    fn drop(&mut self) {
        // SAFETY: memory of this object; what has been unmapped before has not been mapped again, for it lies where the kernel
        // chooses no address.
        unsafe { munmap(self.start, self.length) }.unwrap();
    }
}

/// An address that no other mapping gets, not even after this one is unmapped: far below where the kernel allocates,
/// and each time another, so that a peer with an outdated table does not take it for the former one.
fn lonely_address(length: usize) -> *mut libc::c_void {
    static NEXT: AtomicU64 = AtomicU64::new(0x7d00_0000_0000);
    let room = length.next_multiple_of(1 << 20) as u64 + (1 << 20);
    NEXT.fetch_add(room, Ordering::Relaxed) as *mut libc::c_void
}

/// A file with room for `from` bytes, in a file system that has no more; nothing else leads to that.
fn file_of_full_tmpfs(from: usize) -> Result<OwnedFd, String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let place = std::env::temp_dir().join(format!("flagcx-p2p-full-{}-{number}", std::process::id()));
    fs::create_dir(&place).unwrap();
    let file = mount_and_fill(&place, from);
    fs::remove_dir(&place).unwrap();
    file.map_err(|errno| format!("a tmpfs cannot be mounted here: {errno}"))
}

fn mount_and_fill(place: &Path, from: usize) -> Result<OwnedFd, Errno> {
    let options = CString::new(format!("size={}", from + PAGE)).unwrap();
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), options.as_c_str())?;
    let create = |name: &str| open(place.join(name), OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap();
    let file = create("sparse");
    if from > 0 {
        fallocate(&file, FallocateFlags::empty(), 0, from as u64).unwrap();
    }
    fallocate(create("filler"), FallocateFlags::empty(), 0, PAGE as u64).unwrap();
    unmount(place, UnmountFlags::DETACH)?;
    Ok(file)
}
