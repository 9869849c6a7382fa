//! Allocations, from their pages to their end.
#![allow(unsafe_code, reason = "reads and writes memory by its address")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::param::page_size;

use super::*;
use crate::memory::inspect;

/// Whether memory is mapped there.
/// Other threads map what was just unmapped, from its end on: its first page is the last that they reach.
const LARGE: u64 = 16 << 20;

fn is_mapped(address: u64) -> bool {
    inspect(address, 1).is_ok()
}

fn used(allocation: &Allocation) -> AllocationUse {
    AllocationUse::of_range(allocation.address(), allocation.length()).unwrap().unwrap()
}

#[test]
fn the_file_is_reserved_and_cannot_be_resized() {
    let page = page_size() as u64;
    let (file, size) = memfd::create(3 * page + 1, false).unwrap();
    memfd::seal(file.as_fd(), false).unwrap();
    assert_eq!(size, 4 * page);
    let about = fstat(&file).unwrap();
    assert_eq!((about.st_size as u64, about.st_blocks as u64 * 512), (size, size), "every page is reserved");
    let seals = fcntl_get_seals(&file).unwrap();
    assert!(
        seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            && !seals.contains(SealFlags::WRITE)
    );
    for other in [0, size - 1, size + page] {
        assert_eq!(ftruncate(&file, other).unwrap_err(), Errno::PERM);
    }
    // A peer that got the descriptor cannot forbid this process to write either.
    assert_eq!(fcntl_add_seals(&file, SealFlags::FUTURE_WRITE).unwrap_err(), Errno::PERM);
}

#[test]
fn memory_is_zeroed_and_is_that_of_its_file() {
    let allocation = Allocation::shared(5000, false, false).unwrap();
    assert_eq!(allocation.length(), 5000_u64.next_multiple_of(page_size() as u64));
    let file = used(&allocation).file().unwrap();
    assert!(file.is_own && file.offset == 0);
    // SAFETY: mapped, and nothing else uses it.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(allocation.start().as_ptr(), allocation.length() as usize) };
    assert!(bytes.iter().all(|byte| *byte == 0));
    bytes[4097] = 7;
    // SAFETY: open as long as the allocation is mapped.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(file.fd) };
    let mut read = [0];
    rustix::io::pread(fd, &mut read, 4097).unwrap();
    assert_eq!(read, [7]);
    check_mapped_file((allocation.address() + 4096, 100), file.fd, 4096, true).unwrap();
    allocation.release();
}

#[test]
fn a_registration_inside_names_its_part_of_the_file() {
    let allocation = Allocation::shared(4 * 4096, false, false).unwrap();
    let start = allocation.address();
    let inside = AllocationUse::of_range(start + 4096 + 7, 100).unwrap().unwrap();
    assert_eq!(inside.file().unwrap().offset, 4096 + 7);
    for (address, length) in [(start, 4 * 4096 + 1), (start + 4 * 4096, 1), (start - 1, 2), (u64::MAX, 1)] {
        assert!(
            AllocationUse::of_range(address, length).unwrap().is_none() && !is_allocated(address, length)
        );
    }
    assert!(is_allocated(start + 1, 4 * 4096 - 1));
    inside.end(true);
    allocation.release();
}

#[test]
fn it_is_unmapped_with_its_release_or_the_last_use() {
    for use_first in [false, true] {
        let allocation = Allocation::shared(LARGE, false, false).unwrap();
        let (address, use_) = (allocation.address(), used(&allocation));
        if use_first {
            use_.end(true)
        } else {
            allocation.release()
        }
        assert!(is_mapped(address));
        if use_first {
            allocation.release()
        } else {
            use_.end(true)
        }
        assert!(!is_mapped(address) && !is_allocated(address, 1));
        // Idempotent.
        use_.end(false);
        allocation.release();
    }
}

