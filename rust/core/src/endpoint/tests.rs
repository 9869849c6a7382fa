//! The endpoint against clients of all kinds, over Unix sockets and loopback.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Limits;
use super::listener::HttpListener;
use super::server;
use crate::config::Config;
use crate::events::{EventLoop, Task};
use crate::observe::{METRICS, Snapshot, Source, registry};

const LONG: Duration = Duration::from_secs(20);

/// An endpoint on a Unix socket of its own.
struct Rig {
    path: PathBuf,
    task: Option<Task>,
    events: Arc<EventLoop>,
    _folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        let value = format!("unix:{}", path.display());
        let config = Config::from_source(&|name| (name == "FLAGCX_P2P_METRICS").then(|| value.clone()));
        let listener = HttpListener::bind(config.metrics.as_ref().unwrap(), &config).unwrap();
        let events = EventLoop::acquire().unwrap();
        let task = Some(events.spawn(move |handle| server::serve(listener, limits, handle.clone())));
        Self { path, task, events, _folder: folder }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream
    }

    fn send(&self, request: &[u8]) -> String {
        send(&self.path, request)
    }
}

fn send(path: &Path, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // The answer may come, and the connection end, before all has been sent.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn pages_and_refusals() {
    let rig = Rig::new();
    let metrics = rig.send(GET);
    assert!(
        metrics.starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text;"),
        "{metrics}"
    );
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let snapshot = rig.send(b"GET /snapshot HTTP/1.1\r\n\r\n");
    let snapshot: serde_json::Value = serde_json::from_str(body(&snapshot)).unwrap();
    assert_eq!(snapshot["pid"], std::process::id());
    let head = rig.send(b"HEAD /snapshot HTTP/1.1\r\n\r\n");
    assert!(head.contains("application/json") && body(&head).is_empty(), "{head}");
    for (request, line) in [
        ("GET /nothing HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("\0\x01garbage\r\n\r\n", "400 Bad HttpRequest"),
        ("GET /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\nsome body", "413 Content Too Large"),
    ] {
        let answer = rig.send(request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {line}\r\n")), "{request:?}: {answer}");
    }
    let long = [b"GET /metrics HTTP/1.1\r\nA: ", [b'x'; 20_000].as_slice()].concat();
    assert!(rig.send(&long).starts_with("HTTP/1.1 431 "));
}

/// However a request is cut, and whatever follows it, there is one answer, whole.
#[test]
fn a_slow_writer_and_one_that_sends_more_are_answered_once() {
    let rig = Rig::new();
    let mut slow = rig.connect();
    for byte in GET {
        slow.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("# EOF\n"), "{answer}");

    let mut more = rig.connect();
    more.write_all(&[GET, GET, &[0xff; 30_000]].concat()).unwrap();
    let mut answer = String::new();
    more.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("# EOF\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1);
}

/// More idle clients than places, and one that does not read: a scrape is answered.
#[test]
fn idle_clients_make_room() {
    let rig = Rig::new();
    let mut deaf = rig.connect();
    deaf.write_all(GET).unwrap();
    let idle: Vec<_> = (0..30).map(|_| rig.connect()).collect();
    let begun = Instant::now();
    assert!(rig.send(GET).starts_with("HTTP/1.1 200 OK"));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    drop((idle, deaf));
}

/// As many as there are places have their answer, and do not close.
#[test]
fn clients_that_have_their_answer_keep_no_place() {
    let rig = Rig::new();
    let begun = Instant::now();
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = rig.connect();
            client.write_all(b"GET /nothing HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            client
        })
        .collect();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(clients);
}

/// As many as there are places have asked for a large page, and do not read it.
#[test]
fn clients_that_do_not_read_make_room() {
    let rig = Rig::with(Limits { answer: 10 * LONG, ..Limits::default() });
    let peers = Arc::new(Peers(400));
    registry().add(&peers);
    let deaf: Vec<_> = (0..16)
        .map(|_| {
            let mut client = rig.connect();
            client.write_all(GET).unwrap();
            client
        })
        .collect();
    let begun = Instant::now();
    assert!(rig.send(GET).ends_with("# EOF\n"));
    println!("answered in {:?}", begun.elapsed());
    drop(deaf);
}

/// So many peers, as they are counted. 300 fill a socket.
struct Peers(u32);

impl Source for Peers {
    fn collect(&self, out: &mut Snapshot) {
        for peer in 0..self.0 {
            let labels = [("peer", format!("10.0.{}.{}:40000", peer / 250, peer % 250))];
            for metric in METRICS.iter().filter(|metric| metric.name.contains("_peer_")) {
                out.number(metric, &labels, 123_456_789);
            }
        }
    }
}

#[test]
fn limits_end_those_that_do_not_send_and_those_that_do_not_read() {
    let limit = Duration::from_millis(200);
    let rig = Rig::with(Limits { request: limit, answer: 10 * limit });
    let peers = Arc::new(Peers(1000));
    registry().add(&peers);
    let begun = Instant::now();
    let mut deaf = rig.connect();
    deaf.write_all(GET).unwrap();
    let (mut silent, mut half) = (rig.connect(), rig.connect());
    half.write_all(b"GET /met").unwrap();
    let (mut nothing, mut answer, mut part) = (String::new(), String::new(), String::new());
    silent.read_to_string(&mut nothing).unwrap();
    half.read_to_string(&mut answer).unwrap();
    assert_eq!(nothing, "");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!((limit..LONG).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // A slow reader that goes on in time receives all of it.
    let mut slow = rig.connect();
    slow.write_all(GET).unwrap();
    std::thread::sleep(limit);
    let mut whole = String::new();
    slow.read_to_string(&mut whole).unwrap();
    assert!(whole.ends_with("# EOF\n") && whole.len() > 1 << 19, "{} bytes", whole.len());
    std::thread::sleep(11 * limit);
    let _ = deaf.read_to_string(&mut part);
    assert!(part.starts_with("HTTP/1.1 200") && part.len() < whole.len(), "{} bytes", part.len());
}

/// The loop answers others while a page of a thousand peers is made.
#[test]
fn a_large_page_does_not_hold_up_the_loop() {
    let rig = Rig::new();
    let peers = Arc::new(Peers(1000));
    registry().add(&peers);
    let (report, seen) = std::sync::mpsc::channel();
    let _task = rig.events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            let mut last = Instant::now();
            loop {
                handle.sleep(Duration::from_millis(1)).await;
                let _ = report.send(last.elapsed());
                last = Instant::now();
            }
        }
    });
    let begun = Instant::now();
    let page = rig.send(GET);
    let took = begun.elapsed();
    let mut pauses: Vec<_> = seen.try_iter().collect();
    pauses.sort_unstable();
    println!(
        "{} bytes in {took:?}; pauses of the loop: {:?}",
        page.len(),
        &pauses[pauses.len().saturating_sub(3)..]
    );
    assert!(pauses.len() > 2, "the loop did nothing else in {took:?}");
}

/// With clients in every state.
#[test]
fn it_closes_while_it_is_scraped() {
    let mut rig = Rig::new();
    let (silent, mut deaf) = (rig.connect(), rig.connect());
    deaf.write_all(GET).unwrap();
    let path = rig.path.clone();
    let answered = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&answered);
    let scraping = std::thread::spawn(move || {
        while let Ok(mut stream) = UnixStream::connect(&path) {
            let _ = stream.write_all(GET);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            count.fetch_add(u32::from(answer.ends_with("# EOF\n")), Ordering::Relaxed);
        }
    });
    let begun = Instant::now();
    while answered.load(Ordering::Relaxed) < 3 {
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    drop(rig.task.take());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    scraping.join().unwrap();
    assert!(!rig.path.exists());
    let mut left = Vec::new();
    let _ = (&silent).read_to_end(&mut left);
    assert!(left.is_empty());
}
