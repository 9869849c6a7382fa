//! A file that is being received.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, CWD, FallocateFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{Attributes, Directory, FileName, Prefix, StoreError, hash_prefix, temporary};

/// Disk space that is reserved before the first data.
const FIRST: u64 = 1 << 20;
/// Most that is reserved beyond the data at once. In a tmpfs it takes memory: a gigabyte at once stops the transfer for 0.3 s,
/// because the ring of slots is full long before.
const STEP: u64 = 32 << 20;
/// Files of at least this size are kept when their transfer is interrupted.
pub(crate) const RESUMABLE: u64 = 8 << 20;

/// A file that is being received. It gets its name in [`Incoming::commit`].
///
/// A small file has no name at all while it is written (`O_TMPFILE`), so that even a killed process leaves nothing behind; file
/// systems without that get a temporary name. A larger one is a partial file from the start, so that a later transfer can
/// continue it, whatever ends this one. It is removed when it cannot be written or [`Incoming::discard`] is called.
#[derive(Debug)]
pub(crate) struct Incoming {
    directory: Directory,
    name: FileName,
    file: File,
    /// Its temporary name, if it has one.
    temporary: Option<String>,
    /// Whether it stays under its temporary name when it is dropped.
    kept: bool,
    force: bool,
    /// `None`: not known before the end.
    size: Option<u64>,
    attributes: Attributes,
    written: u64,
    /// Disk space that it has: more is reserved as data arrives. A client that sends nothing holds almost none.
    reserved: u64,
}

impl Incoming {
    pub(super) fn new(
        directory: Directory,
        name: FileName,
        size: Option<u64>,
        force: bool,
    ) -> Result<Self, StoreError> {
        let (file, temporary) =
            temporary::open(&directory).map_err(|errno| cannot_create(&directory, errno))?;
        Self::over(directory, name, file, size, force).with_space(temporary)
    }

    /// One that is kept when it is dropped unfinished, if it is large enough. With `resume` it begins with what an earlier one
    /// has left.
    pub(super) fn resumable(
        directory: Directory,
        name: FileName,
        size: u64,
        force: bool,
        resume: bool,
    ) -> Result<Self, StoreError> {
        let partial = if size < RESUMABLE {
            temporary::remove_partial(&directory, &name);
            None
        } else {
            temporary::open_partial(&directory, &name).map_err(|errno| cannot_create(&directory, errno))?
        };
        let Some((file, partial)) = partial else { return Self::new(directory, name, Some(size), force) };
        let mut incoming = Self::over(directory, name, file, Some(size), force);
        let length = incoming.file.metadata().map_err(|error| incoming.failed("query", error))?.len();
        let begin = if resume && length <= size { length } else { 0 };
        incoming.continue_at(begin)?;
        incoming.kept = begin > 0;
        incoming.with_space(Some(partial))
    }

    fn over(directory: Directory, name: FileName, file: File, size: Option<u64>, force: bool) -> Self {
        let attributes = Attributes::default();
        let (temporary, kept, written, reserved) = (None, false, 0, 0);
        Self { directory, name, file, temporary, kept, force, size, attributes, written, reserved }
    }

    fn with_space(mut self, temporary: Option<String>) -> Result<Self, StoreError> {
        self.temporary = temporary;
        if self.size.is_some_and(|size| size <= FIRST) {
            // Its one write finds a full disk just as well.
            self.reserved = u64::MAX;
            return Ok(self);
        }
        let first = self.size.unwrap_or(FIRST).min(self.written.saturating_add(FIRST));
        if self.reserve(first)? {
            self.check_space()?;
        }
        Ok(self)
    }

    /// Sets what the file gets besides its bytes, in [`Incoming::commit`].
    pub(crate) fn set_attributes(&mut self, attributes: Attributes) {
        self.attributes = attributes;
    }

    /// Sets the size, where it was not known rightly before.
    pub(crate) fn set_size(&mut self, size: u64) {
        self.size = Some(size);
    }

