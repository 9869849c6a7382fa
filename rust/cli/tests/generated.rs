//! What is made from the definitions of the arguments and of the variables: completions, manual pages, `config`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;

use common::{program, run};
use serde_json::Value;

/// The commands that `--help` lists, but for `help`.
fn commands() -> Vec<String> {
    let help = run(program().arg("--help")).succeeded().out;
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn completions_know_every_command() {
    let commands = commands();
    assert!(commands.len() >= 9, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(program().args(["completions", shell])).succeeded().out;
        for command in commands.iter().map(String::as_str).chain(["--chunk", "--timeout"]) {
            // fish writes long options without dashes.
            assert!(script.contains(command.trim_start_matches('-')), "{shell}: {command}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let temp = tempfile::tempdir().unwrap();
    run(program().arg("man").arg(temp.path())).succeeded();
    let page = |name: &str| {
        fs::read_to_string(temp.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let program = page("flagcx-p2p.1");
    for command in commands() {
        assert!(
            program.contains(&format!("flagcx\\-p2p\\-{command}(1)"))
                || program.contains(&format!("flagcx-p2p-{command}(1)")),
            "{command}: {program}"
        );
        let page = page(&format!("flagcx-p2p-{command}.1"));
        assert!(page.contains(".SH NAME") && page.contains("128+N"), "{command}: {page}");
    }
}

#[test]
fn config_shows_what_is_documented() {
    let key = tempfile::NamedTempFile::new().unwrap();
    fs::write(&key, "a secret of some length").unwrap();
    let config = |arguments: &[&str]| {
        let mut config = program();
        config.arg("config").args(arguments).env("FLAGCX_P2P_QPS_PER_CONN", "99").env("FLAGCX_IB_TC", "106");
        run(config.env("FLAGCX_P2P_AUTH_KEY_FILE", key.path())).succeeded()
    };
    let ended = config(&["--json"]);
    let entries: Vec<Value> = serde_json::from_str(&ended.out).unwrap();
    let documented = include_str!("../../../docs/configuration.md");
    let of = |name: &str| {
        entries.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name} is not shown"))
    };
    // The last table lists those without an effect.
    let (in_effect, _) = documented.split_once("## Without effect").unwrap();
    let names: Vec<_> =
        in_effect.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        of(name);
    }
    let wrong = of("FLAGCX_P2P_QPS_PER_CONN");
    assert_eq!((&wrong["value"], &wrong["origin"]), (&Value::from("4"), &Value::from("default")));
    assert!(wrong["wrong"].as_str().unwrap().contains("outside 1..8"));
    assert_eq!(of("FLAGCX_P2P_IB_TC")["origin"], "FLAGCX_IB_TC, environment");
    assert_eq!(of("FLAGCX_P2P_AUTH_KEY_FILE")["value"], key.path().to_str().unwrap());
    assert!(!ended.out.contains("a secret") && !ended.err.contains("a secret"));

    let one = config(&["qps_per_conn"]).out;
    assert!(one.contains("FLAGCX_P2P_QPS_PER_CONN = 4 queue pairs   [default; 1..8]"), "{one}");
    assert!(
        one.contains("wrong: FLAGCX_P2P_QPS_PER_CONN=\"99\"") && !one.contains("FLAGCX_P2P_FABRIC"),
        "{one}"
    );
}
