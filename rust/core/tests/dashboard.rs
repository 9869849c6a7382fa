//! `docs/grafana-dashboard.json` and the examples of `docs/metrics.md` ask for metrics that exist, by the names that the text format
//! gives them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use flagcx_p2p::internals::observe::{Kind, METRICS};
use serde_json::Value;

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// Every name of the text format.
fn written_names() -> Vec<String> {
    let suffixes = |kind| match kind {
        Kind::Counter => &["_total"][..],
        Kind::Gauge => &[""],
        Kind::Histogram => &["_bucket", "_sum", "_count"],
    };
    let names = METRICS
        .iter()
        .flat_map(|metric| suffixes(metric.kind).iter().map(|suffix| [metric.name, suffix].concat()));
    names.collect()
}

/// The names in an expression.
fn names_in(expression: &str) -> Vec<&str> {
    let words = expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("flagcx_p2p_")).collect()
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            let texts = ["expr", "query"].into_iter().filter_map(|name| members.get(name)?.as_str());
            found.extend(texts.map(str::to_owned));
            members.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard: Value = serde_json::from_str(&document("grafana-dashboard.json")).unwrap();
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let known = written_names();
    let panels = dashboard["panels"].as_array().unwrap().len();
    let names: Vec<_> = found.iter().flat_map(|expression| names_in(expression)).collect();
    assert!(names.len() >= panels && panels > 5, "{names:?}");
    for name in names {
        assert!(known.iter().any(|metric| metric == name), "{name} is no metric");
    }
}

#[test]
fn alerts_of_the_page_ask_for_metrics_that_exist() {
    let page = document("metrics.md");
    let known = written_names();
    let expressions: Vec<_> = page.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(!expressions.is_empty());
    for name in expressions.iter().flat_map(|expression| names_in(expression)) {
        assert!(known.iter().any(|metric| metric == name), "{name} is no metric");
    }
}
