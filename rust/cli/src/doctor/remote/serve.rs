//! A `flagcx-p2p serve` at the other end.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::super::finding::Report;
use super::engine;
use super::identify::{self, Listener};
use super::reach::Reached;
use crate::client::Client;
use crate::ring::Shape;
use crate::settings;

/// The least ring that a server gives.
const SHAPE: Shape = Shape { chunk: 4096, slots: 1 };

/// Opens a session as `put` and `get` do, and reports its engine. The steps of a session have limits of their own, which may
/// be longer than what is left: they run in a thread that is left behind then.
pub(super) fn connect(reached: &Reached, deadline: Instant, report: &mut Report) {
    let left = deadline.saturating_duration_since(Instant::now());
    let (sender, receiver) = mpsc::channel();
    let of_thread = reached.clone();
    let started = thread::Builder::new().name("session".into()).spawn(move || {
        let mut found = Report::default();
        session(&of_thread, deadline, &mut found);
        // The receiver has given up: nothing is to be told.
        let _ = sender.send(found);
    });
    match started.map(|_| receiver.recv_timeout(left.max(Duration::from_millis(10)))) {
        Ok(Ok(found)) => report.append(found),
        Ok(Err(_)) => report.fail(
            "session",
            "session",
            format!("not opened within {:.1} s", left.as_secs_f64()),
            "--timeout S waits longer; is the server's process stopped?",
        ),
        Err(error) => report.fail(
            "session",
            "session",
            format!("cannot start a thread: {error}"),
            "raise the limit of processes",
        ),
    }
}

fn session(reached: &Reached, deadline: Instant, report: &mut Report) {
    let started = Instant::now();
    let client = match Client::connect(&reached.name, SHAPE) {
        Ok(client) => client,
        Err(error) => {
            return report.fail(
                "session",
                "session",
                error.to_string(),
                "flagcx-p2p doctor at the server's host, and its log",
            );
        }
    };
    report.ok("session", "session", format!("opened in {} ms", started.elapsed().as_millis()));
    let key =
        settings::config(None).and_then(|config| settings::auth_key(&config)).is_ok_and(|key| key.is_some());
    report.ok("key", "key", if key { "ours was accepted" } else { "none at either end" });
    let connection = client.connection();
    if !key && let Ok(Listener::Engine(told)) = identify::listener(connection.peer().control, key, deadline) {
        report.ok("engine", connection.peer().control.to_string(), "the engine of the server");
        engine::told_of_engine(&told, reached.peer.ip(), report);
    }
    engine::path(connection, reached.peer.ip(), report);
}
