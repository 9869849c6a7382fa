//! `bench`: how fast transfers are between two processes, and what they cost.

mod case;
mod measure;
mod report;

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::error::{CliError, Result, While};
use crate::process::ServerProcess;
use crate::ring::Shape;
use crate::server::{ServeOptions, Server};

pub(crate) use case::Case;
pub(crate) use measure::Measured;

/// `flagcx-p2p bench`.
#[derive(Clone, Debug)]
pub(crate) struct BenchOptions {
    /// A running server, `HOST:PORT`.
    pub(crate) server: Option<String>,
    /// Both ends in this process.
    pub(crate) in_process: bool,
    /// What to measure.
    pub(crate) cases: Vec<Case>,
    /// Transfers in flight at the same time.
    pub(crate) depth: usize,
    /// Seconds per measurement.
    pub(crate) seconds: f64,
    /// Print JSON instead of a table.
    pub(crate) json: bool,
}

/// Runs `bench`.
pub(crate) fn run(options: &BenchOptions) -> Result<()> {
    let empty = tempfile::tempdir().map_err(|error| CliError::other(error.to_string()))?;
    let process = match (&options.server, options.in_process) {
        (None, false) => Some(ServerProcess::start(empty.path())?),
        _ => None,
    };
    let address = match (&options.server, &process) {
        (Some(address), _) => address.clone(),
        (None, Some(process)) => process.address.clone(),
        (None, None) => serve_here(empty.path().to_owned())?,
    };
    let largest = options.cases.iter().map(|case| case.bytes()).max().unwrap_or(0);
    let shape = Shape { chunk: u32::try_from(largest).unwrap_or(u32::MAX), slots: 1 };
    let client = Client::connect(&address, shape).doing(|| format!("connect to {address}"))?;
    let measured = measure::all(&client, options).doing(|| format!("bench against {address}"))?;
    report::print(&client, options, &measured);
    Ok(())
}

/// Measures one case over an open connection, both directions, for so many seconds each. The data is checked first.
pub(crate) fn measure(client: &Client, case: Case, seconds: f64) -> Result<Vec<Measured>> {
    let options =
        BenchOptions { server: None, in_process: false, cases: vec![case], depth: 1, seconds, json: false };
    measure::all(client, &options)
}

/// Serves from a thread of this process, until the process ends.
pub(crate) fn serve_here(directory: std::path::PathBuf) -> Result<String> {
    let options = ServeOptions {
        directory,
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
        ring_limit: u64::from(u32::MAX),
        idle_limit: Duration::from_secs(3600),
        drain_limit: Duration::ZERO,
        max_clients: 16,
        until_stdin_closes: false,
    };
    let (server, bound) = Server::open(&options)?;
    thread::Builder::new()
        .name("server".into())
        .spawn(move || server.run())
        .map_err(|error| CliError::other(error.to_string()))?;
    Ok(bound.to_string())
}
