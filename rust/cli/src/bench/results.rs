//! Collects what is measured: prints each row at once, and writes the files at the end, whatever the end is.

use std::io;

use super::document::{Document, NotMeasured};
use super::limits::{MachineLimit, RegistrationRate};
use super::options::{Outputs, Workload};
use super::outputs::{Target, is_stdout};
use super::plot;
use super::row::{Data, Row};
use super::table::{self, Table};
use crate::error::{CliError, Result};
use crate::output::{self, terminal};

/// A run so far.
#[derive(Debug)]
pub(crate) struct Results {
    document: Document,
    json: Option<Target>,
    csv: Option<Target>,
    plot: Option<(Target, plot::Format)>,
    /// Standard output belongs to the JSON.
    on_stderr: bool,
    table: Table,
    header_printed: bool,
}

impl Results {
    /// Opens the files.
    pub(crate) fn new(document: Document, outputs: &Outputs, workload: &Workload) -> Result<Self> {
        let open = |option, path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| Target::open(option, path)).transpose()
        };
        let plot = |path: &std::path::PathBuf| {
            let format = plot::Format::of(path)?;
            Ok::<_, CliError>((Target::open("--plot", path)?, format))
        };
        let on_stderr = outputs.json.as_deref().is_some_and(is_stdout);
        let size = if on_stderr { terminal::size(io::stderr()) } else { terminal::size(io::stdout()) };
        let width = size.map_or(table::USUAL, |(columns, _)| usize::from(columns));
        Ok(Self {
            document,
            json: open("--json", &outputs.json)?,
            csv: open("--csv", &outputs.csv)?,
            plot: outputs.plot.as_ref().map(plot).transpose()?,
            on_stderr,
            table: Table::new(width, workload),
            header_printed: false,
        })
    }

    /// What is known of the run, for what is learnt on the way.
    pub(crate) fn document(&mut self) -> &mut Document {
        &mut self.document
    }

    /// Prints a line that is no row.
    pub(crate) fn say(&self, text: &str) {
        if self.on_stderr {
            output::remark(text);
        } else {
            output::line(text);
        }
    }

    /// Prints and keeps a row.
    pub(crate) fn row(&mut self, row: Row) {
        self.print(&self.table.row(&row));
        self.document.rows.push(row);
    }

    /// Prints and keeps a limit of the machine.
    pub(crate) fn limit(&mut self, limit: MachineLimit) {
        self.print(&self.table.limit(&limit));
        self.document.limits.push(limit);
    }

    /// Prints and keeps how fast a device registers memory; once for each device.
    pub(crate) fn registration(&mut self, rate: RegistrationRate) {
        self.say(&rate.text());
        self.document.registrations.push(rate);
    }

    /// Whether that is known of a device.
    pub(crate) fn has_registration(&self, device: &str) -> bool {
        self.document.registrations.iter().any(|rate| rate.device == device)
    }

    /// Prints and keeps why a path was not measured.
    pub(crate) fn not_measured(&mut self, path: &str, reason: &str) {
        self.say(&format!("not measured: {path}: {reason}"));
        self.document.not_measured.push(NotMeasured { path: path.to_owned(), reason: reason.to_owned() });
    }

    fn print(&mut self, line: &str) {
        if !std::mem::replace(&mut self.header_printed, true) {
            if let Some(left_out) = self.table.left_out() {
                self.say(&left_out);
            }
            self.say(&self.table.header());
        }
        self.say(line);
    }

    /// Writes the files. Fails if data was corrupted, or if nothing was measured.
    pub(crate) fn finish(mut self, interrupted: bool) -> Result<()> {
        self.document.interrupted = interrupted;
        let document = &self.document;
        let written = [
            self.plot.take().map(|(target, format)| target.write(&plot::file(document, format)?)),
            self.csv.take().map(|target| target.write(csv(document).as_bytes())),
            self.json.take().map(|target| target.write(json(document)?.as_bytes())),
        ];
        for result in written.into_iter().flatten() {
            result?;
        }
        let corrupted = document.rows.iter().filter(|row| row.data == Data::Corrupted).count();
        if corrupted > 0 {
            let text = format!(
                "{corrupted} of {} rows moved bytes that differ from what was sent",
                document.rows.len()
            );
            return Err(CliError::other(text));
        }
        if document.rows.is_empty() && !interrupted {
            let reasons = document.not_measured.iter();
            let reasons: Vec<_> = reasons.map(|one| format!("{}: {}", one.path, one.reason)).collect();
            return Err(CliError::other(format!("nothing was measured: {}", reasons.join("; "))));
        }
        Ok(())
    }
}

fn json(document: &Document) -> Result<String> {
    let text = serde_json::to_string_pretty(document);
    text.map(|text| text + "\n").map_err(|error| CliError::other(error.to_string()))
}

fn csv(document: &Document) -> String {
    let mut text = format!("{}\n", table::CSV_HEADER);
    for row in &document.rows {
        text.push_str(&table::csv_row(row));
        text.push('\n');
    }
    text
}
