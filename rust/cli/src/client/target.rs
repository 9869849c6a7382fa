//! The destination of a fetched file.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;

use crate::error::{CliError, Result};
use crate::pipeline::Destination;
use crate::store::{
    Attributes, Directory, FileName, Incoming, LastFolder, RESUMABLE, RelativeName, StoreError,
};

/// A directory, shared by all files that go below it.
pub(super) type Folders = Rc<RefCell<LastFolder>>;

/// Where a fetched file goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Below a directory.
    File { folders: Folders, name: RelativeName, force: bool, resume: bool },
    /// To standard output, as it arrives.
    Output,
}

/// A target that is being written.
#[derive(Debug)]
pub(super) enum Writing {
    File(Incoming),
    Output(File),
}

impl Target {
    /// `output` (a path), or `name` in the current directory.
    pub(crate) fn new(name: &str, output: Option<&Path>, force: bool) -> Result<Self> {
        let own = FileName::new(name).map_err(|error| CliError::usage(error.to_string()))?;
        let name = match output {
            None => own,
            Some(path) => {
                let last = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                    CliError::usage(format!("-o {}: expected the path of a file", path.display()))
                })?;
                FileName::new(last).map_err(|error| CliError::usage(error.to_string()))?
            }
        };
        let parent = output.and_then(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
        let directory =
            Directory::open(parent.unwrap_or_else(|| Path::new("."))).map_err(CliError::argument)?;
        let name = RelativeName::new(name.as_str())?;
        let folders = Rc::new(RefCell::new(LastFolder::below(directory)));
        Ok(Self::File { folders, name, force, resume: false })
    }

    /// Whether the name is free, before anything is asked for.
    pub(super) fn check_free(&self) -> Result<()> {
        let Self::File { folders, name, force, .. } = self else { return Ok(()) };
        match folders.borrow_mut().folder_of(name) {
            Ok(folder) => Ok(folder.check_free(name.file(), *force)?),
            Err(error @ StoreError::NotAFolder(_)) => Err(error.into()),
            // It is made later.
            Err(_) => Ok(()),
        }
    }

    /// What an interrupted run has left of a file of `size` bytes.
    pub(super) fn kept(&self, size: u64) -> Result<Option<Incoming>> {
        let Self::File { folders, name, force, resume: true } = self else { return Ok(None) };
        if size < RESUMABLE {
            return Ok(None);
        }
        let Ok(folder) = folders.borrow_mut().folder_of(name) else { return Ok(None) };
        if folder.partial_size(name.file()).is_none_or(|kept| kept == 0) {
            return Ok(None);
        }
        let incoming = folder.create_resumable(name.file(), size, *force, true)?;
        Ok((incoming.written() > 0).then_some(incoming))
    }

    /// Starts to write a file of `size` bytes.
    pub(super) fn create(&self, size: u64, attributes: Attributes) -> Result<Writing> {
        match self {
            Self::File { folders, name, force, .. } => {
                let folder = folders.borrow_mut().make_folder_of(name)?;
                let mut incoming = folder.create_anew(name.file(), size, *force)?;
                incoming.set_attributes(attributes);
                Ok(Writing::File(incoming))
            }
            Self::Output => {
                let output = std::io::stdout().as_fd().try_clone_to_owned();
                Ok(Writing::Output(File::from(output.map_err(|error| unprinted(&error))?)))
            }
        }
    }
}

impl Destination for Writing {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Output(output) => output.write_all(bytes).map_err(|error| unprinted(&error)),
        }
    }
}

fn unprinted(error: &std::io::Error) -> StoreError {
    StoreError::Io { operation: "write to", path: "standard output".to_owned(), reason: error.to_string() }
}
