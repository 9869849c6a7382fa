//! Memory with chosen rights and files behind it.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::fs::File;
use std::io::Write;
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

/// Bytes of a page of this kernel.
pub fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

/// What may be done with pages.
pub struct Rights(ProtFlags, MprotectFlags);

impl Rights {
    pub const NONE: Self = Self(ProtFlags::empty(), MprotectFlags::empty());
    pub const READ: Self = Self(ProtFlags::READ, MprotectFlags::READ);
    /// And read, of course.
    pub const WRITE: Self =
        Self(ProtFlags::READ.union(ProtFlags::WRITE), MprotectFlags::READ.union(MprotectFlags::WRITE));
}

/// Pages that are mapped as long as this lives.
pub struct Pages {
    address: u64,
    length: u64,
    file: Option<File>,
}

impl Pages {
    pub fn anonymous(length: u64, rights: Rights) -> Self {
        // SAFETY: a fresh mapping aliases nothing.
        let address = unsafe { mmap_anonymous(null_mut(), length as usize, rights.0, MapFlags::PRIVATE) };
        Self { address: address.unwrap() as u64, length, file: None }
    }

    /// The shared mapping of a memfd, which may be longer than that.
    pub fn memfd(file_size: u64, length: u64, rights: Rights) -> Self {
        let file = File::from(memfd_create("pages of a test", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(file_size).unwrap();
        Self::of(file, length, rights, MapFlags::SHARED)
    }

    /// The private mapping of a file on disk.
    pub fn file(content: &[u8], rights: Rights) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Self::of(file, content.len() as u64, rights, MapFlags::PRIVATE)
    }

    fn of(file: File, length: u64, rights: Rights, flags: MapFlags) -> Self {
        // SAFETY: a fresh mapping aliases nothing; a test that truncates the file does not access the truncated pages.
        let address = unsafe { mmap(null_mut(), length as usize, rights.0, flags, &file, 0) };
        Self { address: address.unwrap() as u64, length, file: Some(file) }
    }

    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn range(&self) -> (u64, u64) {
        (self.address, self.length)
    }

    pub fn protect(&self, offset: u64, length: u64, rights: Rights) {
        assert!(offset + length <= self.length);
        // SAFETY: pages of this mapping, into which no reference points.
        unsafe { mprotect((self.address + offset) as *mut _, length as usize, rights.1) }.unwrap();
    }

    pub fn unmap(&self, offset: u64, length: u64) {
        assert!(offset + length <= self.length);
        // SAFETY: as above.
        unsafe { munmap((self.address + offset) as *mut _, length as usize) }.unwrap();
    }

    pub fn set_file_size(&self, size: u64) {
        self.file.as_ref().unwrap().set_len(size).unwrap();
    }

    pub fn fill(&self, content: &[u8]) {
        assert!(content.len() as u64 <= self.length);
        // SAFETY: the pages are mapped and writable, and hold as many bytes.
        unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), self.address as *mut u8, content.len()) };
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        // SAFETY: the pages are mapped and readable; peers may write them, which volatile access is for.
        let read = |at: usize| unsafe { (self.address as *const u8).add(at).read_volatile() };
        (0..).zip(&mut bytes).for_each(|(at, byte)| *byte = read(at));
        bytes
    }

    /// How many of the pages are in memory.
    pub fn resident(&self) -> usize {
        let mut pages = vec![0_u8; self.length.div_ceil(page_bytes()) as usize];
        // SAFETY: looks at page tables only, and writes one byte for each page.
        let answer =
            unsafe { libc::mincore(self.address as *mut _, self.length as usize, pages.as_mut_ptr()) };
        assert_eq!(answer, 0, "all of it is mapped");
        pages.iter().filter(|page| **page & 1 != 0).count()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own; unmapped pages are harmless.
        let _ = unsafe { munmap(self.address as *mut _, self.length as usize) };
    }
}
