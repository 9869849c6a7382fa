//! Accepting peers: one task of the event loop waits for sockets, and each handshake is a task of its own, so that a
//! silent client delays no other.

use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use scopeguard::ScopeGuard;

use super::{Accepted, Engine, EngineError};
use crate::admission;
use crate::connection::{Connection, LaneBuilder};
use crate::control::{Abort, Listener, Peer, Stream};
use crate::events::{EventLoop, EventLoopHandle, Interest, Task, Waiter, Wakeup, first, off_loop};
use crate::memory::Cursor;
use crate::observe::report;

/// The control listener and what came of it.
#[derive(Debug)]
pub(super) struct Acceptor {
    /// Shared with the accepting task; `None` once stopped, so that the port is free when `stop` returns.
    listener: Mutex<Option<Arc<Listener>>>,
    accepting: Mutex<Option<(Task, Arc<EventLoop>)>>,
    /// Under way, or ended since another one began. Here, so that stopping waits for them.
    handshakes: Mutex<Vec<Task>>,
    /// Wakes the accepting task: another peer may be wanted.
    demand: Arc<Wakeup>,
    abort: Abort,
    local: SocketAddr,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inbox {
    stopped: bool,
    /// The task that waits for sockets runs.
    running: bool,
    /// Accept in the background and keep the connections.
    serving: bool,
    /// Callers in `accept`.
    waiting: usize,
    /// For callers of `accept`.
    ready: VecDeque<Result<Accepted, EngineError>>,
    /// Kept by the server.
    kept: Vec<Arc<Connection>>,
}

impl Inbox {
    /// Whether another peer is wanted now: a socket is only taken while a caller waits, but then every one, because
    /// the first may be a silent client's. How many handshakes there may be at one time is a matter of [`admission`].
    fn wants_peer(&self) -> bool {
        self.serving || self.waiting > self.ready.len()
    }
}

impl Acceptor {
    pub(super) fn new(listener: Listener, abort: Abort) -> Self {
        let local = listener.local();
        Self {
            listener: Mutex::new(Some(Arc::new(listener))),
            accepting: Mutex::default(),
            handshakes: Mutex::default(),
            demand: Arc::default(),
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
        let accepting = lock(&self.accepting).take();
        drop(accepting);
        let handshakes = std::mem::take(&mut *lock(&self.handshakes));
        drop(handshakes);
        // Kept connections are the engine's to close; StopAccept alone leaves them working.
    }

    /// Takes out what the server kept.
    pub(super) fn take_kept(&self) -> Vec<Arc<Connection>> {
        std::mem::take(&mut self.lock().kept)
    }

    /// Takes out those that have ended: a peer that hangs up leaves no descriptors behind.
    fn take_ended(&self) -> Vec<Arc<Connection>> {
        let mut inbox = self.lock();
        let kept = std::mem::take(&mut inbox.kept);
        let (usable, ended) = kept.into_iter().partition(|connection| connection.is_usable());
        inbox.kept = usable;
        ended
    }

    /// Waits until another peer is wanted.
    async fn wait_for_demand(&self) {
        while !self.lock().wants_peer() {
            self.demand.wait().await;
        }
    }

    /// Tells accepting callers and the accepting task that something has changed.
    fn notify(&self) {
        self.changed.notify_all();
        self.demand.wake();
    }

    /// The end of a handshake.
    fn deliver(&self, outcome: Result<Option<Accepted>, EngineError>) {
        let mut inbox = self.lock();
        match outcome {
            Ok(None) => {}
            Ok(Some(accepted)) if inbox.serving => {
                inbox.kept.push(accepted.connection);
            }
            Ok(Some(accepted)) => inbox.ready.push_back(Ok(accepted)),
            Err(error) => {
                if let EngineError::Peer { peer, .. } = &error {
                    report!(warn, ClientRefused, peer = peer, "{error}");
                } else {
                    report!(warn, ClientRefused, "{error}");
                }
                if !inbox.serving {
                    inbox.ready.push_back(Err(error));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn wait<'a>(&self, inbox: MutexGuard<'a, Inbox>) -> MutexGuard<'a, Inbox> {
        self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Waits for one peer to connect, for as long as it takes.
    ///
    /// Several threads may wait; each gets another peer. A client that is silent or no peer delays none of them.
    ///
    /// # Errors
    /// [`EngineError::Peer`] when a peer's handshake failed: others may still come. [`EngineError::Unavailable`] after
    /// [`Engine::stop_accept`] and [`Engine::close`], and for an engine without a device or a control listener.
    pub fn accept(self: &Arc<Self>) -> Result<Accepted, EngineError> {
        self.chosen()?;
        let acceptor = self.acceptor()?;
        let mut inbox = acceptor.lock();
        self.start_listening(&mut inbox)?;
        inbox.waiting += 1;
        acceptor.notify();
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

    /// Accepts no peers any more: calls that wait in [`Engine::accept`] end, the port is free when this returns.
    ///
    /// Connections and notifications go on. It cannot be undone; a second call does nothing.
    pub fn stop_accept(&self) {
        if let Ok(acceptor) = self.acceptor() {
            acceptor.stop();
        }
    }

    /// Accepts peers in the background, and keeps their connections until they end or the engine closes.
    ///
    /// Returns at once; a second call does nothing. An engine without a device or a control listener serves nothing, and that
    /// is no error.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the event loop cannot be started, [`EngineError::Closed`] once the engine is closed,
    /// [`EngineError::Forked`] in a forked child.
    pub fn start_rpc_server(self: &Arc<Self>) -> Result<(), EngineError> {
        self.require_open("accept peers")?;
        let Ok(acceptor) = &self.acceptor else { return Ok(()) };
        if self.nic.chosen().is_err() {
            // As in the original: without a device there is nothing to serve, and that is no error.
            return Ok(());
        }
        let mut inbox = acceptor.lock();
        if inbox.stopped {
            return Ok(());
        }
        inbox.serving = true;
        self.start_listening(&mut inbox)?;
        acceptor.notify();
        Ok(())
    }

    pub(super) fn acceptor(&self) -> Result<&Arc<Acceptor>, EngineError> {
        self.here()?;
        self.acceptor
            .as_ref()
            .map_err(|reason| EngineError::Unavailable(format!("this engine cannot be reached: {reason}")))
    }

    fn start_listening(self: &Arc<Self>, inbox: &mut Inbox) -> Result<(), EngineError> {
        if inbox.stopped {
            return Err(stopped());
        }
        if !inbox.running {
            let (acceptor, engine) = (Arc::clone(self.acceptor()?), Arc::downgrade(self));
            let Some(listener) = lock(&acceptor.listener).clone() else { return Err(stopped()) };
            let events = EventLoop::acquire()
                .map_err(|error| EngineError::Unavailable(format!("cannot start the event loop: {error}")))?;
            let task = events.spawn(move |handle| listen(acceptor, listener, engine, handle.clone()));
            *lock(&self.acceptor()?.accepting) = Some((task, events));
            inbox.running = true;
        }
        Ok(())
    }
}

/// Clients accepted before others on the loop have their turn, the handshakes of those clients among them.
const ACCEPTED_PER_TURN: usize = 32;

/// The accepting task. It does not keep the engine alive.
async fn listen(
    acceptor: Arc<Acceptor>,
    listener: Arc<Listener>,
    engine: Weak<Engine>,
    handle: EventLoopHandle,
) {
    let mut watched = match handle.watch(Arc::clone(&listener)) {
        Ok(watched) => watched,
        Err(error) => {
            tracing::error!("no peer is accepted: the event loop cannot watch {}: {error}", acceptor.local);
            return;
        }
    };
    let mut accepted = 0;
    loop {
        acceptor.wait_for_demand().await;
        if accepted == ACCEPTED_PER_TURN {
            accepted = 0;
            handle.give_way().await;
        }
        let ended = acceptor.take_ended();
        if !ended.is_empty() {
            // Not here: to drop a connection waits for the loop.
            handle.detach(move || drop(ended));
        }
        match listener.try_accept() {
            Ok(Some(stream)) => {
                accepted += 1;
                let under_way = UnderWay(Arc::clone(&acceptor));
                let (engine, waiting) = (Weak::clone(&engine), handle.clone());
                let begun = handle.spawn(handshake(under_way, engine, stream, waiting));
                let mut handshakes = lock(&acceptor.handshakes);
                handshakes.retain(|handshake| !handshake.is_ended());
                handshakes.push(begun);
            }
            Ok(None) => first(watched.readable(), acceptor.demand.wait()).await,
            Err(error) => {
                handle.sleep(admission::pause_after(acceptor.local, &error)).await;
            }
        }
    }
}

/// A handshake; its end, whatever it is, is told to the callers that wait for one.
struct UnderWay(Arc<Acceptor>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.notify();
    }
}

/// One handshake. What may block runs on helper threads: reading the key file, once the client has said something, handing
/// lanes to their workers, and destroying the queue pairs of one that fails.
async fn handshake(under_way: UnderWay, engine: Weak<Engine>, stream: Stream, handle: EventLoopHandle) {
    let waiter = Waiter::on_loop(&handle);
    let began = Instant::now();
    let first_words = began + admission::SILENCE_LIMIT;
    if waiter.ready(stream.as_fd(), Interest::Read, Some(first_words)).await.is_err() {
        let (peer, seconds) = (stream.peer(), admission::SILENCE_LIMIT.as_secs());
        report!(info, ClientRefused, peer = peer, "{peer} is no peer: it said nothing for {seconds} s");
        return;
    }
    let owner = Weak::clone(&engine);
    let Some(responding) = handle.blocking(move || Some(owner.upgrade()?.responding())).await else { return };
    let outcome = match responding {
        Ok(responding) => {
            let mut lanes = off_loop(&handle, responding.lanes());
            let (source, displaced) = (stream.peer(), stream.displaced());
            let peer = first(responding.handshake(stream, &mut lanes, &waiter), async {
                match displaced {
                    Some(displaced) => displaced.wait().await,
                    None => pending().await,
                }
                // Whatever the handshake waits for: another socket, or this one with bytes that are not due yet.
                report!(
                    info,
                    ClientRefused,
                    peer = source,
                    "{source} has not ended its handshake in time, and others wait"
                );
                Ok(None)
            })
            .await;
            peer.map(|peer| peer.map(|(peer, told)| (ScopeGuard::into_inner(lanes), peer, told)))
        }
        Err(error) => Err(error),
    };
    handle.detach(move || {
        let demand = &under_way.0.demand;
        under_way.0.deliver(outcome.and_then(|peer| accepted(&engine, peer, demand, began)));
        drop(under_way);
    });
}

fn accepted(
    engine: &Weak<Engine>,
    peer: Option<(LaneBuilder, Peer, Cursor)>,
    on_end: &Arc<Wakeup>,
    began: Instant,
) -> Result<Option<Accepted>, EngineError> {
    let Some((lanes, peer, told)) = peer else { return Ok(None) };
    let engine = engine.upgrade().ok_or_else(stopped)?;
    let held = if peer.proven {
        None
    } else {
        Some(admission::acquire_descriptors(peer.ip, descriptors(peer.lanes)).map_err(|reason| {
            EngineError::Peer { operation: "keep the connection of", peer: peer.control.to_string(), reason }
        })?)
    };
    let connected_host = peer.connected_host.holding(held).waking(Arc::clone(on_end));
    let peer = Peer { connected_host, ..peer };
    engine.accepted(lanes, peer, told, began).map(Some)
}

/// Of a connection with so many lanes: its channel, the notification sockets of both sides, and a data socket for each lane.
fn descriptors(lanes: u32) -> usize {
    3 + lanes as usize
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stopped() -> EngineError {
    EngineError::Unavailable("this engine has stopped accepting".to_owned())
}
