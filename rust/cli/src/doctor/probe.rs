//! The proof: a second process, and bytes that go there and back.

use std::time::Instant;

use super::{Findings, fact, heading};
use crate::client::{Client, Target};
use crate::error::{CliError, Problem, Result};
use crate::process::ServerProcess;
use crate::ring::Shape;

/// Starts a server process and moves a small file both ways; says whether that worked.
pub(super) fn report(findings: &mut Findings) -> bool {
    heading("two processes on this machine");
    match attempt() {
        Ok(text) => {
            fact("a file there and back", &text);
            true
        }
        Err(error) => {
            fact("a file there and back", "failed");
            findings.add(format!("moving a file to a second process and back: {error}"));
            false
        }
    }
}

fn attempt() -> Result<String> {
    let io = |error: std::io::Error| CliError::other(error.to_string());
    let (served, local) = (tempfile::tempdir().map_err(io)?, tempfile::tempdir().map_err(io)?);
    let (file, back) = (local.path().join("probe"), local.path().join("back"));
    std::fs::write(&file, vec![0xA5; 100_000]).map_err(io)?;
    let server = ServerProcess::start(served.path())?;
    let started = Instant::now();
    let client = Client::connect(&server.address, Shape { chunk: 64 << 10, slots: 2 })?;
    let connected = started.elapsed();
    let put = client.put(&file, "probe", false)?;
    let got = client.get("probe", &Target::new("probe", Some(&back), false)?)?;
    if put.hash != got.hash {
        return Err(Problem::Mismatch("probe".to_owned()).into());
    }
    let info = client.info();
    Ok(format!("path {}, {} lanes, connected in {} ms", info.path, info.lanes, connected.as_millis()))
}
