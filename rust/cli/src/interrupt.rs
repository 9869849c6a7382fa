//! Ctrl-C while files move: the first signal lets the command clean up and print what it has done; it ends by itself when that
//! takes longer than a moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::iterator::Signals;

use crate::error::{CliError, Problem, Result};
use crate::output;
use crate::server::ending_signals;

/// Exit status of an interrupted command: 128 and the number of SIGINT, as shells have it.
pub(crate) const STATUS: u8 = 130;
/// How long an interrupted command may take to end. A read of standard input, for one, cannot be interrupted.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// Written by the thread that waits for signals, read by the command's own: it carries no other data, so it needs no ordering.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts to note SIGINT, SIGTERM and SIGHUP, instead of ending at once. Those that were ignored stay ignored.
pub(crate) fn handle() -> Result<()> {
    let failed = |error: std::io::Error| CliError::other(format!("handle signals: {error}"));
    let mut signals = Signals::new(ending_signals()).map_err(failed)?;
    let wait = move || {
        if signals.forever().next().is_some() {
            INTERRUPTED.store(true, Ordering::Relaxed);
            thread::spawn(|| {
                thread::sleep(CLEAN_UP);
                end_now();
            });
        }
        // A second one.
        if signals.forever().next().is_some() {
            end_now();
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(())
}

/// An error once a signal has come.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Problem::Interrupted.into()) } else { Ok(()) }
}

fn end_now() {
    output::remark(&format!("flagcx-p2p: {}", Problem::Interrupted));
    std::process::exit(STATUS.into())
}
