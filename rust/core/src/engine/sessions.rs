//! Cached connections by session string.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Engine, EngineError};
use crate::connection::Connection;
use crate::control::split_session;

/// Connections by session string.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    connections: Mutex<HashMap<String, Arc<Connection>>>,
}

impl Sessions {
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Connection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// The cached connection of `host:port` (or `[v6]:port`), connecting at the first call and again when the cached
    /// one is dead. Two threads that race for a new session get the same connection.
    pub fn session(self: &Arc<Self>, session: &str) -> Result<Arc<Connection>, EngineError> {
        let (host, port) = split_session(session).map_err(|error| EngineError::Invalid(error.to_string()))?;
        if let Some(connection) = self.cached(session) {
            return Ok(connection);
        }
        let connection = self.connect(host, port, -1, false)?;
        let mut sessions = self.sessions.lock();
        match sessions.get(session).filter(|cached| cached.is_usable()) {
            // Another thread was faster; ours is closed by its drop.
            Some(cached) => Ok(Arc::clone(cached)),
            None => {
                sessions.insert(session.to_owned(), Arc::clone(&connection));
                Ok(connection)
            }
        }
    }

    fn cached(&self, session: &str) -> Option<Arc<Connection>> {
        let mut sessions = self.sessions.lock();
        match sessions.get(session) {
            Some(connection) if connection.is_usable() => Some(Arc::clone(connection)),
            Some(_) => {
                tracing::info!(session, "the cached connection is dead, connecting anew");
                sessions.remove(session);
                None
            }
            None => None,
        }
    }
}
