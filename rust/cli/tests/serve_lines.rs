//! What `serve` prints of the files that it has stored and sent: large ones, and small ones, which travel in groups.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{program, run};
use serde_json::Value;

/// What a server prints while a client stores a folder with three small files and a large one, and fetches it.
fn lines_of(temp: &Path, arguments: &[&str], address_in: impl Fn(&str) -> String) -> Vec<String> {
    let (served, from, output) = (temp.join("served"), temp.join("in"), temp.join("output"));
    fs::create_dir(&served).unwrap();
    fs::create_dir(&from).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(from.join(name), name).unwrap();
    }
    fs::write(from.join("large"), vec![7; 2 << 20]).unwrap();
    let mut command = program();
    command.args(["serve", "--port", "0"]).arg(&served).args(arguments);
    let mut server = command.stdin(Stdio::null()).stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
    let lines = || fs::read_to_string(&output).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let begun = Instant::now();
    while lines().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not listen");
        std::thread::sleep(Duration::from_millis(2));
    }
    let address = address_in(&lines()[0]);
    let put = run(program().arg("put").arg(&from).arg(&address));
    let get = run(program().args(["get", "in", &address, "-o"]).arg(temp.join("out")));
    let ended = run(std::process::Command::new("kill").args(["-TERM", &server.id().to_string()]));
    server.wait().unwrap();
    for ended in [put, get, ended] {
        ended.succeeded();
    }
    lines()
}

#[test]
fn small_files_have_a_line_too() {
    let temp = tempfile::tempdir().unwrap();
    let lines = lines_of(temp.path(), &[], |line| line.split_whitespace().nth(2).unwrap().to_owned());
    for verb in ["stored", "sent"] {
        let of_verb: Vec<_> = lines.iter().filter(|line| line.starts_with(verb)).collect();
        let large: Vec<_> = of_verb.iter().filter(|line| line.contains("in/large: 2.00 MiB in ")).collect();
        assert_eq!(large.len(), 1, "{lines:?}");
        assert!(large[0].contains(", blake3 "), "{lines:?}");
        // Those before and behind the large one have a line each.
        let small = of_verb.iter().filter(|line| !line.contains("large"));
        let count = |line: &str| {
            if line.contains(" small files, ") { line.split(' ').nth(1)?.parse().ok() } else { Some(1) }
        };
        assert_eq!(small.map(|line| count(line).unwrap()).sum::<u64>(), 3, "{lines:?}");
    }
}

#[test]
fn with_json_each_file_is_a_line() {
    let temp = tempfile::tempdir().unwrap();
    let address =
        |line: &str| serde_json::from_str::<Value>(line).unwrap()["address"].as_str().unwrap().to_owned();
    let lines = lines_of(temp.path(), &["--json"], address);
    let objects: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects[0]["event"], "listening");
    assert_eq!(objects[0]["directory"], temp.path().join("served").to_str().unwrap());
    for event in ["stored", "sent"] {
        let of_event: Vec<_> = objects.iter().filter(|object| object["event"] == event).collect();
        let mut names: Vec<_> = of_event.iter().map(|object| object["file"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["in/a", "in/b", "in/c", "in/large"]);
        for object in of_event {
            let large = object["file"] == "in/large";
            assert_eq!(object["bytes"], if large { 2 << 20 } else { 1 });
            assert_eq!(object["seconds"].is_f64(), large, "a small file has no time of its own: {object}");
            assert_eq!(object["blake3"].as_str().unwrap().len(), 64);
            assert!(object["client"].as_str().unwrap().starts_with("127.0.0.1:"));
        }
    }
}
