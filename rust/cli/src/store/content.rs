//! The content of a file, read once through one descriptor: its size is known before the first byte is sent, and a file
//! that changes meanwhile is an error. A stream, such as standard input, has no size before its end.

use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::io::retry_on_intr;

use super::{Attributes, Prefix, StoreError, hash_prefix};

/// Files of at most this reported size are read at once: the size that /proc and /sys report is not that of the content.
const SMALL: u64 = 64 << 10;
/// Most bytes of a file with a small reported size.
pub(super) const MOST: u64 = 16 << 20;

/// An open file, or a stream.
#[derive(Debug)]
pub(crate) struct Content {
    path: String,
    file: File,
    /// As it was opened.
    opened: Metadata,
    /// All of it, if it is small.
    all: Option<Cursor<Vec<u8>>>,
    /// `None`: a stream.
    size: Option<u64>,
    /// Bytes that were read.
    position: u64,
}

impl Content {
    /// Takes a regular file, called `path` in errors.
    pub(super) fn new(file: File, path: String) -> Result<Self, StoreError> {
        let opened = file.metadata().map_err(|error| StoreError::io("query", path.as_str(), error))?;
        if !opened.is_file() {
            return Err(StoreError::NotAFile(path));
        }
        let size = opened.len();
        let mut content = Self { path, file, opened, all: None, size: Some(size), position: 0 };
        if size <= SMALL {
            content.read_all()?;
        }
        Ok(content)
    }

    /// Takes what is read once and has no size, such as a pipe.
    pub(crate) fn stream(file: File, path: String) -> Result<Self, StoreError> {
        let opened = file.metadata().map_err(|error| StoreError::io("query", path.as_str(), error))?;
        Ok(Self { path, file, opened, all: None, size: None, position: 0 })
    }

    /// Its bytes, unless it is a stream.
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Mode and time of the file; those of a stream are not its content's.
    pub(crate) fn attributes(&self) -> Attributes {
        if self.size.is_some() { Attributes::of(&self.opened) } else { Attributes::default() }
    }

    /// Reads on: as much as the buffer holds, or to the end. Less than the buffer holds means that the end is reached.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let wanted = match self.size {
            Some(size) => usize::try_from(size - self.position).unwrap_or(usize::MAX).min(buffer.len()),
            None => buffer.len(),
        };
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let read = match (&mut self.all, self.size) {
            (Some(all), _) => all.read_exact(part).map(|()| wanted),
            (None, Some(_)) => self.file.read_exact(part).map(|()| wanted),
            (None, None) => read_up_to(&mut self.file, part),
        };
        let read = read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed("it ended early"),
            _ => StoreError::io("read", self.path.as_str(), error),
        })?;
        self.position += read as u64;
        Ok(read)
    }

    /// All of it where it is in memory, and nothing of it was read: a file of at most 64 KiB.
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        let all = self.all.as_ref().filter(|_| self.position == 0)?;
        Some(all.get_ref())
    }

    /// Whether all was read; of a stream that is not known.
    pub(crate) fn is_at_end(&self) -> bool {
        self.size == Some(self.position)
    }

    /// The hash of the first `length` bytes, at most its size.
    pub(crate) fn hash_prefix<E: From<StoreError>>(
        &self,
        length: u64,
        tick: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Prefix, E> {
        let read = |buffer: &mut [u8], at| {
            self.file
                .read_exact_at(buffer, at)
                .map_err(|error| StoreError::io("read", self.path.as_str(), error))
        };
        hash_prefix(length, read, tick)
    }

    /// Continues behind the first `length` bytes, which must not be more than its size.
    pub(crate) fn skip_to(&mut self, length: u64) -> Result<(), StoreError> {
        let moved = match &mut self.all {
            Some(all) => all.seek(SeekFrom::Start(length)),
            None => self.file.seek(SeekFrom::Start(length)),
        };
        moved.map_err(|error| StoreError::io("read", self.path.as_str(), error))?;
        self.position = length;
        Ok(())
    }

    /// After the last byte: whether the file is still the one that was opened. Content in memory was checked when it was read.
    pub(crate) fn check_unchanged(&self) -> Result<(), StoreError> {
        if self.all.is_some() || self.size.is_none() {
            return Ok(());
        }
        let now = self.file.metadata().map_err(|error| StoreError::io("query", self.path.as_str(), error))?;
        match change(&self.opened, &now) {
            Some(what) => Err(self.changed(what)),
            None => Ok(()),
        }
    }

    fn read_all(&mut self) -> Result<(), StoreError> {
        let bytes = read_whole(&self.file, &self.opened)
            .map_err(|error| StoreError::io("read", self.path.as_str(), error))?;
        // Files of /proc and /sys report no changes; one read of them is one consistent content.
        self.check_unchanged()?;
        if bytes.len() as u64 > MOST {
            return Err(StoreError::SizeUnknown(self.path.clone()));
        }
        self.size = Some(bytes.len() as u64);
        self.all = Some(Cursor::new(bytes));
        Ok(())
    }

    fn changed(&self, what: impl Into<String>) -> StoreError {
        let now = self.file.metadata().ok().and_then(|now| change(&self.opened, &now));
        StoreError::Changed { name: self.path.clone(), what: now.unwrap_or_else(|| what.into()) }
    }
}

