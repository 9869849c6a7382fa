//! The checks with data: a second process, bytes that go there and back, each path by itself, and what TCP costs.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{FabricChoice, Provider};
use flagcx_p2p::{Config, PathKind, Paths};

use super::finding::Report;
use crate::bench::{self, Case, Path};
use crate::client::{Client, Target};
use crate::error::{CliError, Problem, Result};
use crate::output::units;
use crate::process::ServerProcess;
use crate::ring::Shape;
use crate::store;

/// Time for each direction of the measurement.
const TIME: Duration = Duration::from_millis(100);
/// Bytes of its transfers: more than the caches next to a core hold.
const SIZE: u32 = 8 << 20;

/// Starts a server process and moves a small file both ways.
pub(super) fn report(provider: Option<Provider>, config: &Config, report: &mut Report) {
    // The path that the configuration allows alone.
    let forced = config.path;
    let (id, subject) = ("self-test", "a file to a second process and back");
    let failed = |error: CliError, report: &mut Report| {
        report.fail(id, subject, error.to_string(), "FLAGCX_DEBUG=INFO shows each step");
    };
    let started = || -> Result<_> {
        let served = tempfile::tempdir().map_err(|error| CliError::other(error.to_string()))?;
        Ok((ServerProcess::start(served.path())?, served))
    };
    let (server, _served) = match started() {
        Ok(started) => started,
        Err(error) => return failed(error, report),
    };
    match attempt(&server) {
        Ok((text, paths)) => {
            report.ok(id, subject, text);
            if forced.is_none() {
                slower_paths(paths, report);
            }
        }
        Err(error) => return failed(error, report),
    }
    if provider == Some(Provider::Software) {
        if forced.is_none() {
            cross_memory(&server, report);
        }
        if forced.is_none_or(|path| path == PathKind::Tcp) {
            without_nic(cores_per_gigabyte().ok(), config.fabric == FabricChoice::Software, report);
        }
    }
}

fn attempt(server: &ServerProcess) -> Result<(String, Paths)> {
    let io = |error: std::io::Error| CliError::other(error.to_string());
    let local = tempfile::tempdir().map_err(io)?;
    let (file, back) = (local.path().join("probe"), local.path().join("back"));
    std::fs::write(&file, vec![0xA5; 100_000]).map_err(io)?;
    let started = Instant::now();
    let client = Client::connect(&server.address, Shape { chunk: 64 << 10, slots: 2 })?;
    let connected = started.elapsed();
    let put = client.put(store::open_local(&file)?, "probe", false)?;
    let got = client.get("probe", &Target::new("probe", Some(&back), false)?)?;
    if put.hash != got.hash {
        return Err(Problem::Mismatch("probe".to_owned()).into());
    }
    let info = client.info();
    let text =
        format!("path {}, {} lanes, connected in {} ms", info.paths, info.lanes, connected.as_millis());
    Ok((text, info.paths))
}

/// Reports which requests between two processes of this host take TCP.
fn slower_paths(paths: Paths, report: &mut Report) {
    let requests = match (paths.read == PathKind::Tcp, paths.write == PathKind::Tcp) {
        (false, false) => return,
        (true, false) => "READs",
        (false, true) => "WRITEs",
        (true, true) => "READs and WRITEs",
    };
    report.warn(
        "local-path",
        "path between processes of this host",
        format!("{requests} take TCP instead of cross-memory copies"),
        "something denies process_vm_readv, process_vm_writev, memfd_create, pidfd_open, or descriptors in messages: look for a seccomp profile, Yama, or another user (the log's warnings say which)",
    );
}

/// A connection over cross-memory copies alone, which the kernel may deny whatever Yama's setting says.
fn cross_memory(server: &ServerProcess, report: &mut Report) {
    let (id, subject) = ("cross-memory", "process_vm_readv and process_vm_writev");
    match Client::connect_over(&server.address, Shape { chunk: 4096, slots: 1 }, Some(PathKind::CrossMemory))
    {
        Ok(_) => report.ok(id, subject, "work between two processes of this user"),
        Err(error) => report.warn(
            id,
            subject,
            format!("denied: {error}"),
            "allow both in the seccomp profile (--cap-add SYS_PTRACE for a container); else TCP is used",
        ),
    }
}

/// Processor time, of both ends together, for a decimal gigabyte over TCP.
fn cores_per_gigabyte() -> Result<f64> {
    Ok(bench::rate(Path::Tcp, Case { batch: 1, size: SIZE }, TIME)?.cpu_seconds_per_gigabyte)
}

/// What runs without a NIC, and what that costs.
fn without_nic(cost: Option<f64>, is_chosen: bool, report: &mut Report) {
    let cost = cost.map_or_else(
        || "at a cost that could not be measured".to_owned(),
        |cores| format!("about {cores:.1} of a core for each GB/s, both ends together (measured over loopback, {} each)", units::bytes(SIZE.into())),
    );
    let (id, subject) = ("no-nic", "no RDMA device in use");
    let found = format!(
        "the software fabric runs: between processes of a host by copies, between hosts by TCP, {cost}"
    );
    if is_chosen {
        return report.ok(id, subject, found);
    }
    report.warn(
        id,
        subject,
        found,
        "nothing to do if that is meant (FLAGCX_P2P_FABRIC=software says so); else a NIC with InfiniBand or RoCE, and FLAGCX_P2P_FABRIC=verbs to refuse to run without it",
    );
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn what_takes_tcp_is_named() {
        let of = |read, write| {
            let mut found = Report::default();
            slower_paths(Paths { read, write }, &mut found);
            found.findings().next().map(|finding| finding.finding.clone())
        };
        let text = |requests: &str| Some(format!("{requests} take TCP instead of cross-memory copies"));
        assert_eq!(of(PathKind::Rdma, PathKind::Rdma), None);
        assert_eq!(of(PathKind::Tcp, PathKind::CrossMemory), text("READs"));
        assert_eq!(of(PathKind::CrossMemory, PathKind::Tcp), text("WRITEs"));
        assert_eq!(of(PathKind::Tcp, PathKind::Tcp), text("READs and WRITEs"));
    }

    #[test]
    fn the_cost_of_having_no_nic() {
        let mut found = Report::default();
        without_nic(Some(0.52), false, &mut found);
        let (level, line) = found.seen("no-nic");
        assert!(
            level == Level::Warn && line.contains("between hosts by TCP, about 0.5 of a core for each GB/s"),
            "{line}"
        );
    }
}
