//! `bench`: every mode, what it leaves, and how it ends.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Ended, Server, finish, program, run};
use serde_json::Value;

/// Rows of some milliseconds.
const QUICK: [&str; 9] =
    ["--pool", "2M", "--seconds", "0.005", "--repeats", "2", "--warmup", "1", "--no-limits"];

/// A `bench serve` process. Killed when dropped.
struct BenchServer {
    child: Child,
    address: String,
}

impl BenchServer {
    fn start(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut child = program()
            .args(["bench", "serve", "--port", "0", "--until-stdin-closes"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("it printed {line:?}"));
        Self { address: address.to_owned(), child }
    }
}

impl Drop for BenchServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bench(arguments: &[&str]) -> Ended {
    run(program().arg("bench").args(arguments))
}

fn rows(json: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    document["rows"].as_array().unwrap().clone()
}

#[test]
fn local_measures_every_path_and_leaves_table_json_csv_and_plot() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (json, csv, plot) = (path("a.json"), path("a.csv"), path("a.svg"));
    let files = ["--cases", "1x4K,8x4.5K", "--json", &json, "--csv", &csv, "--plot", &plot];
    let ended = bench(&[&QUICK[..8], &files].concat()).succeeded();
    let table = ended.out.lines().filter(|line| !line.starts_with("not measured: "));
    assert_eq!(table.filter(|line| line.chars().count() > 100).collect::<Vec<_>>(), [""; 0]);
    let document: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    for (key, is) in [
        ("kind", Value::is_string as fn(&Value) -> bool),
        ("format", Value::is_u64),
        ("version", Value::is_string),
        ("date", Value::is_string),
        ("provider", Value::is_string),
        ("device", Value::is_string),
        ("host", Value::is_object),
        ("settings", Value::is_object),
        ("interrupted", Value::is_boolean),
    ] {
        assert!(is(&document[key]), "{key}: {document:#}");
    }
    assert_eq!(document["settings"]["pool_bytes"], 2 << 20);
    let rate = &document["registrations"][0];
    assert!(rate["microseconds"].as_f64().unwrap() > 0.0 && rate["bytes"] == 2 << 20, "{rate}");
    let pins = document["provider"] == "verbs";
    assert_eq!(rate["gigabytes_per_second"].as_f64().is_some_and(|rate| rate > 0.0), pins, "{rate}");
    let limits: Vec<_> =
        document["limits"].as_array().unwrap().iter().map(|limit| limit["name"].as_str().unwrap()).collect();
    assert!(limits.contains(&"memcpy") && limits.contains(&"tcp socket"), "{limits:?}");
    // What a sandbox denies is noted instead.
    let has_limit = limits.contains(&"process_vm");
    let is_noted = document["not_measured"]
        .as_array()
        .unwrap()
        .iter()
        .any(|one| ["cross-memory", "limit process_vm"].contains(&one["path"].as_str().unwrap()));
    assert!(has_limit != is_noted, "{document:#}");
    let rows = document["rows"].as_array().unwrap();
    // Two cases and two operations over each path; a sandbox may deny one of them.
    assert!(rows.len() >= 8 && rows.len().is_multiple_of(4), "{document:#}");
    for row in rows {
        assert_eq!(row["data"], "verified", "{row:#}");
        assert_eq!(row["pieces"], "scattered");
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row:#}"));
        assert!(number("gigabytes_per_second") > 0.0 && number("pieces_compared") > 0.0);
        assert!(number("p50_us") <= number("p99_us") && number("p99_us") <= number("p999_us"));
        assert!(number("p999_us") <= number("max_us"));
        assert_eq!(row["repeats"].as_array().unwrap().len(), 2);
        assert!(ended.out.contains(row["path"].as_str().unwrap()));
        assert_eq!(row["cpu_seconds_per_gib_server"].is_null(), row["path"] == "in-process", "{row:#}");
    }
    let reasons = document["not_measured"].as_array().unwrap();
    assert!(reasons.iter().any(|one| one["path"] == "verbs" && !one["reason"].as_str().unwrap().is_empty()));
    assert_eq!(fs::read_to_string(&csv).unwrap().lines().count(), rows.len() + 1);
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("limit: memcpy") && svg.contains("tcp"), "{svg:.200}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn the_plot_is_a_png_if_its_name_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let plot = temp.path().join("a.PNG");
    let arguments = ["--in-process", "--cases", "1x4K,1x64K", "--plot", plot.to_str().unwrap()];
    bench(&[&QUICK[..8], &arguments].concat()).succeeded();
    let file = BufReader::new(fs::File::open(plot).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    // Two panels of 500 by 420 and the names of 190, at two pixels each.
    assert_eq!((info.width, info.height), (2380, 840));
    // The line of the first path, and the dashed one of memcpy.
    for colour in [[0, 114, 178], [60; 3]] {
        assert!(pixels.chunks(3).any(|pixel| pixel == colour), "{colour:?}");
    }
}

#[test]
fn run_measures_against_a_server_both_ways_with_many_clients_connections_and_threads() {
    let server = BenchServer::start(&[], &[]);
    let json = ["--json", "-", "--op", "read"];
    let many = [
        "--clients",
        "2",
        "--connections",
        "3",
        "--threads",
        "2",
        "--depth",
        "4",
        "-b",
        "-s",
        "64K",
        "-l",
        "4",
    ];
    let ended = bench(&[&["run", &server.address][..], &QUICK, &json, &many].concat()).succeeded();
    let rows = rows(&ended.out);
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["clients"], &rows[0]["batch"]), (&2.into(), &4.into()));
    assert_eq!((&rows[0]["data"], &rows[0]["bidirectional"]), (&"verified".into(), &true.into()));
    assert!(rows[0]["reverse_gigabytes_per_second"].as_f64().unwrap() > 0.0, "{rows:#?}");
    assert!(ended.err.contains("read both ways"), "the table is on stderr: {ended:?}");
    // More threads than connections, and single transfers.
    let few =
        ["--path", "tcp", "-T", "3", "-n", "2", "-s", "1K", "--repeats", "2", "--pool", "1M", "-w", "0"];
    let ended = bench(&[&["run", &server.address][..], &json, &few, &["--no-limits"]].concat()).succeeded();
    assert_eq!(self::rows(&ended.out)[0]["transfers"], 12);
}

