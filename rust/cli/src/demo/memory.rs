//! The engine's own rate: registered memory to registered memory, without files, over each path that works here.

use std::time::Duration;

use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::fabric::Provider;

use crate::bench::{self, Case, Path, Rate};
use crate::error::{Result, While};
use crate::interrupt;
use crate::output;
use crate::settings;

/// Bytes of a transfer, if there are as many to move: more than the caches of most processors hold.
const SIZE: u32 = 64 << 20;
/// Time for each direction of each path.
const TIME: Duration = Duration::from_millis(300);

/// What is measured where `size` bytes are to be moved: transfers of one piece.
pub(super) fn case(size: u64) -> Case {
    Case { batch: 1, size: u32::try_from(size).unwrap_or(SIZE).min(SIZE) }
}

/// Measures each path; the data is verified. A path that does not work here is named with the reason, on stderr.
pub(super) fn rates(case: Case) -> Result<Vec<Rate>> {
    let mut rates = Vec::new();
    for path in paths()? {
        match bench::rate(path, case, TIME).doing(|| format!("memory over {path}")) {
            Ok(rate) => rates.push(rate),
            Err(error) if interrupt::requested() => return Err(error),
            Err(error) => output::remark(&format!("not measured: {error}")),
        }
    }
    Ok(rates)
}

/// The paths to try.
fn paths() -> Result<Vec<Path>> {
    let config = settings::config(None)?;
    let software = engine::devices(&config)?.selection().provider == Some(Provider::Software);
    Ok(match config.path {
        Some(forced) if software => vec![Path::of_kind(forced)],
        None if software => vec![Path::InProcess, Path::Shared, Path::CrossMemory, Path::Tcp],
        _ => vec![Path::Auto],
    })
}
