//! `bench`: how fast transfers are between two processes, what they cost, and what the machine could do at best.
//!
//! ```text
//!   bench local ── starts ──▶ bench serve        bench run HOST:PORT ──▶ bench serve of another machine
//!
//!   options ─▶ plan of cases ─▶ for each path: session ─▶ measuring ─▶ worker threads ─▶ row ─▶ results
//!                                                │            │                                  │
//!                                     protocol ──┴─ serving   └ pattern: written before,         ├ table, as rows come
//!                                                               compared after                   └ JSON, CSV, plot
//! ```
//!
//! The client starts all transfers but those of `--bidirectional`. Pieces lie where [`layout`] says, at both ends.

mod case;
mod compare;
mod document;
mod latencies;
mod layout;
mod limits;
mod measure;
mod measuring;
mod options;
mod outputs;
mod path;
mod pattern;
mod plot;
mod pool_size;
mod protocol;
mod quick;
mod results;
mod row;
mod running;
mod server;
mod serving;
mod session;
mod table;
mod worker;

use crate::error::Result;

pub(crate) use case::{Case, MAX_BATCH, MAX_CASES, Sweep, parse_piece};
pub(crate) use options::{
    BenchOptions, CASES, CompareOptions, Limit, LocalOptions, Outputs, RunOptions, ServeOptions, Workload,
};
pub(crate) use path::Path;
#[cfg(any(test, fuzzing))]
pub(crate) use protocol::fuzz_frames;
pub(crate) use protocol::{MAGIC, StreamError, question};
pub(crate) use quick::{Rate, rate};

/// Runs `bench`.
pub(crate) fn run(options: &BenchOptions) -> Result<()> {
    match options {
        BenchOptions::Serve(options) => server::serve(options),
        BenchOptions::Run(options) => running::run(options),
        BenchOptions::Local(options) => running::local(options),
        BenchOptions::Compare(options) => compare::run(options),
    }
}
