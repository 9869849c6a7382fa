//! The files that a put sends: those of the command line, and those in its folders.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::{PutOptions, list};
use crate::error::{CliError, Result};
use crate::output;
use crate::ring::Files;
use crate::store::{self, Content, Directory, Entry, LastFolder, RelativeName, StoreError};

/// One file to send.
pub(super) struct Item {
    /// Its name on the server.
    pub(super) name: String,
    /// Its size when it was looked up, where it has one.
    pub(super) size: Option<u64>,
    place: Place,
}

/// Where its content is.
enum Place {
    Open(Box<Content>),
    At(PathBuf),
    /// In the folder with this number.
    In(usize, RelativeName),
}

/// All files of a put.
pub(super) struct Sources {
    pub(super) items: Vec<Item>,
    /// The folders of the command line.
    pub(super) folders: Vec<LastFolder>,
    /// Links, special files and names that are not transferred.
    pub(super) skipped: u64,
    /// A single file was given.
    pub(super) single: bool,
}

/// Looks all sources up. What is wrong with one of them is found before the server gets a request.
pub(super) fn find(options: &PutOptions) -> Result<Sources> {
    let sources = &options.sources;
    let stored = Stored::of(options)?;
    if sources.len() > 1 && sources.iter().any(|source| is_input(source)) {
        return Err(CliError::usage("`-` (standard input) cannot be put together with files; ./- is a file"));
    }
    let mut found =
        Sources { items: Vec::new(), folders: Vec::new(), skipped: 0, single: sources.len() == 1 };
    for source in sources {
        let name = stored.name_of(source)?;
        RelativeName::new(&name).map_err(|error| CliError::usage(error.to_string()))?;
        if source.is_dir() && !is_input(source) {
            found.single = false;
            add_folder(&mut found, source, &name)?;
        } else {
            let place = if is_input(source) {
                Place::Open(Box::new(input()?))
            } else if sources.len() == 1 {
                Place::Open(Box::new(store::open_local(source).map_err(CliError::argument)?))
            } else {
                Place::At(source.clone())
            };
            let size = size_of(&place).map_err(CliError::argument)?;
            found.items.push(Item { name, size, place });
        }
    }
    if sources.len() == 1 {
        return Ok(found);
    }
    let mut names = BTreeSet::new();
    match found.items.iter().find(|item| !names.insert(item.name.as_str())) {
        Some(twice) => Err(CliError::usage(format!("two of the sources would be stored as {}", twice.name))),
        None => Ok(found),
    }
}

/// The names under which sources are stored.
enum Stored {
    /// This one, for a single source.
    As(String),
    /// Their own, in this folder; in none where it is empty.
    In(String),
}

impl Stored {
    /// What `--name` says, or what stands behind the server's name.
    fn of(options: &PutOptions) -> Result<Self> {
        let (path, many) = (options.server.path(), options.sources.len() > 1);
        match &options.name {
            None if path.is_empty() => Ok(Self::In(String::new())),
            None if path.ends_with('/') => Ok(Self::In(list::plain(path)?)),
            None if many => Err(CliError::usage(format!(
                "{path} is a name for a single file or folder; {path}/ is a folder to store several in"
            ))),
            None => Ok(Self::As(list::plain(path)?)),
            Some(_) if many => Err(CliError::usage("--name is for a single file or folder")),
            Some(name) if path.is_empty() => Ok(Self::As(name.clone())),
            Some(name) => Err(CliError::usage(format!(
                "two names to store under, --name {name}, and {path} behind the server's name: give one"
            ))),
        }
    }

    fn name_of(&self, source: &Path) -> Result<String> {
        match self {
            Self::As(name) => Ok(name.clone()),
            Self::In(folder) if folder.is_empty() => own_name(source),
            Self::In(folder) => Ok(format!("{folder}/{}", own_name(source)?)),
        }
    }
}

impl Sources {
    /// Their sizes as far as they say what ring they need; `None`: there is a stream.
    pub(super) fn files(&self) -> Option<Files> {
        self.items.iter().map(|item| item.size).collect()
    }
}

impl Item {
    /// Opens it for reading; `folders` are those of its [`Sources`].
    pub(super) fn open(self, folders: &mut [LastFolder]) -> Result<(String, Content), (String, CliError)> {
        let opened = match self.place {
            Place::Open(content) => Ok(*content),
            Place::At(path) => store::open_local(&path),
            Place::In(folder, name) => match folders.get_mut(folder) {
                Some(last) => last.folder_of(&name).and_then(|folder| folder.read(name.file())),
                None => return Err((self.name, CliError::other("its folder is not known"))),
            },
        };
        match opened {
            Ok(content) => Ok((self.name, content)),
            Err(error) => Err((self.name, error.into())),
        }
    }
}

fn is_input(source: &Path) -> bool {
    source.as_os_str() == "-"
}

fn input() -> Result<Content> {
    let input = std::io::stdin().as_fd().try_clone_to_owned();
    let input = input.map_err(|error| CliError::other(format!("standard input: {error}")))?;
    Ok(Content::stream(File::from(input), "standard input".to_owned())?)
}

/// The name of a source without its folders: that of the folder itself for `.` and `..`.
fn own_name(source: &Path) -> Result<String> {
    if is_input(source) {
        return Err(CliError::usage("standard input has no name; give one with --name"));
    }
    let full = match source.file_name() {
        Some(_) => None,
        None => std::fs::canonicalize(source).ok(),
    };
    let name = full.as_deref().unwrap_or(source).file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| {
        CliError::usage(format!("{} has no name in UTF-8; give one with --name", source.display()))
    })
}

fn size_of(place: &Place) -> Result<Option<u64>, StoreError> {
    match place {
        Place::Open(content) => Ok(content.size()),
        Place::At(path) => match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) => Err(StoreError::Io {
                operation: "open",
                path: path.display().to_string(),
                reason: error.to_string(),
            }),
        },
        Place::In(..) => Ok(None),
    }
}

/// Adds all files of a folder. What is skipped is said on stderr.
fn add_folder(found: &mut Sources, path: &Path, name: &str) -> Result<()> {
    let directory = Directory::open(path).map_err(CliError::argument)?;
    let folder = found.folders.len();
    found.folders.push(LastFolder::below(directory.clone()));
    directory.walk("", &mut |entry| {
        match entry {
            Entry::File(file) => found.items.push(Item {
                name: format!("{name}/{}", file.name),
                size: Some(file.size),
                place: Place::In(folder, RelativeName::new(&file.name)?),
            }),
            Entry::Skipped { name, why } => {
                found.skipped += 1;
                output::remark(&format!("skipped {}: {why}", path.join(name).display()));
            }
        }
        Ok::<_, CliError>(())
    })
}
