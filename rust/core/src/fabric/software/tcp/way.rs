//! The TCP path of a queue pair. Its socket is open while requests travel and for a while after.
//!
//! A socket at rest costs a descriptor on either side, four of them for each peer. So the initiator closes one that nothing has used
//! for [`IDLE`], after a frame that says so, and dials again when something is posted. Requests are counted from the socket's first
//! one, so a later socket begins at 0.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::initiator::TcpInitiator;
use crate::fabric::CompletionStatus;
use crate::fabric::software::redial::{Dialer, Dialing, RedialFailure};
use crate::fabric::software::watched::WatchedSocket;
use crate::fabric::software::work::{CONNECT_PATIENCE, Next, Step, Work, look_again};

/// After so long without a request a socket is closed.
const IDLE: Duration = Duration::from_secs(10);
/// The same while more than [`CROWD`] sockets of the completion queue are open.
const IDLE_IN_A_CROWD: Duration = Duration::from_millis(500);
/// A process may have 1,024 descriptors by default, four completion queues, and as many sockets that its peers have opened.
const CROWD: usize = 32;

/// The way to a peer's responder.
#[derive(Debug)]
pub(in super::super) struct TcpWay {
    dialer: Dialer,
    state: State,
    last_use: Instant,
}

#[derive(Debug)]
enum State {
    Open(Box<TcpInitiator>),
    AtRest,
    Dialing(Dialing),
    /// What was in the way may pass: to be dialed again at a time, for what is wanted since another one.
    Again {
        since: Instant,
        at: Instant,
    },
}

impl TcpWay {
    /// A way with an open socket. In a crowd it is closed at once: the connect has shown that it can be opened.
    pub(in super::super) fn open(dialer: Dialer, socket: WatchedSocket) -> Self {
        let is_crowd = dialer.open_sockets() > CROWD;
        let initiator = TcpInitiator::new(Arc::new(socket));
        if is_crowd {
            initiator.say_rest();
            return Self::at_rest(dialer);
        }
        Self { dialer, state: State::Open(Box::new(initiator)), last_use: Instant::now() }
    }

    /// A way without a socket: the first request opens one.
    pub(in super::super) fn at_rest(dialer: Dialer) -> Self {
        Self { dialer, state: State::AtRest, last_use: Instant::now() }
    }

    /// Another path has carried out the next `count` requests. All before them are done.
    pub(in super::super) fn skip(&mut self, count: u64) {
        if let State::Open(initiator) = &mut self.state {
            initiator.skip(count);
        }
    }

    pub(in super::super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        let executed = work.queue.executed;
        let wanted = work.request(executed).is_some();
        match &mut self.state {
            State::Open(initiator) => {
                let step = initiator.advance(work);
                let now = Instant::now();
                if wanted || step.next != Next::Idle {
                    self.last_use = now;
                } else if now.saturating_duration_since(self.last_use) >= self.dialer.idle_limit() {
                    initiator.say_rest();
                    self.state = State::AtRest;
                }
                step
            }
            State::AtRest if !wanted => Step { executed: 0, next: Next::Idle },
            State::AtRest => self.dial(work, Instant::now()),
            State::Again { at, .. } if Instant::now() < *at => Step { executed: 0, next: Next::Later(*at) },
            State::Again { since, .. } => {
                let since = *since;
                self.dial(work, since)
            }
            State::Dialing(dialing) => match dialing.take() {
                None => Step { executed: 0, next: Next::Later(dialing.next_look(Instant::now())) },
                Some(Err(failure)) => {
                    let since = dialing.since();
                    self.failed(work, since, &failure)
                }
                Some(Ok(stream)) => match self.dialer.watched(stream) {
                    Ok(socket) => {
                        let mut initiator = TcpInitiator::new(Arc::new(socket));
                        initiator.skip(executed);
                        self.state = State::Open(Box::new(initiator));
                        self.advance(work)
                    }
                    Err(failure) => {
                        let since = dialing.since();
                        self.failed(work, since, &failure)
                    }
                },
            },
        }
    }

    fn dial(&mut self, work: &Work<'_>, since: Instant) -> Step {
        match self.dialer.dial(since) {
            Ok(dialing) => {
                let next = Next::Later(dialing.next_look(Instant::now()));
                self.state = State::Dialing(dialing);
                Step { executed: 0, next }
            }
            Err(failure) => self.failed(work, since, &failure),
        }
    }

    /// There is no stream: dialed again for as long as a peer that has not connected is waited for, or the end.
    fn failed(&mut self, work: &Work<'_>, since: Instant, failure: &RedialFailure) -> Step {
        let now = Instant::now();
        if failure.may_pass && now.saturating_duration_since(since) < CONNECT_PATIENCE {
            let at = look_again(since, now);
            self.state = State::Again { since, at };
            return Step { executed: 0, next: Next::Later(at) };
        }
        self.dialer.tell_failure(&failure.reason);
        self.state = State::AtRest;
        work.endpoint.set_peer_gone();
        Step { executed: 0, next: Next::Failed(CompletionStatus::RetryExceeded) }
    }
}

impl Dialer {
    fn idle_limit(&self) -> Duration {
        if self.open_sockets() > CROWD { IDLE_IN_A_CROWD } else { IDLE }
    }
}
