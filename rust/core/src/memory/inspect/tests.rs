//! Inspection of real memory by this machine's kernel.
#![allow(unsafe_code, reason = "maps memory")]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

use super::*;

fn page_bytes() -> u64 {
    page_size() as u64
}
const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Memory of its own, gone when dropped.
struct Mapped {
    address: u64,
    pages: u64,
}

impl Mapped {
    fn anonymous(pages: u64, rights: ProtFlags, flags: MapFlags) -> Self {
        // SAFETY: a fresh mapping aliases nothing.
        let address = unsafe { mmap_anonymous(null_mut(), (pages * page_bytes()) as usize, rights, flags) };
        Self { address: address.unwrap() as u64, pages }
    }

    fn file(file: &impl AsFd, pages: u64, offset: u64, rights: ProtFlags, flags: MapFlags) -> Self {
        // SAFETY: as above; the test does not access it.
        let address = unsafe {
            mmap(null_mut(), (pages * page_bytes()) as usize, rights, flags, file, offset * page_bytes())
        };
        Self { address: address.unwrap() as u64, pages }
    }

    fn protect(&self, page: u64, rights: MprotectFlags) {
        // SAFETY: the page is the test's own, and no reference points into it.
        unsafe { mprotect((self.address + page * page_bytes()) as *mut _, page_bytes() as usize, rights) }
            .unwrap();
    }

    fn unmap(&self, page: u64) {
        // SAFETY: as above.
        unsafe { munmap((self.address + page * page_bytes()) as *mut _, page_bytes() as usize) }.unwrap();
    }

    fn look(&self) -> Result<Inspection, (u64, InaccessibleReason)> {
        look(self.address, self.pages * page_bytes())
    }

    /// Resident pages: an inspection must bring in none.
    fn resident(&self) -> usize {
        let mut pages = vec![0_u8; self.pages as usize];
        // SAFETY: looks at the page tables only, and writes one byte for each page.
        let answer = unsafe {
            libc::mincore(self.address as *mut _, (self.pages * page_bytes()) as usize, pages.as_mut_ptr())
        };
        assert_eq!(answer, 0);
        pages.iter().filter(|page| **page & 1 != 0).count()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is the test's own; pages that are gone already do no harm.
        let _ = unsafe { munmap(self.address as *mut _, (self.pages * page_bytes()) as usize) };
    }
}

/// By both sources, which must agree.
fn look(address: u64, length: u64) -> Result<Inspection, (u64, InaccessibleReason)> {
    let answer = inspect(address, length);
    let maps = File::open(source::MAPS).unwrap();
    let in_text = source::in_text(maps, &|covering| {
        judge::judge(address, length, page_bytes(), covering, file_size::of)
    });
    assert_eq!(answer, in_text);
    answer.map(|found| found.expect("/proc is mounted")).map_err(|error| (error.offset, error.reason))
}

fn memfd(bytes: u64) -> OwnedFd {
    let file = memfd_create("inspected", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, bytes).unwrap();
    file
}

const fn inspection(access: CpuAccess, anonymous: bool) -> Inspection {
    Inspection { access, anonymous, device: false }
}

const ORDINARY: Inspection = inspection(CpuAccess::ReadWrite, true);
const FILE: Inspection = inspection(CpuAccess::ReadWrite, false);

#[test]
fn heap_stack_and_anonymous_memory_are_ordinary() {
    let (heap, on_stack) = (vec![1_u8; 100_000], [1_u8; 3000]);
    for range in [&heap[..], &on_stack] {
        assert_eq!(look(range.as_ptr().addr() as u64, range.len() as u64), Ok(ORDINARY));
    }
    let lazy = Mapped::anonymous(64, RW, MapFlags::PRIVATE | MapFlags::NORESERVE);
    assert_eq!(lazy.look(), Ok(ORDINARY));
    assert_eq!(lazy.resident(), 0, "pages were touched");
    // Not whole pages.
    assert_eq!(look(lazy.address + 1, 64 * page_bytes() - 2), Ok(ORDINARY));
}

#[test]
fn what_has_a_file_for_the_kernel_is_not_anonymous() {
    let shared = Mapped::anonymous(4, RW, MapFlags::SHARED);
    assert_eq!(shared.look(), Ok(FILE));
    let file = memfd(4 * page_bytes());
    for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
        assert_eq!(Mapped::file(&file, 4, 0, RW, flags).look(), Ok(FILE));
    }
    // Part of it is enough.
    let mixed = Mapped::anonymous(4, RW, MapFlags::PRIVATE);
    let at = (mixed.address + 2 * page_bytes()) as *mut _;
    // SAFETY: replaces a page of the test's own.
    unsafe { mmap(at, page_bytes() as usize, RW, MapFlags::SHARED | MapFlags::FIXED, &file, 0) }.unwrap();
    assert_eq!(mixed.look(), Ok(FILE));
    assert_eq!(look(mixed.address, 2 * page_bytes()), Ok(ORDINARY));
}