    /// Bytes that are there already, or were written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// The hash of what is there already. `tick` is called every now and then.
    pub(crate) fn hash_written<E: From<StoreError>>(
        &self,
        tick: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Prefix, E> {
        let read = |buffer: &mut [u8], at| {
            self.file
                .read_exact_at(buffer, at)
                .map_err(|error| self.failed("read the partial file of", error))
        };
        hash_prefix(self.written, read, tick)
    }

    /// Goes on behind the first `length` bytes, and forgets what follows.
    pub(crate) fn continue_at(&mut self, length: u64) -> Result<(), StoreError> {
        let moved = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        moved.map_err(|error| self.failed("continue", error))?;
        self.written = length;
        if self.reserved != u64::MAX {
            self.reserved = length;
        }
        Ok(())
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let written = self.append(bytes);
        if written.is_err() {
            // A full disk must not stay full.
            self.kept = false;
        } else if self.size >= Some(RESUMABLE) {
            self.kept = true;
        }
        written
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.written + bytes.len() as u64;
        if end > self.reserved {
            let ahead = end.saturating_add(end.min(STEP));
            self.reserve(self.size.map_or(ahead, |size| size.min(ahead)).max(end))?;
        }
        self.file.write_all(bytes).map_err(|error| self.failed("write", error))?;
        self.written = end;
        Ok(())
    }

    /// Removes it now, also if it would be kept.
    pub(crate) fn discard(mut self) {
        self.kept = false;
    }

    /// Syncs the file to disk, gives it its name, and syncs the directory.
    pub(crate) fn commit(self) -> Result<(), StoreError> {
        self.sync()?;
        let directory = self.directory.clone();
        self.name_synced()?;
        directory.sync()
    }

    /// Completes the file, and syncs it to disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        if self.size.is_none() {
            // Gives back what was reserved behind the end.
            self.file.set_len(self.written).map_err(|error| self.failed("write", error))?;
        }
        self.attributes.set(&self.file).map_err(|errno| self.failed("set mode and time of", errno))?;
        self.file.sync_all().map_err(|error| self.failed("sync", error))
    }

    /// Gives it its name.
    pub(super) fn name_synced(mut self) -> Result<(), StoreError> {
        if self.temporary.is_none() && !self.force {
            // One step for a file without a name: a name that is taken is refused.
            return self.link(self.name.as_str()).map_err(|errno| self.not_named(errno));
        }
        self.rename()
    }

    /// The directory that it is in.
    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Reserves space for the first `size` bytes. False: the file system cannot, and a full disk shows later.
    fn reserve(&mut self, size: u64) -> Result<bool, StoreError> {
        // Only what is new: a tmpfs looks at each page of the range.
        let (start, more) = (self.reserved, size.saturating_sub(self.reserved));
        if more == 0 {
            return Ok(true);
        }
        // The length of a partial file is that of what was written.
        match retry_on_intr(|| rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, start, more)) {
            Ok(()) => {
                self.reserved = size;
                Ok(true)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.reserved = u64::MAX;
                Ok(false)
            }
            Err(errno) => Err(self.failed("reserve space for", errno)),
        }
    }

    /// Refuses a file that the disk has no space for, before its data is sent.
    fn check_space(&self) -> Result<(), StoreError> {
        let (free, size) = (self.directory.free_space()?, self.size.unwrap_or(0));
        if size.saturating_sub(self.reserved) > free {
            let path = self.directory.path_of(&self.name);
            return Err(StoreError::Full { path, needed: size, free: free + self.reserved });
        }
        Ok(())
    }

    /// Makes sure that there is a temporary name to rename from.
    fn named(&mut self) -> Result<String, StoreError> {
        if let Some(name) = &self.temporary {
            return Ok(name.clone());
        }
        let name = temporary::new_name().map_err(|errno| self.failed("name", errno))?;
        temporary::lock(&self.file).map_err(|errno| self.failed("lock", errno))?;
        self.link(&name).map_err(|errno| self.failed("name", errno))?;
        self.temporary = Some(name.clone());
        Ok(name)
    }

    /// Gives a file without a name this one.
    fn link(&self, name: &str) -> Result<(), Errno> {
        let directory = &*self.directory.fd;
        match rustix::fs::linkat(&self.file, "", directory, name, AtFlags::EMPTY_PATH) {
            // Before Linux 6.10 only a privileged process may do so.
            Err(Errno::NOENT) => {
                let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, source, directory, name, AtFlags::SYMLINK_FOLLOW)
            }
            linked => linked,
        }
    }

    fn rename(&mut self) -> Result<(), StoreError> {
        // A finished file that cannot get its name is not continued.
        self.kept = false;
        let temporary = self.named()?;
        let (directory, name) = (&*self.directory.fd, self.name.as_str());
        let renamed = if self.force {
            rustix::fs::renameat(directory, &temporary, directory, name)
        } else {
            match rustix::fs::renameat_with(directory, &temporary, directory, name, RenameFlags::NOREPLACE) {
                // The file system cannot rename so; a hard link refuses a taken name just as well.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::linkat(directory, &temporary, directory, name, AtFlags::empty())
                        .and_then(|()| rustix::fs::unlinkat(directory, &temporary, AtFlags::empty()))
                }
                renamed => renamed,
            }
        };
        renamed.map_err(|errno| self.not_named(errno))?;
        self.temporary = None;
        Ok(())
    }

    fn not_named(&self, errno: Errno) -> StoreError {
        match errno {
            Errno::EXIST => StoreError::Exists(self.directory.path_of(&self.name)),
            errno => self.failed("rename to", errno),
        }
    }

    fn failed(&self, operation: &'static str, error: impl Into<std::io::Error>) -> StoreError {
        StoreError::io(operation, self.directory.path_of(&self.name), error)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary
            && !self.kept
            && let Err(error) = rustix::fs::unlinkat(&*self.directory.fd, name.as_str(), AtFlags::empty())
        {
            tracing::warn!(name, %error, "cannot remove a temporary file");
        }
    }
}

