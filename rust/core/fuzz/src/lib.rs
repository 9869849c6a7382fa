//! The bodies of the fuzz targets. `tests/corpus_replay.rs` of the main crate runs them over the committed corpora on
//! the stable toolchain.

pub mod targets;
