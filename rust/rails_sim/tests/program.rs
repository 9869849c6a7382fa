//! The program of `./x bench rails`: its table, its file and its status.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flagcx-p2p-rails-sim")).args(arguments).output().unwrap()
}

#[test]
fn the_file_has_a_row_of_each_policy_for_each_of_the_table() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rails.json");
    let output = program(&["--seeds", "1", "--json", file.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut policies = BTreeMap::<_, Vec<_>>::new();
    for row in &rows {
        let is_number = |field: &str| row[field].is_f64() || row[field].is_u64();
        assert!(["share", "jain", "failed", "pauses", "seed"].iter().all(|field| is_number(field)), "{row}");
        for field in ["detection_ms", "recovery_ms"] {
            assert!(row.get(field).is_some_and(Value::is_null) || is_number(field), "{field}: {row}");
        }
        policies.entry(row["policy"].as_str().unwrap()).or_default().push(row["scenario"].as_str().unwrap());
    }
    let ours = &policies["ours"];
    assert!(ours.iter().all(|scenario| table.contains(&format!("| {scenario} |"))), "{table}");
    assert!(table.lines().count() > ours.len() && ours.len() > 9, "{table}");
    assert!(policies.len() == 4 && policies.values().all(|scenarios| scenarios == ours), "{policies:#?}");
    let silent = rows.iter().find(|row| row["scenario"].as_str().unwrap().starts_with("D:")).unwrap();
    assert!(silent["policy"] == "ours" && silent["detection_ms"].is_f64(), "{silent}");
}

#[test]
fn other_arguments_are_refused() {
    for arguments in [&["--json"][..], &["--seeds", "0"], &["--seed", "1"]] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
