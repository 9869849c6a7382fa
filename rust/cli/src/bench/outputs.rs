//! The files that results go to: tried before anything is measured, complete or not there at all.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{CliError, Result, While};
use crate::output;

/// The beginning of temporary names.
const TEMPORARY: &str = ".flagcx-p2p-bench-";

/// Where a file goes.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// `-`.
    Stdout,
    /// A file that appears complete, in this directory.
    Regular(PathBuf),
    /// A device or a pipe: written as it is.
    Special(File),
}

impl Target {
    /// Makes sure that `path` can be written. `option` is the one that names it.
    pub(crate) fn open(option: &str, path: &Path) -> Result<Self> {
        let kind = Self::kind(path).map_err(|error| {
            CliError::usage(format!("{option} {}: {error}; nothing was measured", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), kind })
    }

    fn kind(path: &Path) -> std::io::Result<Kind> {
        if is_stdout(path) {
            return Ok(Kind::Stdout);
        }
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => return Err(std::io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => {
                return OpenOptions::new().write(true).open(path).map(Kind::Special);
            }
            // A file that may not be written is not replaced either.
            Ok(_) => drop(OpenOptions::new().append(true).open(path)?),
            Err(_) => {}
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or_else(|| Path::new("."));
        // Removed again: a run that is killed leaves nothing.
        let tried = parent.join(format!("{TEMPORARY}{}", std::process::id()));
        drop(File::create_new(&tried)?);
        std::fs::remove_file(&tried)?;
        Ok(Kind::Regular(parent.to_owned()))
    }

    /// Writes the content, and gives the file its name.
    pub(crate) fn write(self, content: &[u8]) -> Result<()> {
        let path = &self.path;
        let written = match self.kind {
            Kind::Stdout => {
                output::line(String::from_utf8_lossy(content).trim_end());
                Ok(())
            }
            Kind::Special(mut file) => file.write_all(content),
            Kind::Regular(parent) => temporary_in(&parent).and_then(|mut file| {
                file.write_all(content)?;
                file.persist(path).map(drop).map_err(|error| error.error)
            }),
        };
        written
            .map_err(|error| CliError::other(error.to_string()))
            .doing(|| format!("write {}", path.display()))
    }
}

/// A file under a temporary name.
fn temporary_in(directory: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).permissions(Permissions::from_mode(0o666));
    builder.tempfile_in(directory)
}

/// Whether `path` stands for standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}
