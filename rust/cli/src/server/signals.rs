//! Signals that end the server: the first lets it drain, the second ends it at once.
//!
//! They have handlers, so that they also end a server that is process 1 of a container: the kernel drops signals of
//! process 1 that have none.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `drain` at the first signal.
pub(super) fn handle(drain: impl FnOnce(&'static str) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new(ending_signals())?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        let mut drain = Some(drain);
        for signal in signals.forever() {
            match drain.take() {
                Some(drain) => drain(name(signal)),
                None => std::process::exit(128 + signal),
            }
        }
    })?;
    Ok(())
}

/// SIGTERM, SIGINT and SIGHUP, but for those that the parent had ignored, which stays so: `nohup`, and Ctrl-C for a command in
/// the background of a script.
pub(crate) fn ending_signals() -> impl Iterator<Item = i32> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    [SIGTERM, SIGINT, SIGHUP].into_iter().filter(move |signal| ignored & (1 << (signal - 1)) == 0)
}

fn name(signal: i32) -> &'static str {
    signal_hook::low_level::signal_name(signal).unwrap_or("signal")
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
