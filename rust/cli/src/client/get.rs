//! `get`: files and folders from a server, over one connection.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::download::Download;
use super::opening::Opening;
use super::results::Results;
use super::target::Folders;
use super::{Client, GetOptions, Moved, Style, Target, list};
use crate::error::{CliError, Result, While};
use crate::interrupt::{self, Kept};
use crate::output::progress::Progress;
use crate::store::{Directory, LastFolder, Listed, RelativeName};

/// One file to fetch.
struct Item {
    file: Listed,
    /// Where it goes, relative to the output folder.
    path: String,
}

/// Runs `get`.
pub(crate) fn get(options: &GetOptions) -> Result<()> {
    let given = wanted(options)?;
    let names = given.iter().map(|name| list::plain(name)).collect::<Result<Vec<_>>>()?;
    check_output(options, &names)?;
    options.server.check()?;
    let to_stdout = is_output(options.output.as_deref());
    interrupt::handle(if to_stdout { Kept::NOTHING } else { Kept::PARTS })?;
    let what = if let [name] = given[..] { format!("get {name}") } else { "get".to_owned() };
    let doing = format!("{what} from {}", options.server);
    let opening = options.server.reach(|address| Opening::connect(address, None)).doing(|| doing.clone())?;
    let mut missing = Vec::new();
    let (mut items, mut skipped, mut single) = (Vec::new(), 0, names.len() == 1);
    for name in &names {
        match list::files(&opening.control, name).doing(|| doing.clone())? {
            Ok(listing) => {
                single &= matches!(&listing.files[..], [file] if file.name == *name);
                skipped += listing.skipped;
                items.extend(listing.files.into_iter().map(|file| placed(file, name)));
            }
            Err(error) => missing.push((name, error)),
        }
    }
    if to_stdout && !single && missing.is_empty() {
        return Err(CliError::usage(format!(
            "-o -: {} is a folder; only a file can be written to it",
            names.join(" ")
        )));
    }
    let files = items.iter().map(|item| item.file.size).collect();
    let shape = options.shape.needed_for(files);
    let client = opening.allocate(shape).doing(|| doing.clone())?;
    client.remark_on_ring(shape);
    let total = Some(items.iter().map(|item| item.file.size).sum());
    let progress = Progress::new(&what, total, items.len() as u64, options.style == Style::Quiet);
    let path = client.info().path.to_string();
    let mut results =
        Results::new(("get", doing.clone()), options.style, (single, to_stdout), path, &progress);
    results.skipped(skipped);
    missing.into_iter().for_each(|(name, error)| results.ended(name, Err(error)));
    let done = fetch(&client, options, items, single, &progress, &mut results);
    results.finish(done)
}

/// What is to be fetched: the names on the command line, and the one behind the server's.
fn wanted(options: &GetOptions) -> Result<Vec<&str>> {
    let names = options.names.iter().map(String::as_str);
    let behind = Some(options.server.path()).filter(|path| !path.is_empty());
    let wanted: Vec<_> = names.chain(behind).collect();
    if wanted.is_empty() {
        return Err(CliError::usage(format!(
            "no file or folder is named; `.` is everything: flagcx-p2p get . {}",
            options.server.name
        )));
    }
    Ok(wanted)
}

fn fetch(
    client: &Client,
    options: &GetOptions,
    items: Vec<Item>,
    single: bool,
    progress: &Progress,
    results: &mut Results<'_>,
) -> Result<()> {
    let mut ended = |name: &str, moved| results.ended(name, moved);
    let mut download = Download::new(client, progress, &mut ended);
    if items.is_empty() {
        return download.finish();
    }
    let output = Output::open(options, single)?;
    for Item { file, path } in items {
        match output.target(&path, options) {
            Ok(target) => download.add(&file.name, file.size, target)?,
            Err(error) => download.failed(&file.name, error),
        }
    }
    download.finish()
}

