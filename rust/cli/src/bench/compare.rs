//! `bench compare`: two runs, row by row.

use std::collections::BTreeSet;
use std::path::Path;

use super::document::{Document, FORMAT, KIND};
use super::options::CompareOptions;
use super::row::{Row, RowKey};
use crate::error::{CliError, Result, While};
use crate::output;

/// One row of both runs.
#[derive(Clone, Debug, PartialEq)]
struct Pair<'a> {
    key: &'a RowKey,
    before: &'a Row,
    after: &'a Row,
}

/// Runs `bench compare`.
pub(crate) fn run(options: &CompareOptions) -> Result<()> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    let pairs = pairs(&before, &after);
    if pairs.is_empty() {
        return Err(CliError::other(
            "the two runs have no row in common: measure the same cases, paths and settings",
        ));
    }
    print(&before, &after, &pairs);
    let regressions = pairs.iter().filter(|pair| pair.is_regression());
    let failed = regressions.filter(|pair| options.limit.is_some_and(|limit| pair.ratio() < limit)).count();
    if failed > 0 {
        return Err(CliError::other(format!(
            "{failed} of {} rows are slower than --limit {} beyond the spread of their repeats",
            pairs.len(),
            options.limit.unwrap_or_default()
        )));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Document> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
    let doing = || format!("read {}", path.display());
    let head: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| CliError::other(format!("is no JSON: {error}")))
        .doing(doing)?;
    let format = head.get("format").and_then(serde_json::Value::as_u64);
    if head.get("kind").and_then(serde_json::Value::as_str) != Some(KIND) {
        return Err(CliError::other("is no file of `bench --json`")).doing(doing);
    }
    if format != Some(u64::from(FORMAT)) {
        let text = format!("has format {}, this program reads {FORMAT}", format.unwrap_or(0));
        return Err(CliError::other(text)).doing(doing);
    }
    serde_json::from_value(head).map_err(|error| CliError::other(error.to_string())).doing(doing)
}

/// The rows that both have, in the order of the second.
fn pairs<'a>(before: &'a Document, after: &'a Document) -> Vec<Pair<'a>> {
    let pair = |row: &'a Row| {
        let before = before.rows.iter().find(|other| other.key == row.key)?;
        Some(Pair { key: &row.key, before, after: row })
    };
    after.rows.iter().filter_map(pair).collect()
}

impl Pair<'_> {
    /// Rate after to rate before.
    fn ratio(&self) -> f64 {
        self.after.gigabytes_per_second / self.before.gigabytes_per_second.max(1e-9)
    }

    /// Slower in every repeat than in any repeat before.
    fn is_regression(&self) -> bool {
        self.after.gigabytes_per_second_max < self.before.gigabytes_per_second_min
    }

    fn is_improvement(&self) -> bool {
        self.after.gigabytes_per_second_min > self.before.gigabytes_per_second_max
    }

    fn verdict(&self) -> &'static str {
        if self.is_regression() {
            "SLOWER"
        } else if self.is_improvement() {
            "faster"
        } else {
            "within the spread"
        }
    }
}

fn print(before: &Document, after: &Document, pairs: &[Pair<'_>]) {
    for (what, before, after) in [
        ("host", &before.host.name, &after.host.name),
        ("processor", &before.host.processor, &after.host.processor),
        ("kernel", &before.host.kernel, &after.host.kernel),
        ("device", &before.device, &after.device),
    ] {
        if before != after {
            output::remark(&format!("the runs differ in their {what}: {before} and {after}"));
        }
    }
    if before.settings.pool_bytes != after.settings.pool_bytes {
        output::remark("the runs differ in the size of their pools");
    }
    let (ours, theirs) = (&before.settings.variables, &after.settings.variables);
    let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for name in names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name)) {
        let [before, after] = [ours, theirs].map(|set| set.get(name).map_or("unset", String::as_str));
        output::remark(&format!("the runs differ in {name}: {before} and {after}"));
    }
    let mut table =
        output::table(["path", "operation", "transfer", "before GB/s", "after GB/s", "ratio", ""]);
    for pair in pairs {
        table.add_row([
            pair.key.path.clone(),
            pair.key.operation_text(),
            pair.key.case().to_string(),
            format!("{:.3}", pair.before.gigabytes_per_second),
            format!("{:.3}", pair.after.gigabytes_per_second),
            format!("{:.2}", pair.ratio()),
            pair.verdict().to_owned(),
        ]);
    }
    output::line(&table.to_string());
    let (only_before, only_after) =
        (before.rows.len() - pairs.len().min(before.rows.len()), after.rows.len() - pairs.len());
    if only_before + only_after > 0 {
        output::line(&format!(
            "{only_before} rows are in the first run alone, {only_after} in the second alone"
        ));
    }
}
