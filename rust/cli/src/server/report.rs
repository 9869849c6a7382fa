//! What `serve` prints of the files that were moved: a line for each; of small files that follow each other one line, or with
//! `--json` one for each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::output::{self, units};
use crate::pipeline::Digest;

/// The lines about one client's files. What has no line yet gets it when this is dropped.
#[derive(Debug)]
pub(super) struct Report {
    json: bool,
    client: SocketAddr,
    small: Option<SmallFiles>,
}

/// Small files that have followed each other.
#[derive(Debug)]
struct SmallFiles {
    verb: &'static str,
    first: String,
    last: String,
    files: u64,
    bytes: u64,
    started: Instant,
    ended: Instant,
}

impl Report {
    pub(super) fn new(json: bool, client: SocketAddr) -> Self {
        Self { json, client, small: None }
    }

    /// A file that travelled alone was moved; `verb` is `stored` or `sent`.
    pub(super) fn file(&mut self, verb: &'static str, name: &str, digest: Digest, elapsed: Duration) {
        self.print_small_files();
        if self.json {
            return output::json_line(&self.object(verb, name, digest, Some(elapsed)));
        }
        output::line(&format!(
            "{verb} {name}: {} in {:.2} s, {}, blake3 {}",
            units::bytes(digest.bytes),
            elapsed.as_secs_f64(),
            units::rate(digest.bytes, elapsed),
            units::hex(&digest.hash)
        ));
    }

    /// A small file was moved.
    pub(super) fn small_file(&mut self, verb: &'static str, name: &str, digest: Digest) {
        if self.json {
            return output::json_line(&self.object(verb, name, digest, None));
        }
        if self.small.as_ref().is_some_and(|small| small.verb != verb) {
            self.print_small_files();
        }
        let now = Instant::now();
        let small = self.small.get_or_insert_with(|| SmallFiles {
            verb,
            first: name.to_owned(),
            last: String::new(),
            files: 0,
            bytes: 0,
            started: now,
            ended: now,
        });
        small.files += 1;
        small.bytes += digest.bytes;
        small.ended = now;
        name.clone_into(&mut small.last);
    }

    fn print_small_files(&mut self) {
        let Some(small) = self.small.take() else { return };
        let SmallFiles { verb, first, last, files, bytes, started, ended } = small;
        let (bytes, seconds) = (units::bytes(bytes), (ended - started).as_secs_f64());
        output::line(&match files {
            1 => format!("{verb} {first}: {bytes}"),
            _ => format!("{verb} {files} small files, {first} to {last}: {bytes} in {seconds:.2} s"),
        });
    }

    /// A small file has no time of its own.
    fn object(&self, verb: &str, name: &str, digest: Digest, elapsed: Option<Duration>) -> Value {
        json!({
            "event": verb,
            "file": name,
            "bytes": digest.bytes,
            "seconds": elapsed.map(|elapsed| elapsed.as_secs_f64()),
            "gigabytes_per_second": elapsed.map(|elapsed| units::gigabytes_per_second(digest.bytes, elapsed)),
            "blake3": units::hex(&digest.hash),
            "client": self.client.to_string(),
        })
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.print_small_files();
    }
}
