//! Progress of all files of a command: one line that is drawn again when stderr is a terminal, a plain line every few seconds
//! when not.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{terminal, units};

/// How often a plain line is printed.
const INTERVAL: Duration = Duration::from_secs(2);
/// Columns of a terminal that does not say it.
const USUAL_COLUMNS: u16 = 80;
/// A terminal with fewer columns gets a shorter line.
const NARROW: u16 = 60;
/// One with at least as many has room for everything.
const ROOM: u16 = 110;
const FULL: &str = "{prefix:.24} [{wide_bar}] {binary_bytes} of {binary_total_bytes}{msg}  {decimal_bytes_per_sec}  ETA {eta}";
const USUAL: &str = "[{wide_bar}] {binary_bytes} of {binary_total_bytes}{msg}  ETA {eta}";
const SHORT: &str = "{percent}% {decimal_bytes_per_sec} ETA {eta}";
/// Where the total is not known.
const OPEN: &str = "{prefix:.24} {binary_bytes}  {decimal_bytes_per_sec}";

/// Progress of all files. It has no colours.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
    /// Files, and how many of them have ended.
    files: u64,
    ended: Cell<u64>,
}

#[derive(Debug)]
enum Shown {
    /// On a terminal.
    Bar(ProgressBar),
    /// Elsewhere.
    Lines { what: String, total: Option<u64>, started: Instant, done: Cell<u64>, printed: Cell<Instant> },
    /// Nowhere.
    Nothing,
}

impl Progress {
    /// Starts at 0 of `total` bytes, if they are known, and 0 of `files` files.
    pub(crate) fn new(what: &str, total: Option<u64>, files: u64, quiet: bool) -> Self {
        let shown = if quiet {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            Shown::Bar(bar(what, total))
        } else {
            let now = Instant::now();
            let (done, printed) = (Cell::new(0), Cell::new(now));
            Shown::Lines { what: what.to_owned(), total, started: now, done, printed }
        };
        let progress = Self { shown, files, ended: Cell::new(0) };
        progress.show_files();
        progress
    }

    /// `bytes` more are done.
    pub(crate) fn advance(&self, bytes: u64) {
        match &self.shown {
            Shown::Bar(bar) => bar.inc(bytes),
            Shown::Lines { what, total, started, done, printed } => {
                done.set(done.get() + bytes);
                if printed.get().elapsed() >= INTERVAL {
                    printed.set(Instant::now());
                    let line = plain_line(what, done.get(), *total, started.elapsed());
                    super::remark(&format!("{line}{}", self.file_count()));
                }
            }
            Shown::Nothing => {}
        }
    }

    /// One more file is done.
    pub(crate) fn file_ended(&self) {
        self.ended.set(self.ended.get() + 1);
        self.show_files();
    }

    /// Prints a line of results on stdout, above the progress.
    pub(crate) fn line(&self, text: &str) {
        self.beside(|| super::line(text));
    }

    /// Prints a remark on stderr, above the progress.
    pub(crate) fn remark(&self, text: &str) {
        self.beside(|| super::remark(text));
    }

    /// All done: the bar makes room for the result.
    pub(crate) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn beside(&self, print: impl FnOnce()) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(print),
            Shown::Lines { .. } | Shown::Nothing => print(),
        }
    }

    fn show_files(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(self.file_count());
        }
    }

    /// `, 3 of 10 files`; nothing where there is one file.
    fn file_count(&self) -> String {
        if self.files > 1 { format!(", {} of {} files", self.ended.get(), self.files) } else { String::new() }
    }
}

/// A command that ends by an error or a signal leaves the terminal as it was.
impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn bar(what: &str, total: Option<u64>) -> ProgressBar {
    let columns = terminal::size(std::io::stderr()).map_or(USUAL_COLUMNS, |(columns, _)| columns);
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template(columns, total.is_some())) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar
}

fn template(columns: u16, has_total: bool) -> &'static str {
    match has_total {
        false => OPEN,
        true if columns < NARROW => SHORT,
        true if columns < ROOM => USUAL,
        true => FULL,
    }
}

fn plain_line(what: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let (moved, rate) = (units::bytes(done), units::rate(done, elapsed));
    let Some(total) = total else { return format!("{what}: {moved}, {rate}") };
    let left = total.saturating_sub(done) as f64 * elapsed.as_secs_f64() / done.max(1) as f64;
    format!("{what}: {moved} of {}, {rate}, {left:.0} s left", units::bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid_and_fit() {
        for template in [FULL, USUAL, SHORT, OPEN] {
            ProgressStyle::with_template(template).unwrap();
        }
        let chosen = [1, 59, 60, 109, 110].map(|columns| template(columns, true));
        assert_eq!(chosen, [SHORT, SHORT, USUAL, USUAL, FULL]);
        assert_eq!(template(20, false), OPEN);
    }

    #[test]
    fn a_plain_line_says_how_far_and_how_long() {
        let line = plain_line("put a", 1 << 30, Some(3 << 30), Duration::from_secs(2));
        assert_eq!(line, "put a: 1.00 GiB of 3.00 GiB, 0.54 GB/s, 4 s left");
        assert_eq!(plain_line("put a", 1 << 30, None, Duration::from_secs(2)), "put a: 1.00 GiB, 0.54 GB/s");
    }

    #[test]
    fn files_are_counted_where_there_are_several() {
        let progress = Progress::new("put", Some(1), 3, true);
        progress.file_ended();
        assert_eq!(progress.file_count(), ", 1 of 3 files");
        assert_eq!(Progress::new("put", Some(1), 1, true).file_count(), "");
    }
}
