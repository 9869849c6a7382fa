//! Whether a descriptor is that of the file which is mapped at a range of memory.
#![allow(
    unsafe_code,
    reason = "maps a page of the file for a moment, to compare what the kernel shows of it"
)]

use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::null_mut;

use rustix::fs::{FileType, Stat, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::error::SharedFileError;
use crate::fabric::page_of_file;
use crate::memory::inspect::{MappedFrom, mapped_from};

/// Checks that `address..address + length` is a shared mapping of `fd` from `offset` on, which a peer can make as well.
/// `writable`: peers are to write there.
///
/// The kernel's own list of mappings decides: a page of the descriptor's file is mapped for the time of the call and compared
/// with what is mapped at the range.
///
/// # Errors
/// [`SharedFileError`], with what differs.
pub fn check_mapped_file(
    (address, length): (u64, u64),
    fd: RawFd,
    offset: u64,
    writable: bool,
) -> Result<(), SharedFileError> {
    check((address, length), fd, offset, writable).map_err(|problem| SharedFileError {
        address,
        length,
        fd,
        offset,
        problem,
    })
}

fn check(range: (u64, u64), fd: RawFd, offset: u64, writable: bool) -> Result<(), String> {
    if fd < 0 {
        return Err("a descriptor is not negative; pass the one that the memory is mapped from".to_owned());
    }
    // SAFETY: used for the time of the call; of what is not open, `fstat` answers EBADF.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let about = fstat(file).map_err(|errno| call("fstat", errno, "pass an open descriptor"))?;
    check_kind(&about)?;
    let end = offset.checked_add(range.1).ok_or("the range wraps around the end of all files")?;
    let size = u64::try_from(about.st_size).unwrap_or(0);
    if end > size {
        return Err(format!("the file has {size} bytes and the range ends at {end}: extend the file first"));
    }
    let page = page_of_file(file).map_err(|errno| call("fstatfs", errno, "see the kernel's log (dmesg)"))?;
    let here = Witness::map(file, offset - offset % page, page, ProtFlags::READ).map_err(|errno| {
        call("mmap(PROT_READ, MAP_SHARED)", errno, "open the file for reading and writing (O_RDWR)")
    })?;
    let found = mapped_from(range, here.address, offset)?;
    if writable && found == MappedFrom::Writable {
        let both = ProtFlags::READ | ProtFlags::WRITE;
        Witness::map(file, offset - offset % page, page, both).map_err(|errno| {
            let advice = "peers could only read it: open the file for reading and writing (O_RDWR) and without a seal \
                          against writing, or register it with READ_ONLY";
            call("mmap(PROT_READ | PROT_WRITE, MAP_SHARED)", errno, advice)
        })?;
    }
    Ok(())
}

fn check_kind(about: &Stat) -> Result<(), String> {
    let kind = match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of another kind",
    };
    Err(format!("the descriptor is {kind}; pass that of a memfd or a file, such as one of /dev/shm"))
}

fn call(call: &str, errno: Errno, advice: &str) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("{call}: {text} (errno {}); {advice}", errno.raw_os_error())
}

/// A page of the file, mapped and never accessed.
struct Witness {
    address: u64,
    length: usize,
}

impl Witness {
    fn map(file: BorrowedFd<'_>, offset: u64, page: u64, protection: ProtFlags) -> Result<Self, Errno> {
        let length = usize::try_from(page).map_err(|_| Errno::OVERFLOW)?;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a mapping at an address that the kernel chooses overlaps nothing.
        let address = unsafe { mmap(null_mut(), length, protection, flags, file, offset) }?;
        Ok(Self { address: address as u64, length })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // SAFETY: mapped by this object with this length, and nothing has its address.
        let _ = unsafe { munmap(self.address as *mut std::ffi::c_void, self.length) };
    }
}