fn cannot_create(directory: &Directory, errno: Errno) -> StoreError {
    StoreError::io("create a file in", directory.path.display().to_string(), errno)
}

#[cfg(test)]
fn named_for_test(directory: &Directory) -> Incoming {
    let (file, temporary) = temporary::open_named(directory).unwrap();
    let mut incoming = Incoming::over(directory.clone(), FileName::new("a").unwrap(), file, Some(0), false);
    incoming.temporary = temporary;
    incoming
}

/// A file of which no byte can be written.
#[cfg(test)]
pub(crate) fn unwritable_for_test() -> Incoming {
    let directory = Directory::open(std::path::Path::new("/tmp")).unwrap();
    let (file, name) = (File::open("/dev/null").unwrap(), FileName::new("a").unwrap());
    let mut incoming = Incoming::over(directory, name, file, Some(0), false);
    incoming.reserved = u64::MAX;
    incoming
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_temporary_is_renamed_or_removed() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        for (commit, left) in [(false, 0), (true, 1)] {
            let incoming = named_for_test(&directory);
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
            if commit {
                incoming.commit().unwrap();
            } else {
                drop(incoming);
            }
            assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), left);
        }
        assert!(temp.path().join("a").exists());
    }

    #[test]
    fn space_is_reserved_as_data_arrives() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let create = |size| directory.create(&FileName::new("a").unwrap(), Some(size), true);
        let mut incoming = create(100 << 20).unwrap();
        if incoming.reserved == u64::MAX {
            return eprintln!("skipped: this file system reserves no space");
        }
        assert_eq!(incoming.reserved, FIRST);
        incoming.write(&vec![7; 3 << 20]).unwrap();
        assert_eq!(incoming.reserved, 6 << 20);
        incoming.write(&vec![7; 37 << 20]).unwrap();
        assert_eq!(incoming.reserved, 72 << 20);
        incoming.write(&vec![7; 60 << 20]).unwrap();
        assert_eq!(incoming.reserved, 100 << 20);
        incoming.commit().unwrap();
        assert!(std::fs::read(temp.path().join("a")).unwrap() == vec![7; 100 << 20]);
        assert!(matches!(create(1 << 60), Err(StoreError::Full { .. })));
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 1);
    }

    fn partials(path: &std::path::Path) -> usize {
        let names =
            std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".partial")).count()
    }

    #[test]
    fn a_large_file_is_kept_until_it_is_complete() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let name = FileName::new("a").unwrap();
        let create = |resume| directory.create_resumable(&name, RESUMABLE, false, resume).unwrap();
        let half = vec![1; RESUMABLE as usize / 2];
        let mut tick = || Ok::<_, StoreError>(());
        drop(create(true));
        assert_eq!(partials(temp.path()), 0, "nothing was written");
        let mut incoming = create(true);
        incoming.write(&half).unwrap();
        let other = create(true);
        assert_eq!(other.written(), 0, "the partial file has a writer");
        drop((incoming, other));
        assert_eq!(partials(temp.path()), 1);
        let mut incoming = create(true);
        let kept = incoming.hash_written(&mut tick).unwrap();
        assert_eq!((kept.bytes, kept.hasher.finalize()), (half.len() as u64, blake3::hash(&half)));
        incoming.write(&half).unwrap();
        incoming.commit().unwrap();
        assert_eq!(partials(temp.path()), 0);
        assert!(std::fs::read(temp.path().join("a")).unwrap() == vec![1; RESUMABLE as usize]);
    }

    #[test]
    fn what_is_kept_is_left_out_on_request_and_removed_by_a_smaller_file() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let name = FileName::new("a").unwrap();
        let create = |size, resume| directory.create_resumable(&name, size, false, resume).unwrap();
        create(RESUMABLE, true).write(&[1; 5000]).unwrap();
        assert_eq!(create(RESUMABLE, true).written(), 5000);
        let incoming = create(RESUMABLE, false);
        assert_eq!(incoming.written(), 0);
        drop(incoming);
        assert_eq!(partials(temp.path()), 0, "nothing is left of it");
        create(RESUMABLE, true).write(&[1; 5000]).unwrap();
        drop(create(10, true));
        assert_eq!(partials(temp.path()), 0);
        create(RESUMABLE, true).write(&[1; 5000]).unwrap();
        create(RESUMABLE, true).discard();
        assert_eq!(partials(temp.path()), 0);
    }
}
