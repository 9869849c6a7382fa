//! The size of the file behind a mapping.
//!
//! A file on a disk or in /dev/shm is found by its path. A deleted file and a memfd are found only by the kernel's
//! own link, which needs a capability, and by a descriptor of the process, if it has one open.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Stat, major, minor, stat};

use super::mapping::{MappedFile, Mapping};
use crate::fork::PerProcess;

/// Limit of descriptors that are searched for a file.
const MAX_DESCRIPTORS: usize = 4096;

/// The size of a mapping's file in bytes; `None` for files without an end (devices), or if it cannot be determined.
pub(super) fn of(mapping: &Mapping, file: &MappedFile) -> Option<u64> {
    if !file.may_have_an_end() {
        return None;
    }
    let found = by_path(file).or_else(|| by_link(mapping)).or_else(|| by_descriptor(file))?;
    let is_regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    is_regular.then(|| u64::try_from(found.st_size).ok())?
}

/// Compares the inode alone: file systems of several volumes report another device in `stat` than in the maps.
fn by_path(file: &MappedFile) -> Option<Stat> {
    stat(file.path()?).ok().filter(|found| found.st_ino == file.inode)
}

fn by_link(mapping: &Mapping) -> Option<Stat> {
    stat(format!("/proc/self/map_files/{:x}-{:x}", mapping.start, mapping.end)).ok()
}

/// Caches the last file and its descriptor, because many regions lie in one file. A cached descriptor is checked, but
/// a file without a descriptor is not searched for again while it is the last one.
fn by_descriptor(file: &MappedFile) -> Option<Stat> {
    static LAST: PerProcess<Mutex<Option<LastFile>>> = PerProcess::new(Mutex::default);
    let name = (file.device, file.inode);
    let mut last = LAST.get().lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = last.as_ref().filter(|known| known.name == name) {
        match &known.descriptor {
            None => return None,
            Some(path) => {
                if let Some(found) = is_it(path, name) {
                    return Some(found);
                }
            }
        }
    }
    let found = search(name);
    let descriptor = found.as_ref().map(|(path, _)| path.clone());
    *last = Some(LastFile { name, descriptor });
    found.map(|(_, found)| found)
}

/// A file, by device and inode.
type FileName = ((u32, u32), u64);

struct LastFile {
    name: FileName,
    descriptor: Option<PathBuf>,
}

fn search(name: FileName) -> Option<(PathBuf, Stat)> {
    let descriptors = std::fs::read_dir(DESCRIPTORS).ok()?;
    descriptors
        .take(MAX_DESCRIPTORS)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find_map(|path| is_it(&path, name).map(|found| (path, found)))
}

fn is_it(descriptor: &Path, (device, inode): FileName) -> Option<Stat> {
    let found = stat(descriptor.as_os_str().as_bytes()).ok()?;
    let on = (major(found.st_dev), minor(found.st_dev));
    (found.st_ino == inode && on == device).then_some(found)
}

const DESCRIPTORS: &str = "/proc/thread-self/fd";

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

    use super::*;

    fn memfd(bytes: u64) -> (OwnedFd, MappedFile) {
        let file = memfd_create("found by its descriptor", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, bytes).unwrap();
        let found = fstat(&file).unwrap();
        let device = (major(found.st_dev), minor(found.st_dev));
        let name = PathBuf::from("/memfd:x (deleted)");
        (file, MappedFile { offset: 0, inode: found.st_ino, device, name })
    }

    /// As it is for a process without capabilities.
    #[test]
    fn a_memfd_is_found_while_a_descriptor_of_it_is_open() {
        let size = |file: &MappedFile| by_descriptor(file).map(|found| found.st_size);
        let ((one, first), (_other, second)) = (memfd(4096), memfd(8192));
        for length in [4096, 100, 0] {
            ftruncate(&one, length).unwrap();
            assert_eq!(size(&first), Some(length.cast_signed()));
            assert_eq!(size(&second), Some(8192));
        }
        assert_eq!(size(&first), Some(0));
        drop(one);
        // Its number now belongs to another file.
        let _successor = File::open("/dev/null").unwrap();
        for _ in 0..2 {
            assert_eq!(size(&first), None);
        }
        assert_eq!(size(&second), Some(8192));
    }

    #[test]
    fn another_file_at_its_path_is_not_taken_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"six...").unwrap();
        let found = stat(&path).unwrap();
        let device = (major(found.st_dev), minor(found.st_dev));
        let file = MappedFile { offset: 0, inode: found.st_ino, device, name: path.clone() };
        assert_eq!(by_path(&file).map(|found| found.st_size), Some(6));
        std::fs::rename(&path, directory.path().join("before")).unwrap();
        std::fs::write(&path, b"another").unwrap();
        assert!(by_path(&file).is_none());
    }
}
