//! Notifications that a call sends itself, which a signal such as that of Ctrl-C ends.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flagcx_p2p::{Connection, NotifyError};
use pyo3::prelude::*;

use crate::errors::refused;
use crate::note::Note;
use crate::waiting::{TURN, on_thread};

/// How long a peer may be unready.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a wait for it sleeps before it looks again.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends it as a whole, once. An exception that ends the wait for the peer leaves it unsent; only one of some KB, which is being sent
/// already, is sent to its end: by a thread of its own.
pub(crate) fn send(py: Python<'_>, connection: &Arc<Connection>, note: Note) -> PyResult<()> {
    let Note { name, content } = &note;
    let begun = Instant::now();
    loop {
        match py.detach(|| connection.try_send_notification(name, content)) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(error) => return Err(refused(error)),
        }
        // What is short finds the channel busy: with another thread's message.
        if !note.is_short() && connection.can_notify() {
            return send_on_thread(py, connection, note)?.map(drop).map_err(refused);
        }
        if begun.elapsed() >= LIMIT {
            let (peer, seconds) = (connection.peer().control, LIMIT.as_secs());
            return Err(refused(format!(
                "cannot send a notification to {peer}: it has taken none for {seconds} s. Is it stopped, or does it not call \
                 notifications()? Nothing was sent"
            )));
        }
        py.check_signals()?;
        py.detach(|| wait_for_room(connection));
    }
}

/// Until the peer is ready, for a turn at most.
fn wait_for_room(connection: &Connection) {
    let turn = Instant::now() + TURN;
    loop {
        sleep(PAUSE);
        if connection.can_notify() || Instant::now() >= turn {
            return;
        }
    }
}

fn send_on_thread(
    py: Python<'_>,
    connection: &Arc<Connection>,
    note: Note,
) -> PyResult<Result<usize, NotifyError>> {
    let connection = Arc::clone(connection);
    on_thread(py, "p2p-send", move || connection.send_notification_bytes(&note.name, &note.content))
}
