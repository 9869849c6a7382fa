//! `demo`: how fast the engine moves memory, and how fast real files go to a second process and back.

mod disk;
mod input;
mod memory;
mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::{Client, Moved, Target};
use crate::error::{CliError, Problem, Result, While};
use crate::interrupt::{self, Kept};
use crate::output::{self, units};
use crate::process::ServerProcess;
use crate::ring::Shape;
use crate::store::{self, Directory};
use crate::wire::Hash;

use input::{Found, Item};

/// Bytes of files that are moved by default.
const SIZE: u64 = 2 << 30;
/// How long files are moved by default, in each direction: the whole demo ends within a minute.
const LIMIT: Duration = Duration::from_secs(15);
/// Disk space to leave free.
const MARGIN: u64 = 256 << 20;
/// Files smaller than this take longer to open and to sync than to move.
const SMALL: u64 = 1 << 20;

/// `flagcx-p2p demo`.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Bytes of files to move, at most; `None` is [`SIZE`], or what the disk moves in [`LIMIT`].
    pub(crate) size: Option<u64>,
    /// Directory of the files; `None` chooses one.
    pub(crate) from: Option<PathBuf>,
    /// Where to keep the files meanwhile.
    pub(crate) dir: Option<PathBuf>,
    /// Ring to ask for.
    pub(crate) shape: Shape,
}

/// The rates of the files, both ways.
#[derive(Clone, Debug)]
struct Files {
    path: String,
    put: Total,
    got: Total,
}

/// Bytes and time of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    bytes: u64,
    elapsed: Duration,
}

/// Runs `demo`.
pub(crate) fn run(options: &DemoOptions) -> Result<()> {
    interrupt::handle(Kept::NOTHING)?;
    let root = options.from.clone().unwrap_or_else(input::root);
    if !root.is_dir() {
        return Err(CliError::usage(format!("--from {}: is not a directory", root.display())));
    }
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new()
        .prefix("flagcx-p2p-demo-")
        .tempdir_in(&parent)
        .map_err(|error| CliError::usage(format!("--dir {}: {error}", parent.display())))
        .doing(|| "create a temporary directory".into())?;
    let requested = options.size.unwrap_or(SIZE);
    let (items, found) = choose(&root, requested, work.path())?;
    let [served, back] = ["served", "back"].map(|name| work.path().join(name));
    for directory in [&served, &back] {
        std::fs::create_dir(directory).map_err(|error| CliError::other(error.to_string()))?;
    }
    // First of all what the engine does by itself: the disk says little about it.
    let case = memory::case(requested);
    report::memory(case, &memory::rates(case)?);
    let disk = disk::copy(&items, &back).doing(|| format!("copy files to {}", back.display()))?;
    announce(&items, &root, &found);
    let server = ServerProcess::start(&served)?;
    let client =
        Client::connect(&server.address, options.shape).doing(|| format!("connect to {}", server.address))?;
    let limit = if options.size.is_none() { LIMIT } else { Duration::MAX };
    let (put, hashes) = put_all(&client, &items, limit)?;
    let got = get_all(&client, &items, &hashes, &back, limit)?;
    let files = Files { path: client.info().path.to_string(), put, got };
    report::files(&files, disk);
    Ok(())
}

/// Chooses files of `root`, shrunk to what the disk has room for; also gives all that were found.
fn choose(root: &Path, requested: u64, work: &Path) -> Result<(Vec<Item>, Vec<Found>)> {
    let files = input::files(root);
    let Some(smallest) = files.last() else {
        let text = format!("--from {}: no file with content that can be read is in it", root.display());
        return Err(CliError::usage(text));
    };
    if smallest.size > requested {
        let text = format!(
            "--size {}: the smallest file has {}",
            units::bytes(requested),
            units::bytes(smallest.size)
        );
        return Err(CliError::usage(text));
    }
    let items = input::plan(&files, requested);
    let free = Directory::open(work)?.free_space()?.saturating_sub(MARGIN);
    // One file at a time is there a second time.
    let twice = items.iter().map(|item| item.size).max().unwrap_or(0);
    let items = if input::total(&items) + twice > free {
        let size = free.saturating_sub(twice);
        output::remark(&format!(
            "only {} of disk free in {}: moving {} instead of {}",
            units::bytes(free),
            work.display(),
            units::bytes(size),
            units::bytes(requested)
        ));
        input::plan(&files, size)
    } else {
        items
    };
    if items.is_empty() {
        return Err(CliError::other(format!(
            "no file of {} fits into {}; free some disk space, or choose another --dir",
            root.display(),
            work.display()
        )));
    }
    Ok((items, files))
}

/// Says which files are moved, and that the disk is a part of what follows.
fn announce(items: &[Item], root: &Path, found: &[Found]) {
    let total = units::bytes(input::total(items));
    output::line(&format!(
        "\nreal files, at the pace of the disk\n{} files, {total}: {}",
        items.len(),
        root.display()
    ));
    if let Some(largest) = found.first().filter(|largest| largest.size < SMALL) {
        output::line(&format!(
            "they are small, {} at most: `files` shows what opening and syncing takes",
            units::bytes(largest.size)
        ));
    }
}

/// Until all are there, or `limit` has passed: then fewer hashes than items come back.
fn put_all(client: &Client, items: &[Item], limit: Duration) -> Result<(Total, Vec<Hash>)> {
    let (mut total, started) = (Total::default(), Instant::now());
    let mut hashes = Vec::with_capacity(items.len());
    for item in items {
        let moved = store::open_local(&item.path)
            .map_err(CliError::from)
            .and_then(|content| client.put(content, &item.name, false))
            .doing(|| format!("put {}", item.name))?;
        total.add(moved);
        hashes.push(moved.hash);
        if started.elapsed() > limit {
            output::remark(&format!(
                "the disk is slow: put {} of these (--size sets how much)",
                units::bytes(total.bytes)
            ));
            break;
        }
    }
    Ok((total, hashes))
}

/// Fetches everything back, and removes each file once it is known to be the one that was sent.
fn get_all(client: &Client, items: &[Item], hashes: &[Hash], back: &Path, limit: Duration) -> Result<Total> {
    let (mut total, started) = (Total::default(), Instant::now());
    for (item, sent) in items.iter().zip(hashes) {
        let path = back.join(&item.name);
        let target = Target::new(&item.name, Some(&path), false)?;
        let moved = client.get(&item.name, &target).doing(|| format!("get {}", item.name))?;
        if moved.hash != *sent {
            let text = format!("put {}, got {}", units::hex(sent), units::hex(&moved.hash));
            return Err(Problem::Mismatch(text).into());
        }
        std::fs::remove_file(&path).map_err(|error| CliError::other(error.to_string()))?;
        total.add(moved);
        if started.elapsed() > limit {
            break;
        }
    }
    Ok(total)
}

impl Total {
    fn add(&mut self, moved: Moved) {
        self.bytes += moved.bytes;
        self.elapsed += moved.elapsed;
    }
}