/// Where all files of a get go.
enum Output {
    Stdout,
    /// A single file, under this name.
    File(Folders, String),
    Folder(Folders),
}

impl Output {
    fn open(options: &GetOptions, single: bool) -> Result<Self> {
        let output = match options.output.as_deref() {
            output if is_output(output) => return Ok(Self::Stdout),
            Some(path) => path,
            None => Path::new("."),
        };
        let open = |path: &Path| {
            let directory = Directory::open(path).map_err(CliError::argument)?;
            directory.remove_old_partials();
            Ok::<_, CliError>(Rc::new(RefCell::new(LastFolder::below(directory))))
        };
        if single && !output.is_dir() && !ends_with_slash(output) {
            let last = output.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            Ok(Self::File(open(parent(output))?, last.to_owned()))
        } else {
            match std::fs::create_dir(output) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    Err(CliError::usage(format!("-o {}: {error}", output.display())))
                }
                _ => Ok(Self::Folder(open(output)?)),
            }
        }
    }

    fn target(&self, path: &str, options: &GetOptions) -> Result<Target> {
        let &GetOptions { force, resume, .. } = options;
        let (folders, name) = match self {
            Self::Stdout => return Ok(Target::Output),
            Self::File(folders, name) => (folders, RelativeName::new(name)?),
            // The server's name: it cannot lead out of the folder.
            Self::Folder(folders) => (folders, RelativeName::new(path)?),
        };
        Ok(Target::File { folders: Rc::clone(folders), name, force, resume })
    }
}

/// Finds what is wrong with `-o` before the server gets a request.
fn check_output(options: &GetOptions, names: &[String]) -> Result<()> {
    let Some(output) = options.output.as_deref() else { return Ok(()) };
    if output.as_os_str().is_empty() {
        return Err(CliError::usage("-o: expected a path"));
    }
    if is_output(Some(output)) {
        return match (names.len(), options.style) {
            (1, Style::Text | Style::Quiet) => Ok(()),
            (1, Style::Json) => Err(CliError::usage("-o - and --json would both write to standard output")),
            _ => Err(CliError::usage("-o - is for a single file")),
        };
    }
    if output.is_dir() {
        return Ok(());
    }
    let last = output.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    RelativeName::new(last).map_err(|error| CliError::usage(format!("-o {}: {error}", output.display())))?;
    Directory::open(parent(output)).map(|_| ()).map_err(CliError::argument)
}

fn is_output(output: Option<&Path>) -> bool {
    output.is_some_and(|output| output.as_os_str() == "-")
}

fn ends_with_slash(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// A file below `asked` is stored under the last component of `asked` and what follows it.
fn placed(file: Listed, asked: &str) -> Item {
    let above = asked.rfind('/').map_or(0, |slash| slash + 1);
    let path = file.name.get(above..).unwrap_or(&file.name).to_owned();
    Item { file, path }
}

impl Client {
    /// Fetches `name` from the server into `target`.
    pub(crate) fn get(&self, name: &str, target: &Target) -> Result<Moved> {
        let progress = Progress::new(&format!("get {name}"), None, 1, false);
        let mut moved = None;
        let mut ended = |_: &str, result| moved = Some(result);
        let mut download = Download::new(self, &progress, &mut ended);
        download.add(name, 0, target.clone())?;
        download.finish()?;
        progress.finish();
        moved.unwrap_or_else(|| Err(CliError::protocol("no answer")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_stored_under_the_last_component() {
        let path = |name: &str, asked: &str| {
            placed(Listed { name: name.to_owned(), size: 0, seconds: 0 }, asked).path
        };
        assert_eq!(path("a", "a"), "a");
        assert_eq!(path("a/b/c", "a/b/c"), "c");
        assert_eq!(path("a/b/c", "a/b"), "b/c");
        assert_eq!(path("a/b/c", "a"), "a/b/c");
        assert_eq!(path("a/b/c", ""), "a/b/c");
    }
}
