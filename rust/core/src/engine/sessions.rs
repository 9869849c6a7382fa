//! Cached connections by session string, each behind a circuit breaker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::breaker::{Breaker, Open};
use super::{Engine, EngineError};
use crate::connection::Connection;
use crate::control::split_session;

/// Peers that are remembered at most. Connected ones are always; of the others the one that failed longest ago goes.
const MAX_REMEMBERED: usize = 1024;

/// Connections by session string.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    peers: Mutex<HashMap<String, Session>>,
}

/// What is known of one peer.
#[derive(Debug, Default)]
struct Session {
    connection: Option<Arc<Connection>>,
    /// The peer's incarnation when it was last connected, 0 if it told none: another one now is another process.
    incarnation: u64,
    breaker: Breaker,
}

impl Sessions {
    pub(super) fn clear(&self) {
        // Connections are closed by their drop, which must not happen under the lock.
        let peers = std::mem::take(&mut *self.lock());
        drop(peers);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cached connection, if it is good.
    fn find(&self, session: &str) -> Option<Arc<Connection>> {
        let peers = self.lock();
        let cached = peers.get(session)?.connection.as_ref();
        cached.filter(|connection| connection.is_usable()).cloned()
    }

    /// The cached connection if it is good; else says whether the caller may connect now.
    fn enter(&self, session: &str) -> Result<Option<Arc<Connection>>, Open> {
        let mut peers = self.lock();
        if peers.len() >= MAX_REMEMBERED && !peers.contains_key(session) {
            forget_one(&mut peers);
        }
        let peer = peers.entry(session.to_owned()).or_default();
        if let Some(connection) = peer.connection.as_ref().filter(|connection| connection.is_usable()) {
            return Ok(Some(Arc::clone(connection)));
        }
        let dead = peer.connection.take();
        let admitted = peer.breaker.admit(Instant::now());
        drop(peers);
        if dead.is_some() {
            tracing::info!(session, "the cached connection is dead, connecting anew");
        }
        admitted.map(|()| None)
    }

    /// Keeps a new connection, unless another thread was faster: then answers that one's.
    fn keep(&self, session: &str, connection: Arc<Connection>) -> Arc<Connection> {
        let mut peers = self.lock();
        let peer = peers.entry(session.to_owned()).or_default();
        peer.breaker.succeeded();
        if let Some(cached) = peer.connection.as_ref().filter(|cached| cached.is_usable()) {
            let cached = Arc::clone(cached);
            drop(peers);
            return cached;
        }
        let incarnation = connection.peer().incarnation;
        if peer.incarnation != 0 && peer.incarnation != incarnation {
            tracing::warn!(
                session,
                "the peer has been restarted: descriptors of its former memory are void, ask it for new ones"
            );
        }
        peer.incarnation = incarnation;
        let dead = peer.connection.replace(Arc::clone(&connection));
        drop(peers);
        drop(dead);
        connection
    }

    fn failed(&self, session: &str, reason: &str) {
        if let Some(peer) = self.lock().get_mut(session) {
            peer.breaker.failed(Instant::now(), reason);
        }
    }
}

impl Engine {
    /// The connection to the peer at `host:port` (or `[v6]:port`): connects at the first call, and again when the
    /// connection has ended.
    ///
    /// Two threads that ask for a new session at the same time get the same connection. After a connect that failed, calls
    /// for the same peer fail at once for 100 ms, and for twice as long after each further failure, up to 5 s; then one
    /// caller tries again. Other peers are not concerned.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when `session` is not written as `host:port`, and those of [`Engine::connect`].
    pub fn session(self: &Arc<Self>, session: &str) -> Result<Arc<Connection>, EngineError> {
        self.require_open("connect to a peer")?;
        let (host, port) = split_session(session).map_err(|error| EngineError::Invalid(error.to_string()))?;
        if let Some(connection) = self.sessions.enter(session).map_err(|open| refused(session, &open))? {
            return Ok(connection);
        }
        match self.connect(host, port, -1, false) {
            Ok(connection) => Ok(self.sessions.keep(session, connection)),
            Err(error) => {
                self.sessions.failed(session, &error.to_string());
                Err(error)
            }
        }
    }

    /// What [`Engine::session`] would answer without connecting.
    #[doc(hidden)]
    pub fn cached_session(&self, session: &str) -> Option<Arc<Connection>> {
        self.here().ok()?;
        self.sessions.find(session)
    }
}

fn refused(session: &str, open: &Open) -> EngineError {
    let Open { failures, retry_in, last } = open;
    let next = match retry_in.as_millis() {
        0 => "another caller is trying now".to_owned(),
        wait => format!("next try in {wait} ms"),
    };
    EngineError::Peer {
        operation: "connect to",
        peer: session.to_owned(),
        reason: format!("not tried: {failures} connects in a row have failed, {next}; the last one: {last}"),
    }
}

/// Makes room: of the peers without connection, drops the one with the breaker that opened first.
fn forget_one(peers: &mut HashMap<String, Session>) {
    let oldest = peers
        .iter()
        .filter(|(_, peer)| peer.connection.is_none())
        .min_by_key(|(_, peer)| peer.breaker.open_until())
        .map(|(session, _)| session.clone());
    if let Some(session) = oldest {
        peers.remove(&session);
    }
}