#[test]
fn read_only_memory_is_seen_wherever_it_is() {
    let constant: &'static [u8] = b"in the program's file";
    let of_program = inspection(CpuAccess::ReadOnly, false);
    assert_eq!(look(constant.as_ptr().addr() as u64, constant.len() as u64), Ok(of_program));
    let read_only = inspection(CpuAccess::ReadOnly, true);
    assert_eq!(Mapped::anonymous(4, ProtFlags::READ, MapFlags::PRIVATE).look(), Ok(read_only));
    let memory = Mapped::anonymous(4, RW, MapFlags::PRIVATE);
    memory.protect(2, MprotectFlags::READ);
    assert_eq!(memory.look(), Ok(read_only));
    assert_eq!(look(memory.address, 2 * page_bytes()), Ok(ORDINARY));
}

#[test]
fn holes_and_forbidden_pages_are_named_by_their_first_byte() {
    let memory = Mapped::anonymous(8, RW, MapFlags::PRIVATE);
    memory.protect(5, MprotectFlags::empty());
    assert_eq!(memory.look(), Err((5 * page_bytes(), InaccessibleReason::NotReadable)));
    assert_eq!(look(memory.address + 7, 5 * page_bytes() - 7), Ok(ORDINARY));
    assert_eq!(
        look(memory.address + 7, 5 * page_bytes() - 6),
        Err((5 * page_bytes() - 7, InaccessibleReason::NotReadable))
    );
    memory.unmap(3);
    assert_eq!(memory.look(), Err((3 * page_bytes(), InaccessibleReason::NotMapped)));
    assert_eq!(look(1, 1), Err((0, InaccessibleReason::NotMapped)));
    assert_eq!(look(u64::MAX - 5, 5), Err((0, InaccessibleReason::NotMapped)));
    let nobodys = Mapped::anonymous(4, ProtFlags::empty(), MapFlags::PRIVATE);
    assert_eq!(nobodys.look(), Err((0, InaccessibleReason::NotReadable)));
    let error = inspect(nobodys.address, 9).unwrap_err().to_string();
    for part in [format!("{:#x}+9", nobodys.address).as_str(), "EFAULT", "byte 0", "PROT_READ"] {
        assert!(error.contains(part), "{error}");
    }
}

/// A file on disk, one that is deleted, and a memfd; the file may end within a page.
#[test]
fn the_end_of_a_file_is_the_end() {
    let on_disk = tempfile::NamedTempFile::new().unwrap();
    let deleted = tempfile::tempfile().unwrap();
    let in_memory = File::from(memfd(0));
    for file in [on_disk.as_file(), &deleted, &in_memory] {
        for (size, whole_pages) in [
            (0, 0),
            (1, 1),
            (page_bytes(), 1),
            (page_bytes() + 1, 2),
            (4 * page_bytes() - 1, 4),
            (9 * page_bytes(), 9),
        ] {
            file.set_len(size).unwrap();
            for offset in [0, 1, 3] {
                let mapped = Mapped::file(file, 4, offset, RW, MapFlags::SHARED);
                let accessible = u64::saturating_sub(whole_pages, offset);
                let expected = match accessible {
                    4.. => Ok(FILE),
                    _ => Err((
                        accessible * page_bytes(),
                        InaccessibleReason::BeyondEndOfFile { file_size: size },
                    )),
                };
                assert_eq!(mapped.look(), expected, "{file:?} of {size} from page {offset} on");
                if accessible > 0 {
                    assert_eq!(look(mapped.address, accessible.min(4) * page_bytes()), Ok(FILE));
                }
            }
        }
    }
}

/// An inspection sees the file as it is now, although the last file's descriptor is cached.
#[test]
fn a_file_that_changes_is_seen_as_it_is() {
    let (first, second) = (memfd(4 * page_bytes()), memfd(4 * page_bytes()));
    let (one, other) = [&first, &second].map(|file| Mapped::file(file, 4, 0, RW, MapFlags::SHARED)).into();
    for size in [4, 2, 3, 0, 4] {
        ftruncate(&first, size * page_bytes()).unwrap();
        let expected = match size {
            4 => Ok(FILE),
            _ => Err((
                size * page_bytes(),
                InaccessibleReason::BeyondEndOfFile { file_size: size * page_bytes() },
            )),
        };
        assert_eq!(one.look(), expected);
        assert_eq!(other.look(), Ok(FILE));
    }
}

#[test]
fn devices_are_left_alone() {
    let zero = File::options().read(true).write(true).open("/dev/zero").unwrap();
    assert_eq!(
        Mapped::file(&zero, 4, 0, RW, MapFlags::PRIVATE).look().map(|found| found.access),
        Ok(CpuAccess::ReadWrite)
    );
}

/// What the kernel puts into every process.
#[test]
fn the_kernels_own_pages_do_not_confuse() {
    let maps = std::fs::read_to_string("/proc/thread-self/maps").unwrap();
    let Some(vdso) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        println!("not run: this machine has no vdso");
        return;
    };
    let start = u64::from_str_radix(vdso.split_once('-').unwrap().0, 16).unwrap();
    assert_eq!(look(start, 16).map(|found| found.access), Ok(CpuAccess::ReadOnly));
}
