//! What is kept of a file besides its name and its bytes.

use std::fs::Metadata;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Whether the owner may execute a file, and when it was written last. Owner, group, further permissions, access lists and
/// extended attributes are not transferred: a new file belongs to the process that stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) executable: bool,
    /// `None`: the time at which it is stored.
    pub(crate) modified: Option<Time>,
}

/// A point in time, since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

impl Attributes {
    pub(super) fn of(file: &Metadata) -> Self {
        let modified =
            Time { seconds: file.mtime(), nanoseconds: u32::try_from(file.mtime_nsec()).unwrap_or(0) };
        Self { executable: file.mode() & 0o100 != 0, modified: Some(modified) }
    }

    /// Gives them to an open file, of which the umask is not known: 0755 or 0644.
    pub(super) fn set(self, file: impl AsFd) -> Result<(), Errno> {
        if self.executable {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o755))?;
        }
        let Some(Time { seconds, nanoseconds }) = self.modified else { return Ok(()) };
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        // The peer chose the number.
        let nanoseconds = nanoseconds.min(999_999_999);
        let last_modification = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        rustix::fs::futimens(file, &Timestamps { last_access, last_modification })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_set_is_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let file = File::create(temp.path().join("a")).unwrap();
        for (executable, seconds) in [(false, 1_600_000_000), (true, 5)] {
            let attributes =
                Attributes { executable, modified: Some(Time { seconds, nanoseconds: 500_000_000 }) };
            attributes.set(&file).unwrap();
            assert_eq!(Attributes::of(&file.metadata().unwrap()), attributes);
        }
        // Out of range: the file system stores what it can.
        let late = Attributes {
            executable: false,
            modified: Some(Time { seconds: i64::MAX, nanoseconds: u32::MAX }),
        };
        late.set(&file).unwrap();
    }
}