#[test]
fn contiguous_pieces_are_told_from_scattered_ones() {
    for (more, pieces) in [(&["--contiguous"][..], "contiguous"), (&[], "scattered")] {
        let arguments = [&["--in-process", "--cases", "4x4K", "--json", "-"][..], &QUICK, more].concat();
        let ended = bench(&arguments).succeeded();
        assert!(rows(&ended.out).iter().all(|row| row["pieces"] == pieces), "{ended:?}");
        assert!(ended.err.starts_with(pieces), "{ended:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_no_verify_says_so() {
    let arguments = ["--in-process", "--cases", "4x4K", "--json", "-", "--seed", "77", "--no-verify"];
    let ended = bench(&[&arguments[..], &QUICK].concat()).succeeded();
    let document: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&document["settings"]["seed"], &document["rows"][0]["data"]),
        (&77.into(), &"unverified".into())
    );
    assert!(ended.err.contains("seed 77") && ended.err.contains("not verified"), "{ended:?}");
}

#[test]
fn variables_that_are_set_are_in_the_document_and_compared() {
    let temp = tempfile::tempdir().unwrap();
    let runs = [("before.json", "1"), ("after.json", "2")].map(|(name, workers)| {
        let path = temp.path().join(name).to_str().unwrap().to_owned();
        let mut command = program();
        command.args(["bench", "--in-process", "--cases", "4x4K", "--json", &path]).args(QUICK);
        command.env("FLAGCX_P2P_WORKERS_PER_POOL", workers);
        command.env("FLAGCX_P2P_DIRECTORY", "etcd://user:secret@192.0.2.9/p");
        run(&mut command).succeeded();
        path
    });
    let text = fs::read_to_string(&runs[0]).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["settings"]["variables"]["FLAGCX_P2P_WORKERS_PER_POOL"], "1", "{document:#}");
    assert!(!text.contains("192.0.2.9"), "{document:#}");
    let ended = bench(&["compare", &runs[0], &runs[1]]).succeeded();
    assert!(ended.err.contains("the runs differ in FLAGCX_P2P_WORKERS_PER_POOL: 1 and 2"), "{ended:?}");
}

#[test]
fn a_corrupted_byte_is_found_at_either_end() {
    for op in ["write", "read"] {
        for path in [&["--path", "tcp"][..], &["--in-process"]] {
            let arguments = ["--cases", "3x5000", "--op", op, "--inject-corruption", "--json", "-"];
            let ended = bench(&[&arguments[..], &QUICK, path].concat());
            let ended = ended.failed(1, "1 of 1 rows moved bytes that differ");
            let rows = rows(&ended.out);
            assert_eq!((&rows[0]["data"], &rows[0]["pieces_wrong"]), (&"corrupted".into(), &1.into()));
            assert!(ended.err.contains("CORRUPTED: 1 of "), "{ended:?}");
        }
    }
}

