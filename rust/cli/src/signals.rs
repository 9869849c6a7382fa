//! The signals that end a command: SIGTERM, SIGINT and SIGHUP.
//!
//! They have handlers, so that they also end process 1 of a container: the kernel drops signals of process 1 that have none.

use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{CliError, Result, While};

/// Calls `handle` with the number of each signal from now on, in a thread of its own.
pub(crate) fn on_each(mut handle: impl FnMut(i32) + Send + 'static) -> Result<()> {
    let started = Signals::new(not_ignored()).and_then(|mut signals| {
        let each = move || signals.forever().for_each(&mut handle);
        thread::Builder::new().name("signals".into()).spawn(each)
    });
    started.map(drop).map_err(|error| CliError::other(error.to_string())).doing(|| "handle signals".into())
}

/// Ends the process as a shell reports a signal: with status 128 + its number.
pub(crate) fn exit(signal: i32) -> ! {
    std::process::exit(128 + signal)
}

/// `SIGTERM`.
pub(crate) fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("signal")
}

/// The signals but for those that the parent had ignored, which stays so: `nohup`, and Ctrl-C for a command in the
/// background of a script.
fn not_ignored() -> impl Iterator<Item = i32> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    [SIGTERM, SIGINT, SIGHUP].into_iter().filter(move |signal| ignored & (1 << (signal - 1)) == 0)
}

/// The ignored signals as a mask, from the text of `/proc/PID/status`; none where there is no such line.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals() {
        assert_eq!(ignored("SigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\n"), 0x1001);
        assert_eq!((ignored(""), ignored("SigIgn:\tx\n")), (0, 0));
    }
}
