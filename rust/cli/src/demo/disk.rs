//! The disk's own rate: the same files copied and synced by this process, without the engine.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::input::Item;

/// Bytes to copy at most: enough for a rate, and soon done on a slow disk.
const MOST: u64 = 256 << 20;

/// Copies the first of `items` to `directory`, up to [`MOST`] bytes, and removes the copies; gives bytes and time.
pub(super) fn copy(items: &[Item], directory: &Path) -> io::Result<(u64, Duration)> {
    let (mut bytes, mut elapsed) = (0, Duration::ZERO);
    for item in items {
        if bytes > 0 && bytes + item.size > MOST {
            break;
        }
        let path = directory.join(&item.name);
        let started = Instant::now();
        let mut copy = File::create(&path)?;
        bytes += io::copy(&mut File::open(&item.path)?, &mut copy)?;
        copy.sync_all()?;
        elapsed += started.elapsed();
        std::fs::remove_file(&path)?;
    }
    Ok((bytes, elapsed))
}