#[test]
fn ctrl_c_keeps_the_rows_so_far() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (json, csv, plot) = (path("a.json"), path("a.csv"), path("a.svg"));
    let mut command = program();
    command.args([
        "bench",
        "--path",
        "tcp",
        "--sweep",
        "4K..256K",
        "--pool",
        "2M",
        "--repeats",
        "1",
        "-D",
        "0.3",
    ]);
    command.args(["--json", &json, "--csv", &csv, "--plot", &plot]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("read") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it ended");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = finish(child);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("the rows that were complete are kept"), "{ended:?}");
    let document: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let rows = document["rows"].as_array().unwrap().len();
    assert!(document["interrupted"] == true && (2..8).contains(&rows), "{document:#}");
    assert_eq!(fs::read_to_string(csv).unwrap().lines().count(), rows + 1);
    assert!(fs::read_to_string(plot).unwrap().contains("<svg"));
}

#[test]
fn a_peer_that_dies_in_the_middle_costs_the_rows_that_are_missing_alone() {
    let temp = tempfile::tempdir().unwrap();
    let json = temp.path().join("a.json");
    let server = BenchServer::start(&[], &[]);
    let mut command = program();
    command.args(["bench", "run", &server.address, "--path", "tcp", "--sweep", "4K..256K", "--pool", "2M"]);
    command.args(["--repeats", "1", "-D", "0.3", "--json"]).arg(&json);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("write") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it ended");
    }
    drop(server);
    let ended = finish(child).failed(1, "bench against 127.0.0.1:");
    assert!(!ended.err.contains("panic"), "{ended:?}");
    let document: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert!(!document["rows"].as_array().unwrap().is_empty(), "{document:#}");
}

/// The path of each run, with its rate in each of three repeats.
fn write_run(path: &Path, runs: &[(&str, [f64; 3])]) {
    let temp = tempfile::tempdir().unwrap();
    let json = temp.path().join("a.json");
    let arguments = ["--in-process", "--cases", "1x4K", "--op", "read", "--json", json.to_str().unwrap()];
    bench(&[&arguments[..], &QUICK].concat()).succeeded();
    let mut document: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    let row = document["rows"][0].clone();
    let rows = runs.iter().map(|(name, rates)| {
        let mut row = row.clone();
        row["path"] = (*name).into();
        row["gigabytes_per_second"] = rates[1].into();
        row["gigabytes_per_second_min"] = rates[0].into();
        row["gigabytes_per_second_max"] = rates[2].into();
        row
    });
    document["rows"] = rows.collect();
    fs::write(path, document.to_string()).unwrap();
}

