//! What the engine logs: one line at INFO for each connection made and ended, each recovery and each failure, and a span at
//! TRACE for each transfer.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod captured_log;
mod support;

use std::time::Duration;

use captured_log::{Captured, Line, SpanFields};
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::observe::{Event, EventKind, event_log};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, SubmitError, TransferId};
use support::{Pair, eventually, has_faults, outcome};
use tracing::Level;

/// A transfer of this many bytes is not copied by the call itself.
const LONG: u64 = 1 << 20;

/// What names the connection in the lines and spans of its end.
fn peer(connection: &Connection) -> String {
    connection.peer().control.to_string()
}

fn lines_of(log: &Captured, connection: &Connection, message: &str) -> Vec<Line> {
    let peer = peer(connection);
    let of_it = |line: &Line| {
        line.fields.get("peer") == Some(&peer) && line.message.contains(message) && line.level <= Level::INFO
    };
    log.lines().into_iter().filter(of_it).collect()
}

fn spans_of(log: &Captured, connection: &Connection) -> Vec<SpanFields> {
    let peer = peer(connection);
    let of_it = |span: &SpanFields| span.get("peer") == Some(&peer);
    log.ended_spans("transfer").into_iter().filter(of_it).collect()
}

#[test]
fn a_connection_has_one_line_when_it_is_made_one_when_it_ends_and_none_for_transfers() {
    let (_alone, log) = Captured::alone();
    let pair = Pair::new(2 << 20);
    for (connection, role) in [(&pair.here, "connects"), (&pair.there, "accepts")] {
        let made = lines_of(log, connection, "connected");
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(made[0].level, Level::INFO);
        let field = |name: &str| made[0].fields[name].clone();
        assert_eq!(field("role"), role);
        assert_eq!(field("path"), connection.info().paths.to_string());
        assert_eq!(field("lanes"), connection.info().lanes.to_string());
        assert!(!field("device").is_empty());
        assert!(field("ms").parse::<u64>().unwrap() < 10_000);
    }
    let before = log.at_least(Level::INFO).len();
    for _ in 0..20 {
        let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LONG)]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
    }
    assert_eq!(log.at_least(Level::INFO).len(), before, "{:?}", log.at_least(Level::INFO));

    pair.there.close();
    eventually("the other end notices", || !lines_of(log, &pair.here, "connection ended").is_empty());
    let (here, there) = (pair.here.clone(), pair.there.clone());
    drop(pair);
    for (connection, reason) in
        [(&here, "the peer has closed the connection"), (&there, "the connection was closed")]
    {
        let ended = lines_of(log, connection, "connection ended");
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert!(ended[0].message.contains(reason), "{ended:?}");
        assert_eq!(ended[0].level, Level::INFO);
    }
}

/// Its transfers in flight fail, and its line says so; it is not lost.
#[test]
fn a_peer_that_closes_while_transfers_are_in_flight_has_ended_the_connection() {
    if !has_faults() {
        return;
    }
    let (_alone, log) = Captured::alone();
    for close in ["the connection", "the engine"] {
        let late = [("FLAGCX_P2P_FAULTS", "seed=1;delay=us:300000"), ("FLAGCX_P2P_PATH", "tcp")];
        let pair = Pair::with(2 << 20, &late);
        let iov = pair.iov(0, 0, LONG);
        let Pair { client, server, here, there, source, target } = pair;
        let ids: Vec<_> = (0..4).map(|_| here.submit(Opcode::Write, &[iov]).unwrap()).collect();
        if close == "the connection" {
            there.close();
        } else {
            drop((there, target, server));
        }
        let failed = ids.iter().filter(|id| matches!(outcome(&here, **id), Outcome::Failed(_))).count();
        assert!(failed > 0, "{close}: nothing was in flight");
        eventually("the end is told", || !lines_of(log, &here, "connection ").is_empty());
        let peer = peer(&here);
        let is_end = |event: &Event| {
            event.peer.as_ref() == Some(&peer)
                && matches!(event.kind, EventKind::ConnectionEnded | EventKind::ConnectionLost)
        };
        let ends: Vec<_> = event_log().recent().into_iter().filter(is_end).collect();
        assert!(matches!(&ends[..], [end] if end.kind == EventKind::ConnectionEnded), "{close}: {ends:?}");
        assert!(ends[0].text.contains("the peer has closed the connection, with "), "{close}: {ends:?}");
        assert!(ends[0].text.ends_with("of this side in flight, which fail"), "{close}: {ends:?}");
        drop((client, source));
    }
}

#[test]
fn a_recovery_has_one_line_at_each_end() {
    if !has_faults() {
        return;
    }
    let (_alone, log) = Captured::alone();
    // Of each queue pair the second request fails; there is one after that, on the new one.
    let faults = [("FLAGCX_P2P_FAULTS", "seed=3;fail=at:2:retry-exceeded"), ("FLAGCX_P2P_QPS_PER_CONN", "1")];
    let pair = Pair::with(2 << 20, &faults);
    for _ in 0..2 {
        let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, LONG)]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done, "an interruption is no failure");
    }
    for connection in [&pair.here, &pair.there] {
        eventually("its line is there", || !lines_of(log, connection, "lane").is_empty());
    }
    for connection in [&pair.here, &pair.there] {
        let lines = lines_of(log, connection, "lane");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].level, Level::INFO);
        let text = lines[0].message.strip_prefix("lane 0 is rebuilt, ").unwrap();
        let (ms, cause) = text.split_once(" ms after it failed: ").unwrap();
        assert!(ms.parse::<u64>().unwrap() < 10_000 && !cause.is_empty(), "{lines:?}");
    }
}

