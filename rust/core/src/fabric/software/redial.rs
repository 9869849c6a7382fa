//! Dialing a peer's data listener again, for a queue pair that stays connected while its socket is closed at rest.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

use super::device_core::Core;
use super::dial::{DialError, dial};
use super::hello::{HelloAnswer, Offer, Reception};
use super::socket_watch::SocketWatch;
use super::watched::WatchedSocket;
use super::work::{CONNECT_PATIENCE, look_again};
use crate::events::{EventLoop, Task, Waiter};
use crate::fork::OwnSocket;
use crate::sync::{Mutex, lock};

/// What it takes to dial the peer of a queue pair.
#[derive(Debug)]
pub(super) struct Dialer {
    core: Arc<Core>,
    sockets: Arc<SocketWatch>,
    listener: SocketAddr,
    offer: Offer,
    /// Of the process that was found there first: one that took its address later is another peer.
    incarnation: u64,
}

/// A stream on which the peer has said welcome, or why there is none.
type RedialResult = Result<OwnSocket<TcpStream>, RedialFailure>;

/// Why there is no stream.
#[derive(Debug)]
pub(super) struct RedialFailure {
    pub(super) reason: String,
    /// It may pass: this process has no descriptor, memory or port left for a moment, or the peer had none.
    pub(super) may_pass: bool,
}

impl RedialFailure {
    fn lasting(reason: String) -> Self {
        Self { reason, may_pass: false }
    }
}

impl From<io::Error> for RedialFailure {
    fn from(error: io::Error) -> Self {
        let is_exhausted = matches!(
            error.raw_os_error(),
            Some(
                libc::EMFILE
                    | libc::ENFILE
                    | libc::ENOMEM
                    | libc::ENOBUFS
                    | libc::EADDRNOTAVAIL
                    | libc::EAGAIN
            )
        );
        Self { reason: error.to_string(), may_pass: is_exhausted }
    }
}

impl From<DialError> for RedialFailure {
    fn from(error: DialError) -> Self {
        let (reason, is_displaced) = (error.to_string(), error.is_displaced());
        match error {
            DialError::Io { .. } if is_displaced => Self { reason, may_pass: true },
            DialError::Io { source, .. } => Self { reason, ..source.into() },
            DialError::Hello(_) => Self::lasting(reason),
        }
    }
}

/// A dial under way: a task of the event loop. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Dialing {
    since: Instant,
    outcome: Arc<Mutex<Option<RedialResult>>>,
    task: Option<Task>,
    _events: Arc<EventLoop>,
}

impl Dialer {
    /// `answer`: what the peer has said when the queue pair connected.
    pub(super) fn new(
        core: &Arc<Core>,
        sockets: &Arc<SocketWatch>,
        listener: SocketAddr,
        offer: Offer,
        answer: &HelloAnswer,
    ) -> Self {
        let (core, sockets) = (Arc::clone(core), Arc::clone(sockets));
        Self { core, sockets, listener, offer, incarnation: answer.identity.incarnation }
    }

    /// Begins to dial, for what is to be done by [`CONNECT_PATIENCE`] after `since`.
    pub(super) fn dial(&self, since: Instant) -> Result<Dialing, RedialFailure> {
        let events = EventLoop::acquire()?;
        let outcome = Arc::new(Mutex::new(None));
        let (core, to) = (Arc::clone(&self.core), Arc::clone(&outcome));
        let (listener, offer, incarnation) = (self.listener, self.offer, self.incarnation);
        let task = events.spawn(move |handle| {
            let waiter = Waiter::on_loop(handle);
            async move {
                let key = core.options.auth_key.as_ref();
                let dialed = dial(listener, &offer, key, since + CONNECT_PATIENCE, &waiter).await;
                let outcome = dialed.map_err(RedialFailure::from).and_then(|(stream, answer)| {
                    let reason = match answer.reception {
                        Reception::Welcome if answer.identity.incarnation == incarnation => {
                            return Ok(stream);
                        }
                        Reception::Welcome => "another process has its address now",
                        refused => refused.explain(),
                    };
                    Err(RedialFailure::lasting(reason.to_owned()))
                });
                *lock(&to) = Some(outcome);
            }
        });
        Ok(Dialing { since, outcome, task: Some(task), _events: events })
    }

    /// A stream, made known to the completion queue.
    pub(super) fn watched(&self, stream: OwnSocket<TcpStream>) -> Result<WatchedSocket, RedialFailure> {
        Ok(WatchedSocket::new(stream, &self.sockets, self.offer.sender.qpn)?)
    }

    /// Sockets of the completion queue that are open.
    pub(super) fn open_sockets(&self) -> usize {
        self.sockets.carrying()
    }

    /// Why what was posted fails, for operators.
    pub(super) fn tell_failure(&self, reason: &str) {
        tracing::info!(
            device = self.core.name(),
            peer = %self.listener,
            qpn = self.offer.sender.qpn,
            "cannot open a data connection again that was closed at rest: {reason}"
        );
    }
}

impl Dialing {
    /// Since when a stream is wanted.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// What came of it; `None` while it is under way.
    pub(super) fn take(&self) -> Option<RedialResult> {
        lock(&self.outcome).take()
    }

    /// When to look again.
    pub(super) fn next_look(&self, now: Instant) -> Instant {
        look_again(self.since, now)
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        // Not waited for: this is dropped under the lock of the queue pair.
        if let Some(task) = self.task.take() {
            task.stop_soon();
        }
    }
}
