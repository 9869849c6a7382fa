//! Connecting, which a signal such as that of Ctrl-C ends.

use std::sync::Arc;

use flagcx_p2p::{Connection, Engine, EngineError};
use pyo3::prelude::*;

use crate::waiting::on_thread;

/// [`Engine::session`]: on a thread of its own where it connects, because that cannot be interrupted. One that an exception leaves goes
/// on until its deadline, or until the engine is closed; the next call finds its connection.
pub(crate) fn connect(
    py: Python<'_>,
    engine: &Arc<Engine>,
    session: &str,
) -> PyResult<Result<Arc<Connection>, EngineError>> {
    if let Some(connection) = py.detach(|| engine.cached_session(session)) {
        return Ok(Ok(connection));
    }
    let (engine, session) = (Arc::clone(engine), session.to_owned());
    on_thread(py, "p2p-connect", move || engine.session(&session))
}
