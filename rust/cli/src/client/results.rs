//! How the files of one command ended: printed as they end, and summed up.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Moved, Style};
use crate::error::{CliError, Problem, Result, While};
use crate::output::progress::Progress;
use crate::output::{self, units};

/// The files of one command.
pub(super) struct Results<'a> {
    /// `put` or `get`.
    verb: &'static str,
    /// `put a.bin to 192.0.2.7:7733`, without a name where there are several.
    doing: String,
    style: Style,
    /// A single file was asked for: its line is the result, and its error that of the command.
    single: bool,
    /// Results go to stderr: the file goes to stdout.
    to_stderr: bool,
    path: String,
    progress: &'a Progress,
    started: Instant,
    files: u64,
    failed: u64,
    skipped: u64,
    /// Bytes of all files, and those of them that moved.
    bytes: u64,
    moved: u64,
    error: Option<CliError>,
}

impl<'a> Results<'a> {
    pub(super) fn new(
        (verb, doing): (&'static str, String),
        style: Style,
        (single, to_stderr): (bool, bool),
        path: String,
        progress: &'a Progress,
    ) -> Self {
        let started = Instant::now();
        let (files, failed, skipped, bytes, moved, error) = (0, 0, 0, 0, 0, None);
        Self {
            verb,
            doing,
            style,
            single,
            to_stderr,
            path,
            progress,
            started,
            files,
            failed,
            skipped,
            bytes,
            moved,
            error,
        }
    }

    /// A file has ended.
    pub(super) fn ended(&mut self, name: &str, ended: Result<Moved>) {
        self.files += 1;
        self.progress.file_ended();
        match ended {
            Ok(moved) => {
                self.bytes += moved.bytes;
                self.moved += moved.bytes - moved.resumed;
                match self.style {
                    Style::Json => self.print_json(name, moved),
                    Style::Text if self.single => self.print_text(name, moved),
                    Style::Text | Style::Quiet => {}
                }
            }
            Err(error) => {
                self.failed += 1;
                let verb = self.verb;
                if self.style == Style::Json {
                    self.progress.line(&json!({ "file": name, "error": error.to_string() }).to_string());
                }
                if self.single {
                    self.error = Some(error);
                } else {
                    self.progress.remark(&format!("{verb} {name}: {error}"));
                }
            }
        }
    }

    /// Entries that are no regular files.
    pub(super) fn skipped(&mut self, skipped: u64) {
        self.skipped += skipped;
    }

    /// Prints the sum, and returns the command's result; `done` is how the stream ended.
    pub(super) fn finish(mut self, done: Result<()>) -> Result<()> {
        self.progress.finish();
        let elapsed = self.started.elapsed();
        match self.style {
            Style::Json => output::json_line(&self.summary(elapsed)),
            Style::Text if !self.single => self.print_sum(elapsed),
            Style::Text | Style::Quiet => {}
        }
        let (failed, files) = (self.failed, self.files);
        let result = match (done, self.error.take()) {
            (Err(error), _) | (Ok(()), Some(error)) => Err(error),
            (Ok(()), None) if failed > 0 => Err(Problem::SomeFailed { failed, files }.into()),
            (Ok(()), None) => Ok(()),
        };
        result.doing(|| self.doing)
    }

    fn print_text(&self, name: &str, moved: Moved) {
        let resumed = match moved.resumed {
            0 => String::new(),
            bytes => format!(", {} of it sent before", units::bytes(bytes)),
        };
        let line = format!(
            "{} {name}: {} in {:.2} s, {}{resumed}, path {}, verified blake3 {}",
            self.verb,
            units::bytes(moved.bytes),
            moved.elapsed.as_secs_f64(),
            units::rate(moved.bytes - moved.resumed, moved.elapsed),
            self.path,
            units::hex(&moved.hash)
        );
        if self.to_stderr { self.progress.remark(&line) } else { self.progress.line(&line) }
    }

    fn print_json(&self, name: &str, moved: Moved) {
        let Moved { bytes, hash, elapsed, resumed } = moved;
        let line = json!({
            "file": name,
            "bytes": bytes,
            "resumed_at": resumed,
            "seconds": elapsed.as_secs_f64(),
            "gigabytes_per_second": units::gigabytes_per_second(bytes - resumed, elapsed),
            "blake3": units::hex(&hash),
        });
        self.progress.line(&line.to_string());
    }

    fn print_sum(&self, elapsed: Duration) {
        let complete = self.files - self.failed;
        let mut line = format!(
            "{} {complete} files: {} in {:.2} s, {}, path {}, verified",
            self.verb,
            units::bytes(self.bytes),
            elapsed.as_secs_f64(),
            units::rate(self.moved, elapsed),
            self.path
        );
        for (count, what) in [(self.failed, "failed"), (self.skipped, "skipped")] {
            if count > 0 {
                line.push_str(&format!(", {count} {what}"));
            }
        }
        output::line(&line);
    }

    fn summary(&self, elapsed: Duration) -> serde_json::Value {
        json!({
            "files": self.files,
            "bytes": self.bytes,
            "seconds": elapsed.as_secs_f64(),
            "gigabytes_per_second": units::gigabytes_per_second(self.moved, elapsed),
            "failed": self.failed,
            "skipped": self.skipped,
            "path": self.path,
        })
    }
}
