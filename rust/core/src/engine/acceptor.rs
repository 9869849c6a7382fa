//! Accepting peers: one thread waits for sockets, each handshake runs on a short-lived thread of its own, so that a
//! silent client delays nobody.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Accepted, Engine, EngineError};
use crate::connection::Connection;
use crate::control::{Abort, Listener, Stream};

/// Handshakes at one time: bounds what a flood of half-open clients can cost.
const MAX_HANDSHAKES: usize = 64;

/// The control listener and what came of it.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// Shared with the accepting thread; `None` once stopped, so that the port is free when `stop` returns.
    listener: Mutex<Option<Arc<Listener>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    abort: Abort,
    local: SocketAddr,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    stopped: bool,
    /// The thread that waits for sockets runs.
    running: bool,
    /// Accept in the background and keep the connections.
    serving: bool,
    /// Callers in `accept`.
    waiting: usize,
    /// Handshakes under way.
    handshakes: usize,
    /// For callers of `accept`.
    ready: VecDeque<Result<Accepted, EngineError>>,
    /// Kept by the server.
    kept: Vec<Arc<Connection>>,
}

impl Inbox {
    /// Whether another peer is wanted now: a socket is only taken while somebody waits, but then every one, because
    /// the first may be a silent client's.
    fn wants_peer(&self) -> bool {
        let wanted = self.serving || self.waiting > self.ready.len();
        wanted && self.handshakes < MAX_HANDSHAKES
    }
}

impl Acceptor {
    pub(super) fn new(listener: Listener, abort: Abort) -> Self {
        let local = listener.local();
        Self {
            listener: Mutex::new(Some(Arc::new(listener))),
            thread: Mutex::default(),
            abort,
            local,
            inbox: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    pub(super) fn stop(&self) {
        self.abort.abort();
        self.lock().stopped = true;
        self.changed.notify_all();
        drop(lock(&self.listener).take());
        let thread = lock(&self.thread).take();
        // The accepting thread itself may drop the engine's last reference.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
        // Kept connections are the engine's to close; StopAccept alone leaves them working.
    }

    /// Takes out what the server kept.
    pub(super) fn take_kept(&self) -> Vec<Arc<Connection>> {
        std::mem::take(&mut self.lock().kept)
    }

    /// Waits until somebody wants a peer; false when accepting is over.
    fn wait_for_demand(&self) -> bool {
        let mut inbox = self.lock();
        while !inbox.stopped && !inbox.wants_peer() {
            inbox = self.wait(inbox);
        }
        !inbox.stopped
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>) -> MutexGuard<'a, Inbox> {
        self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Waits for one peer. Ends with an error when a peer's handshake failed, or after [`Engine::stop_accept`].
    pub fn accept(self: &Arc<Self>) -> Result<Accepted, EngineError> {
        self.context()?;
        let acceptor = self.acceptor()?;
        let mut inbox = acceptor.lock();
        self.start_listening(&mut inbox)?;
        inbox.waiting += 1;
        acceptor.changed.notify_all();
        let outcome = loop {
            if let Some(outcome) = inbox.ready.pop_front() {
                break outcome;
            }
            if inbox.stopped {
                break Err(stopped());
            }
            inbox = acceptor.wait(inbox);
        };
        inbox.waiting -= 1;
        outcome
    }

    /// Ends waiting and future accepts for good; connections and notifications go on. Idempotent.
    pub fn stop_accept(&self) {
        if let Some(acceptor) = &self.acceptor {
            acceptor.stop();
        }
    }

    /// Accepts in the background and keeps the connections until the engine closes. Idempotent.
    pub fn start_rpc_server(self: &Arc<Self>) -> Result<(), EngineError> {
        let Some(acceptor) = &self.acceptor else { return Ok(()) };
        if self.context.is_err() {
            // As in the original: without a device there is nothing to serve, and that is no error.
            return Ok(());
        }
        let mut inbox = acceptor.lock();
        if inbox.stopped {
            return Ok(());
        }
        inbox.serving = true;
        self.start_listening(&mut inbox)?;
        acceptor.changed.notify_all();
        Ok(())
    }

    fn acceptor(&self) -> Result<&Arc<Acceptor>, EngineError> {
        self.acceptor
            .as_ref()
            .ok_or_else(|| EngineError::Unavailable("this engine has no control listener".to_owned()))
    }

    fn start_listening(self: &Arc<Self>, inbox: &mut Inbox) -> Result<(), EngineError> {
        if inbox.stopped {
            return Err(stopped());
        }
        if !inbox.running {
            let (acceptor, engine) = (Arc::clone(self.acceptor()?), Arc::downgrade(self));
            let Some(listener) = lock(&acceptor.listener).clone() else { return Err(stopped()) };
            let thread = spawn("p2p-accept", move || listen(&acceptor, &listener, &engine))?;
            *lock(&self.acceptor()?.thread) = Some(thread);
            inbox.running = true;
        }
        Ok(())
    }

    fn handshake(self: &Arc<Self>, stream: Stream) {
        let Some(acceptor) = &self.acceptor else { return };
        let outcome = self.welcome(stream);
        let mut inbox = acceptor.lock();
        inbox.handshakes -= 1;
        match outcome {
            Ok(None) => {}
            Ok(Some(accepted)) if inbox.serving => {
                inbox.kept.retain(|connection| connection.is_usable());
                inbox.kept.push(accepted.connection);
            }
            Ok(Some(accepted)) => inbox.ready.push_back(Ok(accepted)),
            Err(error) => {
                tracing::warn!("{error}");
                if !inbox.serving {
                    inbox.ready.push_back(Err(error));
                }
            }
        }
        drop(inbox);
        acceptor.changed.notify_all();
    }
}

/// The accepting thread. It does not keep the engine alive.
fn listen(acceptor: &Acceptor, listener: &Listener, engine: &Weak<Engine>) {
    while acceptor.wait_for_demand() {
        let stream = match listener.accept_by(None) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => return,
            Err(error) => {
                tracing::warn!("accepting a socket failed: {error}");
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        let Some(engine) = engine.upgrade() else { return };
        acceptor.lock().handshakes += 1;
        if let Err(error) = spawn("p2p-handshake", move || engine.handshake(stream)) {
            tracing::warn!("a peer was turned away: {error}");
            acceptor.lock().handshakes -= 1;
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, EngineError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| EngineError::Unavailable(format!("cannot start a thread: {error}")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stopped() -> EngineError {
    EngineError::Unavailable("this engine has stopped accepting".to_owned())
}