#[test]
fn compare_marks_what_is_beyond_the_spread_and_fails_below_the_limit() {
    let temp = tempfile::tempdir().unwrap();
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    let (before, after) = (path("before.json"), path("after.json"));
    write_run(
        Path::new(&before),
        &[("slower", [9.0, 10.0, 11.0]), ("noisy", [5.0, 10.0, 11.0]), ("gone", [1.0; 3])],
    );
    write_run(Path::new(&after), &[("slower", [8.0, 8.5, 8.9]), ("noisy", [4.0, 5.0, 6.0])]);
    let ended = bench(&["compare", &before, &after]).succeeded();
    let verdict = |name: &str| ended.out.lines().find(|line| line.contains(name)).unwrap().to_owned();
    assert!(verdict("slower").contains("0.85") && verdict("slower").contains("SLOWER"), "{ended:?}");
    assert!(verdict("noisy").contains("0.50") && verdict("noisy").contains("within the spread"), "{ended:?}");
    assert!(ended.out.contains("1 rows are in the first run alone"), "{ended:?}");
    bench(&["compare", &before, &after, "--limit", "0.8"]).succeeded();
    bench(&["compare", &before, &after, "--limit", "0.95"])
        .failed(1, "1 of 2 rows are slower than --limit 0.95");
    bench(&["compare", &after, &before, "--limit", "0.95"]).succeeded();

    fs::write(path("other.json"), r#"{"rows": []}"#).unwrap();
    fs::write(path("old.json"), r#"{"kind": "flagcx-p2p bench", "format": 7}"#).unwrap();
    fs::write(path("text"), "hello").unwrap();
    write_run(Path::new(&path("disjoint.json")), &[("elsewhere", [1.0; 3])]);
    for (file, code, text) in [
        ("nowhere.json", 2, "nowhere.json: No such file"),
        ("other.json", 1, "is no file of `bench --json`"),
        ("old.json", 1, "has format 7, this program reads 1"),
        ("text", 1, "is no JSON"),
        ("disjoint.json", 1, "no row in common"),
    ] {
        bench(&["compare", &before, &path(file)]).failed(code, text);
    }
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_anything_is_measured() {
    let temp = tempfile::tempdir().unwrap();
    let missing = temp.path().join("nowhere/a.json");
    let directory = temp.path().to_str().unwrap();
    for (arguments, text) in [
        (["--json", missing.to_str().unwrap()], "--json"),
        (["--csv", directory], "is a directory"),
        (["--plot", "a.jpg"], "--plot a.jpg: the plot is an SVG or a PNG, so name it FILE.svg or FILE.png"),
        (["--plot", "/proc/a.png"], "--plot /proc/a.png"),
        (["--plot", "/proc/a.svg"], "--plot /proc/a.svg"),
    ] {
        let ended = bench(&[&QUICK[..], &["--in-process", "--cases", "1x4K"], &arguments].concat());
        let ended = ended.failed(2, text);
        assert!(ended.out.is_empty(), "nothing was measured: {ended:?}");
    }
    // Only its end shows that it is full.
    let full = ["--in-process", "--cases", "1x4K", "--json", "/dev/full"];
    bench(&[&full[..], &QUICK].concat()).failed(1, "write /dev/full: No space left");
}

#[test]
fn peers_that_are_none_are_named() {
    let server = Server::start();
    bench(&["run", &server.address]).failed(1, "the peer is another command of flagcx-p2p");
    bench(&["run", "127.0.0.1:1"]).failed(1, "is `flagcx-p2p bench serve` running there?");
    bench(&["run", "nohost.invalid:1"]).failed(1, "cannot resolve host");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let older = std::thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let _ = client.read(&mut [0; 64]);
        client.write_all(b"FB\x63\0\0\0\0").unwrap();
        let _ = client.read(&mut [0; 64]);
    });
    bench(&["run", &address]).failed(1, "has version 99, this program's has version 1: use the same release");
    older.join().unwrap();
}

#[test]
fn a_server_outlives_clients_that_send_what_is_no_benchmark() {
    let server = BenchServer::start(&[], &["--pool-limit", "8M"]);
    for (bytes, reason) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a flagcx-p2p control stream"),
        (b"FB\x01\xff\xff\xff\xff".to_vec(), "malformed frame: 4294967295 bytes"),
        (b"FB\x01\x01\0\0\0\x63".to_vec(), "malformed frame"),
        // Stop, before the session is open.
        (b"FB\x01\x01\0\0\0\x0f".to_vec(), "unexpected Stop"),
    ] {
        let mut client = TcpStream::connect(&server.address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(reason), "expected {reason:?}: {answer:?}");
    }
    let large = bench(&["run", &server.address, "--pool", "16M", "--cases", "1x4K"]);
    large.failed(1, "a pool of 16.00 MiB is more than the 8.00 MiB that --pool-limit leaves");
    bench(&[&["run", &server.address, "--cases", "1x4K"][..], &QUICK].concat()).succeeded();
    // Clients that say nothing are dropped after 5 s, on a busy machine before the command has asked.
    for attempt in 1.. {
        let crowd: Vec<_> = (0..64).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
        let ended = bench(&[&["run", &server.address, "--cases", "1x4K"][..], &QUICK].concat());
        drop(crowd);
        if ended.code != Some(0) || attempt == 10 {
            ended.failed(1, "64 clients are served already");
            break;
        }
    }
}

#[test]
fn the_key_is_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let [one, other] = ["one", "other"].map(|name| {
        let path = temp.path().join(name);
        fs::write(&path, format!("the secret of {name}")).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let variable = "FLAGCX_P2P_AUTH_KEY_FILE";
    let server = BenchServer::start(&[(variable, &one)], &[]);
    let measure = |key: Option<&str>| {
        let mut command = program();
        command.args(["bench", "run", &server.address, "--cases", "1x4K"]).args(QUICK);
        run(command.envs(key.map(|key| (variable, key))))
    };
    measure(Some(&one)).succeeded();
    assert_eq!(measure(Some(&other)).code, Some(1));
    assert_eq!(measure(None).code, Some(1));
    measure(Some(&one)).succeeded();
}
