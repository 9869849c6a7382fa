//! docs/metrics.md has each metric and each kind of event with the meaning that the engine's tables have, and no others.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use flagcx_p2p::internals::observe::{EventKind, Kind, METRICS};

/// The first cells of the rows of all tables, without their headers.
fn rows(page: &str) -> Vec<Vec<&str>> {
    page.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect())
        .collect()
}

#[test]
fn the_page_is_that_of_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = std::fs::read_to_string(path).unwrap();
    let metrics: Vec<_> = rows(&page).into_iter().filter(|row| row.len() == 5).collect();
    // Other sections have tables of their own.
    let events = rows(page.split("\n## ").find(|section| section.starts_with("Events\n")).unwrap());
    let mut missing = Vec::new();
    for metric in METRICS {
        let (kind, suffix) = match metric.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
            Kind::Histogram => ("histogram", ""),
        };
        let name = format!("{}{suffix}", metric.name);
        let is_there = |row: &Vec<&str>| row[0] == name && row[1] == kind && row[3] == metric.help;
        if !metrics.iter().any(is_there) {
            missing.push(format!("| `{name}` | {kind} | ... | {} | ... |", metric.help));
        }
    }
    assert!(missing.is_empty(), "docs/metrics.md lacks\n{}", missing.join("\n"));
    assert_eq!(metrics.len(), METRICS.len(), "docs/metrics.md has rows of metrics that there are not");
    let described: BTreeSet<_> = events.iter().map(|row| row[0]).collect();
    let kinds: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(described, kinds, "the kinds of events in docs/metrics.md");
}
