//! The disk's own rate: some of the same files copied and synced by this process, without the engine.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::input::{self, Item};
use crate::error::{CliError, Result};
use crate::interrupt;

/// Bytes to copy, about: enough for a rate, and soon done on a slow disk.
const ENOUGH: u64 = 256 << 20;
/// Longest time: a rate is known by then.
const LONG_ENOUGH: Duration = Duration::from_secs(4);
/// Bytes of one read and write, as many as a chunk has by default.
const CHUNK: usize = 4 << 20;

/// Copies every n-th of `items` to `directory` and removes the copies; gives bytes and time.
pub(super) fn copy(items: &[Item], directory: &Path) -> Result<(u64, Duration)> {
    let step = usize::try_from(input::total(items) / ENOUGH).unwrap_or(usize::MAX).max(1);
    let mut buffer = vec![0; CHUNK];
    let (mut bytes, mut elapsed) = (0, Duration::ZERO);
    for item in items.iter().step_by(step) {
        let path = directory.join(&item.name);
        let started = Instant::now();
        let copied = copy_one(&item.path, &path, &mut buffer);
        bytes += copied.map_err(|error| CliError::other(error.to_string()))?;
        elapsed += started.elapsed();
        std::fs::remove_file(&path).map_err(|error| CliError::other(error.to_string()))?;
        interrupt::check()?;
        if elapsed > LONG_ENOUGH {
            break;
        }
    }
    Ok((bytes, elapsed))
}

/// Reads and writes: a file system that can make a copy without moving bytes would do so if it were asked to copy.
fn copy_one(from: &Path, to: &Path, buffer: &mut [u8]) -> io::Result<u64> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut bytes = 0;
    loop {
        let read = match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            to.sync_all()?;
            return Ok(bytes);
        }
        to.write_all(buffer.get(..read).unwrap_or_default())?;
        bytes += read as u64;
    }
}
