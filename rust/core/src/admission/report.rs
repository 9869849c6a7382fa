//! Rate-limited log lines about clients that wait or cannot be accepted.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::ledger::Ledger;

/// The interval of log lines: at most one of each kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// When the last line of each kind was written, and the number of suppressed events since.
#[derive(Debug, Default)]
pub(super) struct LogLimiter {
    full: Line,
    failed: Line,
}

#[derive(Debug, Default)]
struct Line {
    last: Option<Instant>,
    /// Events since the last line.
    count: u64,
}

impl Line {
    /// Counts an event; if a line is due, returns the number of events since the last one.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

impl LogLimiter {
    /// A client has to wait because unauthenticated clients hold all permits.
    pub(super) fn full(&mut self, ledger: &Ledger, limit: usize, now: Instant) -> Option<String> {
        self.full.due(now)?;
        Some(format!(
            "{}: new clients wait until those give up or are dropped. A key (FLAGCX_P2P_AUTH_KEY_FILE) shortens their time, \
             FLAGCX_P2P_ALLOW keeps other networks out, a higher `ulimit -n` makes room",
            holders(ledger, limit)
        ))
    }

    /// A socket could not be accepted.
    pub(super) fn failed(
        &mut self,
        listener: &dyn fmt::Display,
        error: &io::Error,
        ledger: &Ledger,
        nofile: usize,
        now: Instant,
    ) -> Option<String> {
        let count = self.failed.due(now)?;
        let advice = match error.raw_os_error() {
            Some(libc::EMFILE) => {
                format!("the process has used up its {nofile} descriptors; raise `ulimit -n`")
            }
            Some(libc::ENFILE) => {
                "the host has used up its open files; raise /proc/sys/fs/file-max".to_owned()
            }
            Some(libc::ENOMEM | libc::ENOBUFS) => "the host is short of memory".to_owned(),
            Some(libc::EPERM) => "a firewall or a sandbox denies it; allow accept4".to_owned(),
            _ => "it is tried again".to_owned(),
        };
        Some(format!(
            "cannot accept on {listener}: {error} ({count} times); {advice}. Unauthenticated clients: {}",
            ledger.clients()
        ))
    }
}

fn holders(ledger: &Ledger, limit: usize) -> String {
    let largest = ledger.largest();
    let most = largest.map_or_else(String::new, |(source, count)| format!(", {count} of them from {source}"));
    format!(
        "{} clients that have proven nothing hold the descriptors set aside for such ({limit}, a quarter of `ulimit -n` at \
         most, one source half of that){most}",
        ledger.clients()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stands_for_many() {
        let (mut told, ledger, now) = (LogLimiter::default(), Ledger::default(), Instant::now());
        let error = io::Error::from_raw_os_error(libc::EMFILE);
        let mut tell = |now| told.failed(&"127.0.0.1:9", &error, &ledger, 1024, now);
        let line = tell(now).unwrap();
        assert!(
            line.contains("127.0.0.1:9") && line.contains("1024") && line.contains("ulimit -n"),
            "{line}"
        );
        assert_eq!((tell(now), tell(now + INTERVAL / 2)), (None, None));
        assert!(tell(now + INTERVAL).unwrap().contains("(3 times)"));
    }
}
