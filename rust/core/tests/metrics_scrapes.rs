//! Scrapes of the metrics endpoint leave neither memory nor descriptors behind. The only test of its process, which it measures.
#![cfg(feature = "metrics-endpoint")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use support::{LIMIT, Pair, engine, eventually};

fn scrape(path: &Path, times: usize) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..times / 4 {
                    let mut stream = UnixStream::connect(path).unwrap();
                    stream.set_read_timeout(Some(LIMIT)).unwrap();
                    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
                    let mut page = String::new();
                    stream.read_to_string(&mut page).unwrap();
                    assert!(page.ends_with("# EOF\n"), "{page}");
                }
            });
        }
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn ten_thousand_scrapes_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let value = format!("unix:{}", path.display());
    let holder = engine(&[("FLAGCX_P2P_METRICS", &value)]);
    let pair = Pair::new(64 << 10);
    scrape(&path, 1000);
    let before = (descriptors(), resident());
    let begun = Instant::now();
    scrape(&path, 10_000);
    let grown = resident().saturating_sub(before.1);
    println!("10,000 scrapes in {:?}, {} KiB more", begun.elapsed(), grown >> 10);
    eventually("the last clients are closed, a moment after their answer", || descriptors() <= before.0);
    // 400 bytes a scrape would be more.
    assert!(grown < 4 << 20, "{grown} bytes more are resident");
    drop((pair, holder));
}
