//! Connecting, which a signal such as that of Ctrl-C ends.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;

use flagcx_p2p::{Connection, Engine, EngineError};
use pyo3::prelude::*;

use crate::errors::refused;
use crate::waiting::TURN;

/// [`Engine::session`] on a thread of its own, because it cannot be interrupted. One that an exception leaves goes on until its
/// deadline, or until the engine is closed; the next call finds its connection.
pub(crate) fn connect(
    py: Python<'_>,
    engine: &Arc<Engine>,
    session: &str,
) -> PyResult<Result<Arc<Connection>, EngineError>> {
    let (sender, mut connected) = sync_channel(1);
    let (engine, session) = (Arc::clone(engine), session.to_owned());
    let work = move || {
        // No caller waits for it any more after an exception.
        let _ = sender.send(engine.session(&session));
    };
    thread::Builder::new()
        .name("p2p-connect".to_owned())
        .spawn(work)
        .map_err(|error| refused(format!("cannot start a thread that connects: {error}; see `ulimit -u`")))?;
    loop {
        // The one reference to it, which may go to where the lock is not held.
        let waited = &mut connected;
        match py.detach(move || waited.recv_timeout(TURN)) {
            Ok(connected) => return Ok(connected),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(refused("internal error: the thread that connects has ended"));
            }
        }
    }
}
