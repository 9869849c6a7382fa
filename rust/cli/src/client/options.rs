//! What `put`, `get` and `ls` are asked to do.

use std::path::PathBuf;

use crate::names::Peer;
use crate::ring::Shape;

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A line of text: of the file, or of all files together.
    Text,
    /// A line of JSON of each file, and one of all files together.
    Json,
    /// Failures only.
    Quiet,
}

/// `flagcx-p2p put`.
#[derive(Clone, Debug)]
pub(crate) struct PutOptions {
    /// Files and folders to send; `-` is standard input.
    pub(crate) sources: Vec<PathBuf>,
    pub(crate) server: Peer,
    /// Name to store a single source under; its own by default.
    pub(crate) name: Option<String>,
    /// Replace existing files.
    pub(crate) force: bool,
    /// Continue what an interrupted run has sent.
    pub(crate) resume: bool,
    pub(crate) style: Style,
    /// Ring to ask for.
    pub(crate) shape: Shape,
}

/// `flagcx-p2p get`.
#[derive(Clone, Debug)]
pub(crate) struct GetOptions {
    /// Names of files and folders on the server.
    pub(crate) names: Vec<String>,
    pub(crate) server: Peer,
    /// Where to store them: a file for a single file, else a folder, `-` for standard output; by default here.
    pub(crate) output: Option<PathBuf>,
    /// Replace existing files.
    pub(crate) force: bool,
    /// Continue what an interrupted run has fetched.
    pub(crate) resume: bool,
    pub(crate) style: Style,
    /// Ring to ask for.
    pub(crate) shape: Shape,
}

/// `flagcx-p2p ls`.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    pub(crate) server: Peer,
    /// What the names begin with.
    pub(crate) prefix: String,
    /// Lines of JSON.
    pub(crate) json: bool,
}
