//! The metrics endpoint as programs and operators meet it: `FLAGCX_P2P_METRICS`, engines that come and go, forked children.
#![cfg(feature = "metrics-endpoint")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod log;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Outcome;
use log::Log;
use serde_json::{Value, json};
use support::children::{expect_success, fork};
use support::{LIMIT, Pair, engine, eventually, outcome};

/// A process has one endpoint: these tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exchange(mut stream: impl Read + Write, page: &str) -> String {
    let mut answer = String::new();
    // An endpoint that closes meanwhile is an answer that ends early.
    let _ = stream.write_all(format!("GET {page} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn get(path: &Path, page: &str) -> String {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    exchange(stream, page)
}

/// The port of a range at which the endpoint of process `pid` answers.
fn port_of(pid: u32, ports: std::ops::RangeInclusive<u16>) -> Option<u16> {
    let process = format!("\"pid\":{pid},");
    ports.into_iter().find(|port| {
        let stream =
            TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], *port)), Duration::from_secs(5));
        let Ok(stream) = stream else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        exchange(stream, "/snapshot").contains(&process)
    })
}

/// Ports that are likely free: below those that the kernel chooses, and other ones in each process.
fn some_ports() -> (u16, u16) {
    let first = 12_000 + (std::process::id() % 1500) as u16 * 8;
    (first, first + 7)
}

#[test]
fn it_is_open_from_the_first_engine_to_the_last() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let value = format!("unix:{}/p2p-%p", folder.path().display());
    let path = folder.path().join(format!("p2p-{}", std::process::id()));
    let settings = [("FLAGCX_P2P_METRICS", value.as_str())];
    for _ in 0..2 {
        let first = engine(&settings);
        let second = engine(&settings);
        drop(first);
        let metrics = get(&path, "/metrics");
        assert!(metrics.contains("\nflagcx_p2p_device_info{") && metrics.ends_with("# EOF\n"), "{metrics}");
        let health = get(&path, "/healthz");
        assert!(health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("\r\n\r\nok\n"), "{health}");
        drop(second);
        assert!(!path.exists());
    }
    let without = engine(&[]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "off by default");
    drop(without);
}

#[test]
fn a_port_in_use_is_one_line_and_engines_work() {
    let log = Log::of_process();
    let _turn = turn();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let value = holder.local_addr().unwrap().to_string();
    let pair = Pair::with(64 << 10, &[("FLAGCX_P2P_METRICS", &value)]);
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64 << 10)]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    let lines = log.lines(&["FLAGCX_P2P_METRICS", &value]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(" WARN ") && lines[0].contains("os error 98"), "{lines:?}");
    drop(holder);
    // A later engine finds it free.
    let _later = engine(&[("FLAGCX_P2P_METRICS", &value)]);
    let port = value.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(port_of(std::process::id(), port..=port), Some(port));
}

#[test]
fn a_second_address_is_one_line_and_the_first_one_stays() {
    let log = Log::of_process();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let value = |name: &str| format!("unix:{}", path(name).display());
    let _first = engine(&[("FLAGCX_P2P_METRICS", &value("first"))]);
    let _as_first = engine(&[("FLAGCX_P2P_METRICS", &value("first"))]);
    let others = [
        engine(&[("FLAGCX_P2P_METRICS", &value("second"))]),
        engine(&[("FLAGCX_P2P_METRICS", &value("second"))]),
    ];
    let lines = log.lines(&["FLAGCX_P2P_METRICS", &value("first")]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(" WARN ") && lines[0].contains(&value("second")), "{lines:?}");
    assert!(!path("second").exists());
    assert!(get(&path("first"), "/healthz").contains("200 OK"));
    drop(others);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let log = Log::of_process();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "text").unwrap();
    let value = format!("unix:{}", path.display());
    drop(engine(&[("FLAGCX_P2P_METRICS", &value)]));
    assert_eq!(std::fs::read(&path).unwrap(), b"text");
    assert_eq!(log.lines(&[&value, "is no socket"]).len(), 1);
}

