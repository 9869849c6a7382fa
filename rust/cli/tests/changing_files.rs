//! What is stored is the content that was read: files that report another size, and files that change meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Server, complete_names, finish, program};

#[test]
fn files_that_report_another_size_arrive_whole() {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    for (at, path) in ["/proc/version", "/proc/cpuinfo", "/sys/kernel/mm/transparent_hugepage/enabled"]
        .into_iter()
        .enumerate()
    {
        let Ok(before) = fs::read(path) else {
            eprintln!("skipped {path}: it cannot be read here");
            continue;
        };
        let (name, back) = (format!("file-{at}"), temp.path().join(format!("back-{at}")));
        server.put(Path::new(path), &["--name", &name]).succeeded();
        let stored = fs::read(server.path.join(&name)).unwrap();
        // The frequency of a processor may have changed.
        assert!(!stored.is_empty() && (stored == before || path.ends_with("cpuinfo")), "{path}");
        server.get(&name, &back, &[]).succeeded();
        assert_eq!(fs::read(&back).unwrap(), stored);
    }
}

/// Puts or gets a file that `change` changes in between, until it has ended; it must fail.
fn changed(change: impl Fn(&Path) + Sync, what: &str) {
    let server = Server::start();
    let temp = tempfile::tempdir().unwrap();
    for get in [false, true] {
        let directory = if get { server.path.as_path() } else { temp.path() };
        let file = directory.join("in");
        fs::File::create(&file).unwrap().set_len(48 << 20).unwrap();
        let mut command = program();
        if get {
            command.args(["get", "in", &server.address, "-o"]).arg(temp.path().join("back"));
        } else {
            command.arg("put").arg(&file).arg(&server.address);
        }
        command.args(["--chunk", "4K", "--slots", "2"]);
        let running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                while !done.load(Ordering::Relaxed) {
                    change(&file);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let ended = finish(running);
            done.store(true, Ordering::Relaxed);
            ended.failed(1, what);
        });
        fs::remove_file(&file).unwrap();
        assert!(
            complete_names(temp.path()).is_empty() && server.complete_names().is_empty(),
            "a file was stored"
        );
    }
}

#[test]
fn a_file_that_grows_is_not_stored() {
    let grow = |path: &Path| {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() + 1).unwrap();
    };
    changed(grow, "changed while it was read: it grew");
}

#[test]
fn a_file_that_shrinks_is_not_stored() {
    let shrink = |path: &Path| OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap();
    changed(shrink, "changed while it was read: it shrank");
}
