//! The check with data: a second process, and bytes that go there and back.

use std::time::Instant;

use flagcx_p2p::internals::config;
use flagcx_p2p::{PathKind, Paths};

use super::{Findings, fact, heading};
use crate::client::{Client, Target};
use crate::error::{CliError, Problem, Result};
use crate::process::ServerProcess;
use crate::ring::Shape;
use crate::store;

/// Starts a server process and moves a small file both ways; true if that worked.
pub(super) fn report(findings: &mut Findings) -> bool {
    heading("two processes on this machine");
    match attempt(findings) {
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

fn attempt(findings: &mut Findings) -> Result<String> {
    let io = |error: std::io::Error| CliError::other(error.to_string());
    let (served, local) = (tempfile::tempdir().map_err(io)?, tempfile::tempdir().map_err(io)?);
    let (file, back) = (local.path().join("probe"), local.path().join("back"));
    std::fs::write(&file, vec![0xA5; 100_000]).map_err(io)?;
    let server = ServerProcess::start(served.path())?;
    let started = Instant::now();
    let client = Client::connect(&server.address, Shape { chunk: 64 << 10, slots: 2 })?;
    let connected = started.elapsed();
    let put = client.put(store::open_local(&file)?, "probe", false)?;
    let got = client.get("probe", &Target::new("probe", Some(&back), false)?)?;
    if put.hash != got.hash {
        return Err(Problem::Mismatch("probe".to_owned()).into());
    }
    let info = client.info();
    slower_paths(info.paths, findings);
    Ok(format!("path {}, {} lanes, connected in {} ms", info.paths, info.lanes, connected.as_millis()))
}

/// Reports which requests between two processes of this host take TCP, unless the configuration forces TCP.
fn slower_paths(paths: Paths, findings: &mut Findings) {
    let Some(requests) = by_tcp(paths).filter(|_| config::global().path != Some(PathKind::Tcp)) else {
        return;
    };
    findings.add(format!(
        "{requests} between processes of this host take TCP instead of cross-memory copies: something denies \
         process_vm_readv, process_vm_writev, memfd_create, pidfd_open, or descriptors in messages (see the warnings of the log)"
    ));
}

fn by_tcp(paths: Paths) -> Option<&'static str> {
    match (paths.read == PathKind::Tcp, paths.write == PathKind::Tcp) {
        (false, false) => None,
        (true, false) => Some("READs"),
        (false, true) => Some("WRITEs"),
        (true, true) => Some("READs and WRITEs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_tcp_is_named() {
        let of = |read, write| by_tcp(Paths { read, write });
        assert_eq!(of(PathKind::Rdma, PathKind::Rdma), None);
        assert_eq!(of(PathKind::Tcp, PathKind::CrossMemory), Some("READs"));
        assert_eq!(of(PathKind::CrossMemory, PathKind::Tcp), Some("WRITEs"));
        assert_eq!(of(PathKind::Tcp, PathKind::Tcp), Some("READs and WRITEs"));
    }
}
