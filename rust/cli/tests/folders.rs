//! Folders and many files over one connection: what is transferred, what is left out, and what one bad file does to the others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use common::{Ended, Server, finish, names, program, run};
use serde_json::Value;

/// Every path below a folder with its content.
fn tree(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let name = entry.strip_prefix(path).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read(&entry).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A folder with files of several sizes: empty, small, as large as a slot, and of several chunks.
fn model(parent: &Path) -> std::path::PathBuf {
    let folder = parent.join("model");
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    for (name, size) in [
        ("empty", 0),
        ("a", 5),
        ("deep/b", 70_000),
        ("deep/er/c", 600_000),
        ("deep/er/d", (1 << 20) + 1),
        ("z", 1),
    ] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect();
        fs::write(folder.join(name), content).unwrap();
    }
    folder
}

fn put(sources: &[&Path], server: &Server, more: &[&str]) -> Ended {
    run(program().arg("put").args(sources).arg(&server.address).args(more))
}

fn get(names: &[&str], server: &Server, output: &Path, more: &[&str]) -> Ended {
    run(program().arg("get").args(names).arg(&server.address).arg("-o").arg(output).args(more))
}

fn json_lines(ended: &Ended) -> Vec<Value> {
    ended.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_folder_goes_there_and_back() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let folder = model(temp.path());
    fs::set_permissions(folder.join("a"), Permissions::from_mode(0o700)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    for name in ["a", "deep/er/d"] {
        fs::File::options().write(true).open(folder.join(name)).unwrap().set_modified(time).unwrap();
    }
    symlink("a", folder.join("link")).unwrap();
    let ended = put(&[&folder], &server, &[]).succeeded();
    assert!(ended.out.contains("put 6 files: ") && ended.out.contains("verified, 1 skipped"), "{ended:?}");
    assert!(ended.err.contains("model/link: is a symbolic link"), "{ended:?}");
    fs::remove_file(folder.join("link")).unwrap();
    assert!(tree(&server.path.join("model")) == tree(&folder));

    // Chunks of 4 KiB make all but the smallest ones take the way of large files.
    for (to, more) in [("one", &[][..]), ("two", &["--chunk", "4K", "--slots", "3"])] {
        let back = temp.path().join(to);
        let ended = get(&["model"], &server, &back, more).succeeded();
        assert!(ended.out.contains("get 6 files: "), "{ended:?}");
        assert!(tree(&back.join("model")) == tree(&folder), "{to}");
        for name in ["a", "deep/er/d"] {
            let metadata = fs::metadata(back.join("model").join(name)).unwrap();
            assert_eq!(metadata.modified().unwrap(), time, "{name}");
            assert_eq!(metadata.permissions().mode() & 0o100 != 0, name == "a");
        }
    }
    let part = temp.path().join("part");
    get(&["model/deep", "model/a", "./model//z"], &server, &part, &["--quiet"]).succeeded();
    assert_eq!(names(&part), ["a", "deep", "z"]);
    assert!(tree(&part.join("deep")) == tree(&folder.join("deep")));
    put(&[&folder], &server, &["--name", "two/two", "--chunk", "4K", "--slots", "2"]).succeeded();
    assert!(tree(&server.path.join("two/two")) == tree(&folder));
    get(&["."], &server, &temp.path().join("all"), &[]).succeeded();
    assert!(tree(&temp.path().join("all")) == tree(&server.path));
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let folder = model(temp.path());
    fs::create_dir_all(server.path.join("model/deep")).unwrap();
    // A small one and a large one are there already, and a link takes the place of a folder.
    fs::write(server.path.join("model/a"), "mine").unwrap();
    fs::write(server.path.join("model/deep/large"), "mine").unwrap();
    fs::write(folder.join("deep/large"), vec![1; 2 << 20]).unwrap();
    symlink(temp.path(), server.path.join("model/deep/er")).unwrap();
    let ended =
        put(&[&folder], &server, &["--json"]).failed(1, "4 of 7 files failed; the others are complete");
    let lines = json_lines(&ended);
    let failed = |name: &str| {
        let line = lines.iter().find(|line| line["file"] == name).unwrap();
        line["error"].as_str().unwrap_or_default().to_owned()
    };
    assert!(failed("model/a").contains("exists already"), "{lines:?}");
    assert!(failed("model/deep/large").contains("exists already"), "{lines:?}");
    for name in ["model/deep/er/c", "model/deep/er/d"] {
        assert!(failed(name).contains("where a folder is needed"), "{lines:?}");
    }
    let sum = lines.last().unwrap();
    assert_eq!((&sum["files"], &sum["failed"], &sum["bytes"]), (&7.into(), &4.into(), &70_001.into()));
    assert!(
        sum["seconds"].as_f64().unwrap() > 0.0 && sum["gigabytes_per_second"].as_f64().unwrap() > 0.0,
        "{sum}"
    );
    let stored = tree(&server.path.join("model"));
    assert_eq!(stored.iter().filter(|(_, content)| content == b"mine").count(), 2);
    assert_eq!(names(temp.path()), ["model"], "nothing was written through the link");

    fs::remove_file(server.path.join("model/deep/er")).unwrap();
    put(&[&folder], &server, &["--force"]).succeeded();
    let back = temp.path().join("back");
    fs::create_dir_all(back.join("model/deep/er/c")).unwrap();
    symlink("/", back.join("model/z")).unwrap();
    let ended = get(&["model", "none"], &server, &back, &[]).failed(1, "3 of 8 files failed");
    for text in ["get model/deep/er/c: ", "get model/z: ", "get none: the peer refused: "] {
        assert!(ended.err.contains(text), "{ended:?}");
    }
    assert_eq!(tree(&back.join("model/deep")).len(), 3);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_moved() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let folder = model(temp.path());
    let (a, other) = (folder.join("a"), temp.path().join("a"));
    fs::write(&other, "other").unwrap();
    put(&[&a, &other], &server, &[]).failed(2, "two of the sources would be stored as a");
    put(&[&a, &folder], &server, &["--name", "b"]).failed(2, "--name is for a single file or folder");
    put(&[&a, &temp.path().join("none")], &server, &[]).failed(2, "none: No such file");
    put(&[&a, Path::new("-")], &server, &[]).failed(2, "standard input");
    run(program().args(["put", "-", &server.address])).failed(2, "give one with --name");
    assert!(server.names().is_empty());
    put(&[&folder, &other], &server, &["--quiet"]).succeeded();
    get(&["model", "a"], &server, &other, &[]).failed(2, "Not a directory");
    get(&["model"], &server, Path::new("-"), &[]).failed(2, "is a folder");
    get(&["a"], &server, Path::new("-"), &["--json"]).failed(2, "--json");
    get(&["a", "model"], &server, Path::new("-"), &[]).failed(2, "single file");
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let ended = put(&[&empty], &server, &[]).succeeded();
    assert!(ended.out.contains("put 0 files"), "{ended:?}");
}

#[test]
fn standard_input_and_output() {
    let server = Server::start();
    for size in [10, 5 << 20] {
        let content: Vec<u8> = (0..size).map(|at| (at % 241) as u8).collect();
        let mut command = program();
        command.args(["put", "-", &server.address, "--name", "piped/in", "--force", "--chunk", "1M"]);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&content).unwrap();
        let ended = finish(child).succeeded();
        assert!(ended.out.starts_with("put piped/in: "), "{ended:?}");
        assert!(fs::read(server.path.join("piped/in")).unwrap() == content, "{size}");

        let mut command = program();
        command.args(["get", "piped/in", &server.address, "-o", "-", "--chunk", "64K"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && err.contains("verified blake3"), "{err}");
        assert!(output.stdout == content, "{size}");
    }
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = program();
    command.args(["get", "piped/in", &server.address, "-o", "-"]).stdin(Stdio::null());
    finish(command.stdout(full).stderr(Stdio::piped()).spawn().unwrap())
        .failed(1, "cannot write to standard output: No space left");
}

#[test]
fn listing() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let ls = |more: &[&str]| run(program().args(["ls", &server.address]).args(more));
    assert_eq!(ls(&[]).succeeded().out, "");
    put(&[&model(temp.path())], &server, &[]).succeeded();
    // Never listed.
    fs::write(server.path.join(".flagcx-p2p-0123.partial"), "x").unwrap();
    fs::write(server.path.join("model/.flagcx-p2p-0123.part"), "x").unwrap();
    symlink("model", server.path.join("link")).unwrap();
    let file = fs::File::options().write(true).open(server.path.join("model/a")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
    let all = ls(&[]).succeeded();
    let names = |ended: &Ended| -> Vec<String> {
        ended.out.lines().map(|line| line.rsplit("  ").next().unwrap().to_owned()).collect()
    };
    let expected =
        ["model/a", "model/deep/b", "model/deep/er/c", "model/deep/er/d", "model/empty", "model/z"];
    assert_eq!(names(&all), expected, "{all:?}");
    assert!(all.out.contains("         5 B  1970-01-02T00:00:00Z  model/a"), "{all:?}");
    assert!(all.err.contains("1 links"), "{all:?}");
    for (prefix, count) in [("model/de", 3), ("m", 6), ("model/deep/er/", 2)] {
        assert_eq!(names(&ls(&[prefix]).succeeded()).len(), count, "{prefix}");
    }
    let lines = json_lines(&ls(&["model/a", "--json"]).succeeded());
    assert_eq!(
        lines,
        [serde_json::json!({ "file": "model/a", "bytes": 5, "modified": "1970-01-02T00:00:00Z" })]
    );
    ls(&["x"]).failed(1, "no file's name begins with \"x\"");
    ls(&["nowhere/x"]).failed(1, "No such file");
    ls(&["../x"]).failed(2, "name");
    ls(&["link/x"]).failed(1, "symbolic link");
    run(program().args(["ls", "127.0.0.1:1"])).failed(1, "is `flagcx-p2p serve` running there?");
}

/// More files than are unanswered at a time, and than a listing's frame has.
#[test]
fn many_small_files() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("many");
    fs::create_dir(&folder).unwrap();
    for at in 0..300 {
        fs::write(folder.join(format!("{at:03}")), format!("{at}").repeat(at % 7)).unwrap();
    }
    put(&[&folder], &server, &["--slots", "1"]).succeeded();
    assert!(tree(&server.path.join("many")) == tree(&folder));
    let back = temp.path().join("back");
    get(&["many"], &server, &back, &["--slots", "2"]).succeeded();
    assert!(tree(&back.join("many")) == tree(&folder));
}