#[test]
fn a_failure_has_one_line_with_transfer_peer_and_reason() {
    let (_alone, log) = Captured::alone();
    let pair = Pair::new(2 << 20);
    let good = pair.iov(0, 0, LONG);
    let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
    let id = pair.here.submit(Opcode::Write, &[wrong]).unwrap();
    assert!(matches!(outcome(&pair.here, id), Outcome::Failed(_)));
    let lines = lines_of(log, &pair.here, &format!("transfer {} failed: ", id.0));
    assert_eq!(lines.len(), 1, "{:?}", log.at_least(Level::WARN));
    assert_eq!(lines[0].level, Level::WARN);
    assert!(lines[0].message.contains("remote access"), "{lines:?}");
}

#[test]
fn a_transfer_has_one_span_with_what_was_asked_how_it_ended_and_how_long_it_took() {
    let (_alone, log) = Captured::alone();
    let pair = Pair::new(2 << 20);
    let good = pair.iov(0, 0, LONG);
    let id = pair.here.submit(Opcode::Write, &[good, pair.iov(0, 0, 100)]).unwrap();
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    eventually("its span has ended", || spans_of(log, &pair.here).len() == 1);
    let span = &spans_of(log, &pair.here)[0];
    let expected = [
        ("id", id.0.to_string()),
        ("opcode", "Write".to_owned()),
        ("path", pair.here.info().paths.to_string()),
        ("bytes", (LONG + 100).to_string()),
        ("iovs", "2".to_owned()),
        ("outcome", "done".to_owned()),
    ];
    for (field, value) in expected {
        assert_eq!(span[field], value, "{field} of {span:?}");
    }
    let number = |name: &str| span[name].parse::<u64>().unwrap();
    assert!(number("lanes") >= 1 && number("submit_us") <= number("total_us"), "{span:?}");
    let lines = log.lines();
    assert!(lines.iter().any(|line| line.message == "transfer ended" && line.level == Level::TRACE));

    // The failed, the refused, and on a host without a NIC the one that the call itself copies.
    let wrong = Iov { remote: RemoteRange { rkey: 0x00ab_cdef, ..good.remote }, ..good };
    let failed = pair.here.submit(Opcode::Write, &[wrong]).unwrap();
    assert!(matches!(outcome(&pair.here, failed), Outcome::Failed(_)));
    let unregistered = Iov { local: 4096, region: None, ..good };
    assert!(matches!(pair.here.submit(Opcode::Read, &[unregistered]), Err(SubmitError::Local { .. })));
    let small = pair.here.submit(Opcode::Read, &[pair.iov(0, 0, 64)]).unwrap();
    assert_eq!(outcome(&pair.here, small), Outcome::Done);
    eventually("their spans have ended", || spans_of(log, &pair.here).len() == 4);
    let spans = spans_of(log, &pair.here);
    let with = |outcome: &str| spans.iter().filter(|span| span["outcome"].starts_with(outcome)).count();
    assert_eq!((with("done"), with("failed"), with("refused: piece 0: local range")), (2, 1, 1), "{spans:?}");
    assert!(spans.iter().any(|span| span["bytes"] == "64" && span.get("id") == Some(&small.0.to_string())));
}

/// Futures and queues set notices of their own for the end of the transfer.
#[test]
fn the_span_of_a_future_and_of_a_queued_transfer_ends_too() {
    let (_alone, log) = Captured::alone();
    let pair = Pair::new(2 << 20);
    let iovs = [pair.iov(0, 0, LONG)];
    let transfer = pair.here.transfer(Opcode::Write, &iovs).unwrap();
    assert_eq!(futures_lite::future::block_on(transfer), Outcome::Done);
    drop(pair.here.transfer(Opcode::Write, &iovs).unwrap());
    let (queue, mut taken) = (pair.client.ended().unwrap(), Vec::new());
    pair.here.try_submit_to(&queue, Opcode::Read, &iovs).unwrap();
    eventually("it is in the queue", || queue.take_ended(&mut taken) + taken.len() > 0);
    eventually("all have ended", || spans_of(log, &pair.here).len() == 3);
    std::thread::sleep(Duration::from_millis(1));
    let spans = spans_of(log, &pair.here);
    assert!(spans.len() == 3 && spans.iter().all(|span| span["outcome"] == "done"), "{spans:?}");
    assert!(spans.iter().all(|span| span["id"] != TransferId::COMPLETE.0.to_string()));
}

#[test]
fn a_connection_that_was_made_without_trace_has_no_spans() {
    let (_alone, log) = Captured::alone();
    let silent = tracing::subscriber::NoSubscriber::default();
    let pair = tracing::subscriber::with_default(silent, || Pair::new(2 << 20));
    for length in [64, LONG] {
        let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, length)]).unwrap();
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
    }
    assert_eq!(spans_of(log, &pair.here), []);
}