#[test]
fn a_released_one_takes_no_new_uses() {
    let allocation = Allocation::anonymous(LARGE).unwrap();
    let (address, own, other) = (allocation.address(), used(&allocation), used(&allocation));
    assert!(own.file().is_none() && !allocation.is_shared());
    assert_eq!(allocation.close_unless_used(1), Err(1));
    other.end(true);
    allocation.close_unless_used(1).unwrap();
    assert_eq!(AllocationUse::of_range(address, 1).unwrap_err(), BeingFreed);
    allocation.reopen();
    drop(used(&allocation));
    allocation.release();
    assert_eq!(AllocationUse::of_range(address, 1).unwrap_err(), BeingFreed);
    own.end(true);
    assert!(!is_mapped(address));
}

/// As while its owner finds that it cannot be freed.
#[test]
fn it_stays_mapped_if_its_uses_end_while_it_is_closed() {
    let allocation = Allocation::shared(LARGE, false, false).unwrap();
    let (address, use_) = (allocation.address(), used(&allocation));
    allocation.close_unless_used(1).unwrap();
    use_.end(true);
    assert!(is_mapped(address));
    allocation.reopen();
    drop(used(&allocation));
    allocation.release();
    assert!(!is_mapped(address));
}

/// A stopped peer may write there by the kernel, whatever this process does: the addresses must not become others'.
#[test]
fn what_another_process_may_still_access_stays_mapped_without_its_pages() {
    for allocation in [
        Allocation::shared(1 << 20, false, false).unwrap(),
        Allocation::shared(1 << 20, false, true).unwrap(),
        Allocation::anonymous(1 << 20).unwrap(),
    ] {
        let at = allocation.start().as_ptr();
        // As a peer maps it.
        let peers = used(&allocation).file().map(|file| {
            // SAFETY: open as long as the allocation is mapped.
            unsafe { std::os::fd::BorrowedFd::borrow_raw(file.fd) }.try_clone_to_owned().unwrap()
        });
        // SAFETY: mapped.
        unsafe { at.write_bytes(9, 1 << 20) };
        let use_ = used(&allocation);
        use_.end(false);
        allocation.release();
        assert!(is_mapped(at as u64) && !is_allocated(at as u64, 1));
        // SAFETY: still mapped.
        let first = unsafe { at.read_volatile() };
        assert_eq!(first, 0, "its pages are given back");
        let Some(peers) = peers else { continue };
        let mut seen = [0];
        rustix::io::pread(&peers, &mut seen, 0).unwrap();
        assert_eq!(seen, [9], "a peer's mapping keeps its pages");
        assert_eq!(fstat(&peers).unwrap().st_blocks * 512, 1 << 20, "no access by the peer faults");
    }
}

/// Whatever a peer does with the descriptor.
#[test]
fn memory_that_peers_only_read_is_sealed_against_their_writes() {
    let allocation = Allocation::shared(4096, false, true).unwrap();
    let file = used(&allocation).file().unwrap();
    let refused = check_mapped_file((allocation.address(), 4096), file.fd, 0, true).unwrap_err().to_string();
    assert!(refused.contains("Operation not permitted"), "{refused}");
    check_mapped_file((allocation.address(), 4096), file.fd, 0, false).unwrap();
    // SAFETY: mapped.
    unsafe { allocation.start().as_ptr().write(1) };
    allocation.release();
}

#[test]
fn bad_sizes_are_refused() {
    let text = |error: Result<Arc<Allocation>, AllocationError>| error.unwrap_err().to_string();
    assert!(text(Allocation::shared(0, false, false)).contains("0 bytes: ask for at least one"));
    assert!(text(Allocation::anonymous(0)).contains("0 bytes"));
    for bytes in [u64::MAX, i64::MAX as u64] {
        assert!(text(Allocation::shared(bytes, false, false)).contains("no file is as long"));
        let error = Allocation::anonymous(bytes).unwrap_err().to_string();
        assert!(error.contains(&bytes.to_string()), "{error}");
    }
    // Nothing is reserved, and no program is ended for it.
    let error = text(Allocation::shared(1 << 46, false, false));
    assert!(error.contains("70368744177664 bytes of memory") && error.contains("are left of"), "{error}");
}

