//! The engine's own rate: registered memory to registered memory, without files, over each path that works here.

use std::path::Path;

use flagcx_p2p::Opcode;
use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::fabric::{PathKind, Provider};

use crate::bench::{self, Case, Measured};
use crate::client::Client;
use crate::error::{Result, While};
use crate::output::{self, units};
use crate::process::ServerProcess;
use crate::ring::Shape;
use crate::settings;

/// Bytes of a transfer, if there are as many to move: more than the caches of most processors hold.
const SIZE: u32 = 64 << 20;
/// Seconds for each direction of each path.
const SECONDS: f64 = 0.3;

/// What is measured where `size` bytes are to be moved: transfers of one piece.
pub(super) fn case(size: u64) -> Case {
    Case { batch: 1, size: u32::try_from(size).unwrap_or(SIZE).min(SIZE) }
}

/// What one path carries, in GB/s.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    pub(super) path: String,
    pub(super) write: f64,
    pub(super) read: f64,
}

/// Measures each path, checking the data first. A path that does not work here is named with the reason, on stderr.
pub(super) fn rates(server: &ServerProcess, empty: &Path, case: Case) -> Result<Vec<Rate>> {
    let mut rates = Vec::new();
    for path in paths()? {
        let measured = match path {
            Some(PathKind::InProcess) => {
                bench::serve_here(empty.to_owned()).and_then(|address| measure(&address, path, case))
            }
            _ => measure(&server.address, path, case),
        };
        match measured
            .doing(|| path.map_or_else(|| "memory".to_owned(), |path| format!("memory over {path}")))
        {
            Ok(rate) => rates.push(rate),
            Err(error) => output::remark(&format!("not measured: {error}")),
        }
    }
    Ok(rates)
}

/// The paths to try; `None` is the one that the engine chooses.
fn paths() -> Result<Vec<Option<PathKind>>> {
    let config = settings::config(None)?;
    let software = engine::devices(&config)?.selection().provider == Some(Provider::Software);
    Ok(match config.path {
        Some(forced) if software => vec![Some(forced)],
        None if software => {
            [PathKind::InProcess, PathKind::Shared, PathKind::CrossMemory, PathKind::Tcp].map(Some).to_vec()
        }
        _ => vec![None],
    })
}

fn measure(address: &str, path: Option<PathKind>, case: Case) -> Result<Rate> {
    let shape = Shape { chunk: case.size, slots: 1 };
    let client = Client::connect_over(address, shape, path)?;
    let measured = bench::measure(&client, case, SECONDS)?;
    let rate = |opcode| {
        let found = measured.iter().find(|one| one.opcode == opcode);
        found.map_or(0.0, |one: &Measured| units::gigabytes_per_second(one.bytes, one.elapsed))
    };
    let path = client.info().path.to_string();
    Ok(Rate { path, write: rate(Opcode::Write), read: rate(Opcode::Read) })
}
