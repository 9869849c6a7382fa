#![allow(unsafe_code, reason = "looks at mapped memory")]

use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};

use super::*;

fn page_bytes() -> u64 {
    rustix::param::page_size() as u64
}

fn memfd(size: u64) -> OwnedFd {
    let file = memfd_create("region", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

fn sealed(file: OwnedFd, seals: SealFlags) -> OwnedFd {
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn reserved(file: OwnedFd, size: u64) -> OwnedFd {
    fallocate(&file, FallocateFlags::empty(), 0, size).unwrap();
    file
}

fn wanted(offset: u64, length: u64) -> Wanted {
    Wanted { base: 1 << 40, length, offset, is_own: true, writable: true }
}

fn reason(file: impl Into<OwnedFd>, wanted: Wanted) -> String {
    FileMapping::make(&file.into(), wanted).unwrap_err().reason
}

#[test]
fn only_a_sealed_and_reserved_file_counts_as_own() {
    let is_own = |file: OwnedFd| FileMapping::make(&file, wanted(0, page_bytes())).unwrap().region.is_own;
    let size = 4 * page_bytes();
    let all = SealFlags::SHRINK | SealFlags::SEAL;
    assert!(is_own(sealed(reserved(memfd(size), size), all)));
    assert!(!is_own(reserved(memfd(size), size)), "no seals");
    assert!(!is_own(sealed(reserved(memfd(size), size), SealFlags::SHRINK)), "it may get others");
    assert!(!is_own(sealed(reserved(memfd(size), size), SealFlags::SEAL)), "it may shrink");
    assert!(!is_own(sealed(reserved(memfd(size), page_bytes()), all)), "three pages of it are not there");
    assert!(!is_own(tempfile::tempfile().map(OwnedFd::from).map(|file| reserved(file, size)).unwrap()));
}

#[test]
fn what_is_no_file_or_too_short_is_not_mapped() {
    assert!(reason(memfd(page_bytes()), wanted(0, page_bytes() + 1)).contains("shorter"));
    assert!(reason(memfd(page_bytes()), wanted(page_bytes(), 1)).contains("shorter"));
    assert!(reason(memfd(page_bytes()), wanted(u64::MAX, page_bytes())).contains("shorter"));
    assert!(reason(memfd(page_bytes()), wanted(0, 0)).contains("shorter"));
    assert!(reason(std::fs::File::open("/").unwrap(), wanted(0, page_bytes())).contains("regular"));
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(reason(socket, wanted(0, page_bytes())).contains("regular"));
    let (pipe, _other) = std::io::pipe().unwrap();
    assert!(reason(OwnedFd::from(pipe), wanted(0, page_bytes())).contains("regular"));
}

/// A sparse file of any size may be sent: as long as nothing is touched it costs addresses alone, which are bounded.
#[test]
fn more_than_the_address_space_holds_is_an_error() {
    let huge = memfd(1 << 62);
    let unmappable = FileMapping::make(&huge, wanted(0, 1 << 61)).unwrap_err();
    assert!(unmappable.passes && unmappable.reason.contains("more than"), "{unmappable:?}");
}

#[test]
fn a_file_that_may_only_be_read_is_mapped_for_reading_only() {
    let file = sealed(memfd(page_bytes()), SealFlags::FUTURE_WRITE);
    assert!(reason(file.try_clone().unwrap(), wanted(0, page_bytes())).contains("mmap"));
    let for_reading = Wanted { writable: false, ..wanted(0, page_bytes()) };
    assert!(!FileMapping::make(&file, for_reading).unwrap().region.writable);
}

#[test]
fn the_first_byte_is_that_of_the_region() {
    let file = reserved(memfd(4 * page_bytes()), 4 * page_bytes());
    rustix::io::pwrite(file.as_fd(), b"here", 2 * page_bytes() + 100).unwrap();
    let mapping = FileMapping::make(&file, wanted(2 * page_bytes() + 100, page_bytes())).unwrap();
    // SAFETY: four bytes of the region, which is mapped.
    assert_eq!(unsafe { std::ptr::read_volatile(mapping.start as *const [u8; 4]) }, *b"here");
}

/// A process says where its region begins in a file by its own pages, and this one maps by its own: smaller ones, or larger.
#[test]
fn pages_of_another_size_show_the_same_bytes() {
    const LENGTH: u64 = 10_000;
    for page in [4_u64 << 10, 16 << 10, 64 << 10].into_iter().filter(|page| page % page_bytes() == 0) {
        for offset in [0, 4096, 12_288, 64 << 10, (64 << 10) + 4096, (192 << 10) - 5] {
            let file = memfd(offset + LENGTH);
            let bytes: Vec<u8> = (0..LENGTH).map(|index| (index % 251) as u8).collect();
            rustix::io::pwrite(&file, &bytes, offset).unwrap();
            let mapping = FileMapping::make_in_pages(&file, wanted(offset, LENGTH), page).unwrap();
            assert_eq!(mapping.size() % page, 0);
            assert_eq!(mapping.start - mapping.address.as_ptr() as u64, offset % page);
            // SAFETY: mapped while `mapping` lives, and the file is as long.
            let seen = unsafe { std::slice::from_raw_parts(mapping.start as *const u8, LENGTH as usize) };
            assert_eq!(seen, bytes, "pages of {page} bytes, from {offset} on");
        }
    }
}
