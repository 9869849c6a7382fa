//! The content of a file, read once through one descriptor: its size is known before the first byte is sent, and a file
//! that changes meanwhile is an error.

use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::MetadataExt;

use super::StoreError;

/// Files of at most this reported size are read at once: the size that /proc and /sys report is not that of the content.
const SMALL: u64 = 64 << 10;
/// Most bytes of a file with a small reported size.
pub(super) const MOST: u64 = 16 << 20;

/// An open file.
#[derive(Debug)]
pub(crate) struct Content {
    path: String,
    file: File,
    /// As it was opened.
    opened: Metadata,
    /// All of it, if it is small.
    all: Option<Cursor<Vec<u8>>>,
    size: u64,
}

impl Content {
    /// Takes a regular file, called `path` in errors.
    pub(super) fn new(file: File, path: String) -> Result<Self, StoreError> {
        let opened = file.metadata().map_err(|error| StoreError::io("query", path.as_str(), error))?;
        if !opened.is_file() {
            return Err(StoreError::NotAFile(path));
        }
        let size = opened.len();
        let mut content = Self { path, file, opened, all: None, size };
        if size <= SMALL {
            content.read_all()?;
        }
        Ok(content)
    }

    /// Its bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads as much as the buffer holds. It must not go beyond the end.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        let read = match &mut self.all {
            Some(all) => all.read_exact(buffer),
            None => self.file.read_exact(buffer),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed("it ended early"),
            _ => StoreError::io("read", self.path.as_str(), error),
        })
    }

    /// After the last byte: whether the file is still the one that was opened. Content in memory was checked when it was read.
    pub(crate) fn check_unchanged(&self) -> Result<(), StoreError> {
        if self.all.is_some() {
            return Ok(());
        }
        let now = self.file.metadata().map_err(|error| StoreError::io("query", self.path.as_str(), error))?;
        match change(&self.opened, &now) {
            Some(what) => Err(self.changed(what)),
            None => Ok(()),
        }
    }

    fn read_all(&mut self) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        Read::take(&self.file, MOST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| StoreError::io("read", self.path.as_str(), error))?;
        // Files of /proc and /sys report no changes; one read of them is one consistent content.
        self.check_unchanged()?;
        self.size = bytes.len() as u64;
        if self.size > MOST {
            return Err(StoreError::SizeUnknown(self.path.clone()));
        }
        self.all = Some(Cursor::new(bytes));
        Ok(())
    }

    fn changed(&self, what: impl Into<String>) -> StoreError {
        let now = self.file.metadata().ok().and_then(|now| change(&self.opened, &now));
        StoreError::Changed { name: self.path.clone(), what: now.unwrap_or_else(|| what.into()) }
    }
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
        let mut bytes = vec![0; usize::try_from(content.size()).unwrap()];
        content.fill(&mut bytes).unwrap();
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
        content.fill(&mut bytes).unwrap();
        content.check_unchanged().unwrap();
        assert_eq!(bytes, vec![1; 100_000]);
    }
}