/// Of a machine without huge pages the pool is empty.
#[test]
fn an_empty_pool_of_huge_pages_is_named() {
    match Allocation::shared(1 << 40, true, false) {
        Ok(_) => panic!("a pool of 1 TiB"),
        Err(AllocationError::Call { call, errno, hint, .. }) => {
            assert!(["fallocate", "mmap"].contains(&call), "{call}");
            assert!([libc::ENOSPC, libc::ENOMEM].contains(&errno), "{errno}");
            assert!(hint.contains("vm.nr_hugepages") && hint.contains("/sys/kernel/mm/hugepages"), "{hint}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn descriptors_that_peers_cannot_map_are_refused_with_the_reason() {
    let page = page_size() as u64;
    let file = memfd_create("mine", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, 4 * page).unwrap();
    let map = |flags, offset| {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping; it stays to the end of the test program.
        unsafe {
            mmap(
                std::ptr::null_mut(),
                2 * page as usize,
                both,
                MapFlags::from_bits_retain(flags),
                &file,
                offset,
            )
        }
        .unwrap() as u64
    };
    let (shared, private) = (map(libc::MAP_SHARED as _, page), map(libc::MAP_PRIVATE as _, page));
    let refused =
        |range, fd: i32, offset| check_mapped_file(range, fd, offset, true).unwrap_err().to_string();
    let fd = file.as_raw_fd();
    check_mapped_file((shared, 2 * page), fd, page, true).unwrap();
    check_mapped_file((shared + 9, 100), fd, page + 9, true).unwrap();

    let said = refused((shared, 2 * page), fd, 3 * page);
    let expected = format!("the file has {} bytes and the range ends at {}", 4 * page, 5 * page);
    assert!(said.contains(&expected), "{said}");
    assert!(refused((shared, page), fd, 0).contains(&format!("mapped from offset {page}, not 0")));
    assert!(refused((shared, page), fd, page + 1).contains(&format!("not {}", page + 1)));
    assert!(refused((shared, page), fd, u64::MAX).contains("wraps"));
    assert!(refused((private, page), fd, page).contains("MAP_PRIVATE"));
    assert!(refused((page, page), fd, page).contains("no memory is mapped"));
    let stack = [0_u8; 64];
    assert!(refused((stack.as_ptr() as u64, 64), fd, page).contains("without a file"));
    for (fd, what) in [(-1, "not negative"), (1 << 20, "fstat: Bad file descriptor")] {
        assert!(refused((shared, page), fd, page).contains(what));
    }
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let folder = std::fs::File::open("/").unwrap();
    let device = std::fs::File::open("/dev/null").unwrap();
    let other = memfd_create("other", MemfdFlags::empty()).unwrap();
    ftruncate(&other, 4 * page).unwrap();
    for (fd, what) in [
        (reader.as_raw_fd(), "a pipe"),
        (socket.as_raw_fd(), "a socket"),
        (folder.as_raw_fd(), "a directory"),
        (device.as_raw_fd(), "a device"),
        (other.as_raw_fd(), "another file, /memfd:mine"),
    ] {
        let said = refused((shared, page), fd, page);
        assert!(said.contains(what), "{said}");
    }
    let read_only = std::fs::File::open(format!("/proc/self/fd/{fd}")).unwrap();
    assert!(refused((shared, page), read_only.as_raw_fd(), page).contains("could only read it"));
    check_mapped_file((shared, page), read_only.as_raw_fd(), page, false).unwrap();
    let write_only = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}")).unwrap();
    assert!(refused((shared, page), write_only.as_raw_fd(), page).contains("O_RDWR"));
    // Peers could not write, though this process can.
    fcntl_add_seals(&file, SealFlags::FUTURE_WRITE).unwrap();
    assert!(refused((shared, page), fd, page).contains("seal"));
}
