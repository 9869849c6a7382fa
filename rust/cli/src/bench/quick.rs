//! A single figure for other commands: what a path carries.

use std::time::Duration;

use flagcx_p2p::Opcode;
use rustix::param::page_size;

use super::case::Case;
use super::layout;
use super::measuring::Measuring;
use super::options::{Limit, Workload};
use super::path::Path;
use super::row::Data;
use super::server::serve_here;
use super::session::{Session, SessionOptions};
use crate::error::{CliError, Result};
use crate::interrupt;
use crate::process::ServerProcess;

/// What a path carries, in GB/s: one transfer after the other, its bytes verified.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// The path that was taken.
    pub(crate) path: String,
    pub(crate) write: f64,
    pub(crate) read: f64,
    /// Processor time of both ends for a decimal gigabyte, the mean of both directions.
    pub(crate) cpu_seconds_per_gigabyte: f64,
}

/// Measures a case over a path between this process and another of this machine, for so long in each direction.
pub(crate) fn rate(path: Path, case: Case, time: Duration) -> Result<Rate> {
    let workload = Workload {
        cases: vec![case],
        opcodes: vec![Opcode::Write, Opcode::Read],
        bidirectional: false,
        contiguous: false,
        depth: 1,
        connections: 1,
        threads: 1,
        clients: 1,
        limit: Limit::Time(time),
        warm_up: None,
        repeats: 1,
        pool: None,
        seed: None,
        verify: true,
        limits: false,
        corrupt: false,
    };
    let process = if path == Path::InProcess { None } else { Some(ServerProcess::start_bench()?) };
    let address = process.as_ref().map_or_else(serve_here, |process| Ok(process.address.clone()))?;
    // Two transfers' worth, so that one is not the one before it.
    let pool = (2 * layout::needed(case.batch, case.size, false)).next_multiple_of(page_size() as u64);
    let options = SessionOptions { path, pool, connections: 1, bidirectional: false };
    let mut sessions = [Session::open(&address, &options)?];
    let one_process = process.is_none();
    let mut measuring =
        Measuring { sessions: &mut sessions, workload: &workload, one_process, pool, seed: 1 };
    let mut rates = [0.0; 2];
    let mut cpu = 0.0;
    for (rate, opcode) in rates.iter_mut().zip(&workload.opcodes) {
        let row = measuring.row(case, *opcode)?;
        interrupt::check()?;
        let row = row.ok_or_else(|| CliError::other("nothing was measured"))?;
        if row.data == Data::Corrupted {
            return Err(CliError::other("the bytes that arrived differ from those that were sent"));
        }
        *rate = row.gigabytes_per_second;
        let per_gib = row.cpu_seconds_per_gib_client + row.cpu_seconds_per_gib_server.unwrap_or(0.0);
        cpu += per_gib * 1e9 / f64::from(1 << 30) / 2.0;
    }
    let path = sessions.first().map(|session| session.path_of(Opcode::Write)).unwrap_or_default();
    let [write, read] = rates;
    Ok(Rate { path, write, read, cpu_seconds_per_gigabyte: cpu })
}
