//! The fuzz targets and their committed inputs.
#![allow(dead_code, reason = "a module of each test that includes it, which uses its share")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails")]

use std::fs;
use std::path::{Path, PathBuf};

#[allow(unreachable_pub, reason = "the fuzz crate exports them")]
#[path = "../../fuzz/src/targets.rs"]
mod targets;

#[allow(unused_imports, reason = "a module of each test that includes it, which uses its share")]
pub(crate) use targets::{OF_THE_TOOL, TARGETS};

/// The folder of the fuzz crate.
pub(crate) fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

/// The inputs of a target, sorted by file.
pub(crate) fn inputs(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}
