//! Runs every fuzz target over its committed corpus: what fuzzing has found once stays found on the stable toolchain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up fails")]

mod corpus;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_target_survives_its_corpus() {
    for (name, run) in corpus::TARGETS {
        for (file, bytes) in corpus::inputs(name) {
            println!("{}", file.display());
            run(&bytes);
        }
    }
}

#[test]
fn targets_corpora_and_files_agree() {
    let targets = corpus::TARGETS.iter().map(|(name, _)| name).chain(corpus::OF_THE_TOOL);
    let targets: BTreeSet<_> = targets.map(|name| (*name).to_owned()).collect();
    assert_eq!(names(&corpus::fuzz().join("corpus")), targets);
    assert_eq!(names(&corpus::fuzz().join("fuzz_targets")), targets);
}