/// Of a range each process takes a port of its own. A child does not keep the one of its parent open.
#[test]
fn a_range_serves_a_process_and_its_forked_child() {
    let _turn = turn();
    let (first, last) = some_ports();
    let value = format!("127.0.0.1:{first}-{last}");
    let parent = engine(&[("FLAGCX_P2P_METRICS", &value)]);
    let own = port_of(std::process::id(), first..=last).expect("the parent's endpoint");
    let (mut ended, child_reads) = UnixStream::pair().unwrap();
    let child = fork(|| {
        let engine = engine(&[("FLAGCX_P2P_METRICS", &value)]);
        let port = port_of(std::process::id(), first..=last).expect("the child's endpoint");
        assert_ne!(port, own);
        (&child_reads).write_all(b"open").unwrap();
        // Until the parent has closed its own.
        (&child_reads).read_exact(&mut [0; 4]).unwrap();
        assert_eq!(port_of(std::process::id(), first..=last), Some(port), "still open");
        drop(engine);
    });
    ended.set_read_timeout(Some(LIMIT)).unwrap();
    ended.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(port_of(std::process::id(), first..=last), Some(own));
    drop(parent);
    assert!(TcpStream::connect(("127.0.0.1", own)).is_err(), "held by the child");
    ended.write_all(b"shut").unwrap();
    expect_success(child);
}

/// The control channels of the connections of this process, as the page tells them.
fn channels(path: &Path) -> Vec<Value> {
    let answer = get(path, "/snapshot");
    let page: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let connections = page["connections"].as_array().unwrap();
    connections.iter().map(|connection| connection["channel"].clone()).collect()
}

/// It is dialled again where nothing listens.
#[test]
fn a_control_channel_that_is_away_is_shown() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let metrics = format!("unix:{}", path.display());
    let pair = Pair::with(
        4096,
        &[
            ("FLAGCX_P2P_METRICS", &metrics),
            ("FLAGCX_P2P_CONTROL_REDIAL", "60000"),
            ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", "127.0.0.9"),
        ],
    );
    eventually("this end knows where to dial", || pair.here.channel_record().is_resumable());
    let is_there = json!({"lost": 0, "resumed": 0, "away_seconds": null});
    assert_eq!(channels(&path), [is_there.clone(), is_there]);
    pair.here.break_channel();
    let are_away = |channels: &[Value]| channels.iter().all(|channel| channel["away_seconds"].is_f64());
    eventually("both ends say that it is away", || are_away(&channels(&path)));
    let first = channels(&path);
    let second = channels(&path);
    for (first, second) in first.iter().zip(&second) {
        assert_eq!((&first["lost"], &first["resumed"]), (&json!(1), &json!(0)));
        assert!(first["away_seconds"].as_f64() < second["away_seconds"].as_f64(), "{first} {second}");
    }
    assert!(pair.here.is_usable() && pair.there.is_usable());
}

#[test]
fn ipv6() {
    let _turn = turn();
    let Ok(free) = TcpListener::bind("[::1]:0").and_then(|socket| socket.local_addr()) else {
        return println!("not run: this host has no IPv6");
    };
    let _engine = engine(&[("FLAGCX_P2P_METRICS", &free.to_string())]);
    let stream = TcpStream::connect(free).unwrap();
    assert!(exchange(stream, "/healthz").contains("200 OK"));
}

/// Engines that open, connect, move bytes and close, while their process is scraped without pause.
#[test]
fn engines_come_and_go_while_they_are_scraped() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let value = format!("unix:{}", path.display());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let scrape = |page| {
            let (path, is_over) = (&path, &is_over);
            scope.spawn(move || {
                let mut whole = 0;
                while !is_over.load(Ordering::Relaxed) {
                    match UnixStream::connect(path) {
                        Ok(stream) => {
                            stream.set_read_timeout(Some(LIMIT)).unwrap();
                            whole += u32::from(exchange(stream, page).contains("200 OK"));
                        }
                        // Closed just now.
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
                whole
            })
        };
        let scrapers = [scrape("/metrics"), scrape("/snapshot"), scrape("/healthz")];
        let begun = Instant::now();
        for _ in 0..15 {
            let pair = Pair::with(64 << 10, &[("FLAGCX_P2P_METRICS", &value)]);
            let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, 64 << 10)]).unwrap();
            assert_eq!(outcome(&pair.here, id), Outcome::Done);
        }
        println!("15 pairs in {:?}", begun.elapsed());
        is_over.store(true, Ordering::Relaxed);
        let whole = scrapers.map(|scraper| scraper.join().unwrap());
        println!("pages: {whole:?}");
        assert!(whole.iter().all(|pages| *pages > 0), "{whole:?}");
    });
    assert!(!path.exists());
}
