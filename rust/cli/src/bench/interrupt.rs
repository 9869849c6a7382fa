//! Signals that end a benchmark. While nothing has been measured they end it at once; later the first one ends it
//! with the rows so far, and a second one at once. The status is 128 + the signal's number, 130 for Ctrl-C.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

use signal_hook::iterator::Signals;

use crate::error::{CliError, Result, While};
use crate::output;
use crate::server::ending_signals;

/// The first signal that came, 0 before. Written by the signal thread, read by the main thread; it publishes no other memory:
/// relaxed.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// There are results to keep. Written by the main thread, read by the signal thread; it publishes no other memory: relaxed.
static KEEPS: AtomicBool = AtomicBool::new(false);

/// Handles the signals from now on.
pub(crate) fn handle() -> Result<()> {
    let started = Signals::new(ending_signals()).and_then(|mut signals| {
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if !KEEPS.load(Ordering::Relaxed) || SIGNAL.swap(signal, Ordering::Relaxed) != 0 {
                    std::process::exit(128 + signal);
                }
                output::remark("ending with the rows so far; a second signal ends at once");
            }
        })
    });
    started.map(|_| ()).map_err(|error| CliError::other(error.to_string())).doing(|| "handle signals".into())
}

/// From now on there are results to keep.
pub(crate) fn keep_results() {
    KEEPS.store(true, Ordering::Relaxed);
}

/// Whether to end.
pub(crate) fn requested() -> bool {
    signal().is_some()
}

/// The signal that asked for the end.
pub(crate) fn signal() -> Option<u8> {
    u8::try_from(SIGNAL.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
}
