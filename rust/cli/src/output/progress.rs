//! Progress of one file: a bar when stderr is a terminal, a plain line every few seconds when not.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units;

/// How often a plain line is printed.
const INTERVAL: Duration = Duration::from_secs(2);
const TEMPLATE: &str =
    "{prefix} [{bar:30}] {binary_bytes} of {binary_total_bytes}  {decimal_bytes_per_sec}  ETA {eta}";

/// Progress of one file.
#[derive(Debug)]
pub(crate) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere.
    Lines { what: String, total: u64, started: Instant, done: Cell<u64>, printed: Cell<Instant> },
}

impl Progress {
    /// Starts at 0 of `total` bytes.
    pub(crate) fn new(what: &str, total: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            let now = Instant::now();
            let (done, printed) = (Cell::new(0), Cell::new(now));
            return Self::Lines { what: what.to_owned(), total, started: now, done, printed };
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        Self::Bar(bar)
    }

    /// `bytes` more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        match self {
            Self::Bar(bar) => bar.inc(bytes),
            Self::Lines { what, total, started, done, printed } => {
                done.set(done.get() + bytes);
                if printed.get().elapsed() >= INTERVAL {
                    printed.set(Instant::now());
                    super::remark(&plain_line(what, done.get(), *total, started.elapsed()));
                }
            }
        }
    }

    /// All done: the bar makes room for the result.
    pub(crate) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn plain_line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let left = total.saturating_sub(done) as f64 * elapsed.as_secs_f64() / done.max(1) as f64;
    format!(
        "{what}: {} of {}, {}, {left:.0} s left",
        units::bytes(done),
        units::bytes(total),
        units::rate(done, elapsed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid() {
        ProgressStyle::with_template(TEMPLATE).unwrap();
    }

    #[test]
    fn a_plain_line_says_how_far_and_how_long() {
        let line = plain_line("put a", 1 << 30, 3 << 30, Duration::from_secs(2));
        assert_eq!(line, "put a: 1.00 GiB of 3.00 GiB, 0.54 GB/s, 4 s left");
    }
}
