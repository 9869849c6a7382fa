//! Where the demo's files come from: real ones, repeated under new names if there are too few.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::store::FileName;

/// Files smaller than this share of the whole are left out: thousands of them would show the disk, not the transfer.
const SMALLEST_SHARE: u64 = 2000;
/// Files moved where all are smaller than that.
const SMALL_FILES: usize = 200;
/// Directory entries looked at.
const MAX_ENTRIES: usize = 100_000;

/// A file that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// A file to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    /// Name on the server.
    pub(super) name: String,
    pub(super) size: u64,
}

/// The Rust toolchain if there is one, else `/usr/lib`.
pub(super) fn root() -> PathBuf {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|sysroot| PathBuf::from(sysroot.trim_end()))
        .filter(|sysroot| sysroot.is_dir())
        .unwrap_or_else(|| PathBuf::from("/usr/lib"))
}

/// Readable regular files under `root`, largest first. Links are not followed.
pub(super) fn files(root: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        // What cannot be read is not part of the demo.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() && seen < MAX_ENTRIES {
                directories.push(entry.path());
            } else if metadata.is_file() && metadata.len() > 0 {
                found.push(Found { path: entry.path(), size: metadata.len() });
            }
        }
    }
    found.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.path.cmp(&b.path)));
    found
}

/// Chooses files (largest first) of at most `size` bytes altogether, each again under a new name once all are used.
pub(super) fn plan(files: &[Found], size: u64) -> Vec<Item> {
    // The large ones are the first.
    let large = files.partition_point(|file| file.size >= size / SMALLEST_SHARE);
    let items = fill(files.get(..large).unwrap_or(files), size, usize::MAX);
    if items.is_empty() { fill(files, size, SMALL_FILES) } else { items }
}

/// At most `most` files of at most `size` bytes altogether.
fn fill(files: &[Found], size: u64, most: usize) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut left = size;
    loop {
        let before = left;
        for file in files {
            let Some(name) = file.path.file_name().and_then(|name| name.to_str()) else { continue };
            let name = format!("{:04}-{name}", items.len());
            if items.len() == most {
                return items;
            }
            if file.size <= left && FileName::new(&name).is_ok() {
                left -= file.size;
                items.push(Item { path: file.path.clone(), name, size: file.size });
            }
        }
        if left == before {
            return items;
        }
    }
}

/// Bytes of all items.
pub(super) fn total(items: &[Item]) -> u64 {
    items.iter().map(|item| item.size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, size: u64) -> Found {
        Found { path: path.into(), size }
    }

    #[test]
    fn a_short_list_is_repeated_under_new_names() {
        let items = plan(&[found("/x/a", 60), found("/x/b", 30)], 190);
        let names: Vec<_> = items.iter().map(|item| item.name.as_str()).collect();
        assert_eq!(names, ["0000-a", "0001-b", "0002-a", "0003-b"]);
        assert_eq!(total(&items), 180);
    }

    #[test]
    fn small_files_are_moved_where_there_are_no_larger_ones() {
        let small = [found("/x/a", 3), found("/x/b", 2)];
        let items = plan(&small, 1 << 30);
        assert_eq!((items.len(), total(&items)), (200, 500));
        let items = plan(&[found("/x/large", 1 << 20), found("/x/a", 3)], 2 << 20);
        assert!(items.iter().all(|item| item.size == 1 << 20), "small ones are left out");
    }

    #[test]
    fn never_more_than_asked() {
        let files = [found("/x/a", 60), found("/x/b", 7), found("/x/c", 1)];
        for size in 0..200 {
            assert!(total(&plan(&files, size)) <= size);
        }
        assert!(plan(&files, 0).is_empty() && plan(&[], 10).is_empty());
    }

    #[test]
    fn finds_real_files_and_no_links() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("deep")).unwrap();
        std::fs::write(temp.path().join("deep/small"), [0; 3]).unwrap();
        std::fs::write(temp.path().join("large"), [0; 30]).unwrap();
        std::fs::write(temp.path().join("empty"), []).unwrap();
        std::os::unix::fs::symlink("large", temp.path().join("link")).unwrap();
        let sizes: Vec<_> = files(temp.path()).into_iter().map(|file| file.size).collect();
        assert_eq!(sizes, [30, 3]);
    }
}