/// Reads to the end, or more than [`MOST`] bytes. Files of the usual file systems take one call.
fn read_whole(file: &File, opened: &Metadata) -> io::Result<Vec<u8>> {
    let reported = usize::try_from(opened.len()).unwrap_or(0);
    // One byte more shows whether it has grown.
    let mut bytes = vec![0; (reported + 1).max(4096)];
    let read = retry_on_intr(|| rustix::io::read(file, &mut *bytes))?;
    bytes.truncate(read);
    // The size that /proc and /sys report is not that of the content.
    if read > 0 && read != reported {
        Read::take(file, MOST + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Reads until the buffer is full or the stream ends.
fn read_up_to(stream: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn change(before: &Metadata, now: &Metadata) -> Option<String> {
    let (had, has) = (before.len(), now.len());
    let time = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
    if has < had {
        Some(format!("it shrank from {had} to {has} bytes"))
    } else if has > had {
        Some(format!("it grew from {had} to {has} bytes"))
    } else if time(before) != time(now) {
        Some("it was written to".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::open_local;

    fn read(path: &Path) -> Vec<u8> {
        let mut content = open_local(path).unwrap();
        let mut bytes = vec![0; usize::try_from(content.size().unwrap()).unwrap()];
        assert_eq!(content.read(&mut bytes).unwrap(), bytes.len());
        assert!(content.is_at_end() && content.read(&mut [0]).unwrap() == 0);
        content.check_unchanged().unwrap();
        bytes
    }

    #[test]
    fn files_with_another_reported_size_are_read_to_their_end() {
        let mut seen = 0;
        for path in ["/proc/version", "/proc/self/cmdline", "/sys/kernel/mm/transparent_hugepage/enabled"] {
            let path = Path::new(path);
            match std::fs::read(path) {
                Ok(bytes) => assert_eq!(read(path), bytes, "{path:?}"),
                Err(error) => eprintln!("skipped {path:?}: {error}"),
            }
            seen += usize::from(path.exists());
        }
        assert!(seen > 0, "nothing was read");
    }

    #[test]
    fn small_and_large_files() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        for size in [0, 1, 65_536, 65_537, 200_000] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path) == bytes, "{size}");
        }
    }

    #[test]
    fn a_replaced_file_is_read_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        let mut content = open_local(&path).unwrap();
        std::fs::write(temp.path().join("b"), b"other").unwrap();
        std::fs::rename(temp.path().join("b"), &path).unwrap();
        let mut bytes = vec![0; 100_000];
        content.read(&mut bytes).unwrap();
        content.check_unchanged().unwrap();
        assert_eq!(bytes, vec![1; 100_000]);
    }

    #[test]
    fn reading_goes_on_behind_a_prefix() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        for size in [100_usize, 200_000] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            let mut content = open_local(&path).unwrap();
            let mut ticks = 0;
            let mut tick = || {
                ticks += 1;
                Ok::<_, crate::store::StoreError>(())
            };
            let prefix = content.hash_prefix(99, &mut tick).unwrap();
            assert_eq!((prefix.hash(), ticks), (*blake3::hash(&bytes[..99]).as_bytes(), 1));
            content.skip_to(99).unwrap();
            let mut rest = vec![0; size];
            assert_eq!(content.read(&mut rest).unwrap(), size - 99);
            assert_eq!(rest[..size - 99], bytes[99..]);
        }
    }
}
