//! A peer process of this host: each direction by copies between the address spaces, or over TCP where the kernel denies
//! that copy, from the start or from some moment on.
//!
//! The requests of a queue pair take effect in order: a run of requests for one of the two paths ends before the next run
//! begins. The TCP path runs on the socket by which the two ends met, where the peer's data thread serves it anyway.

use std::sync::Arc;

use super::copier::Copier;
use super::far_end::FarView;
use super::link::Link;
use super::tcp::initiator::Initiator;
use super::watched::WatchedSocket;
use super::work::{Next, Step, Work};
use crate::fabric::CompletionStatus;

/// Requests that a run is looked ahead for.
const LONGEST_RUN: u64 = 512;

/// The way to a queue pair of another process of this host.
#[derive(Debug)]
pub(super) struct SameHost {
    link: Arc<Link>,
    socket: Arc<WatchedSocket>,
    copier: Copier,
    /// Made when a direction is found to be denied.
    tcp: Option<Box<Initiator>>,
    /// The operator wants no other path: a denied direction fails.
    forced: bool,
}

impl SameHost {
    /// `slot` and `counterpart`: as [`Copier::between_processes`] takes them.
    pub(super) fn new(
        link: Arc<Link>,
        socket: WatchedSocket,
        slot: usize,
        counterpart: u32,
        forced: bool,
    ) -> Self {
        let socket = Arc::new(socket);
        let copier = Copier::between_processes(Arc::clone(&link), Arc::clone(&socket), slot, counterpart);
        Self { link, socket, copier, tcp: None, forced }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The other end, for threads that copy beside this.
    pub(super) fn far_view(&self) -> FarView {
        self.copier.far_view()
    }

    pub(super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        if !self.link.denied().any() {
            return self.copier.advance(work);
        }
        self.advance_one_run(work)
    }

    fn advance_one_run(&mut self, work: &mut Work<'_>) -> Step {
        let failed = Step { executed: 0, next: Next::Failed(CompletionStatus::RetryExceeded) };
        if self.forced {
            return failed;
        }
        let denied = self.link.denied();
        let tcp = match &mut self.tcp {
            Some(tcp) => tcp,
            None => {
                if let Err(error) = self.socket.carry_bytes() {
                    tracing::warn!(qpn = work.endpoint.qpn(), %error, "cannot watch a data socket");
                    return failed;
                }
                let mut tcp = Initiator::new(Arc::clone(&self.socket));
                tcp.skip(work.queue.executed);
                self.tcp.insert(Box::new(tcp))
            }
        };
        let begin = work.queue.executed;
        let by_tcp = work.request(begin).is_none_or(|request| denied.is_denied(request.opcode));
        let is_of_run = |index: &u64| {
            work.request(*index).is_some_and(|request| denied.is_denied(request.opcode) == by_tcp)
        };
        let end = begin + (begin..begin + LONGEST_RUN).take_while(is_of_run).count() as u64;
        let all = std::mem::replace(&mut work.end, end);
        let step = if by_tcp {
            self.copier.restart();
            tcp.advance(work)
        } else {
            step_by_copies(&mut self.copier, tcp, work)
        };
        work.end = all;
        match step.next {
            // A child of the peer may hold the socket after its end.
            Next::Blocked if !self.link.is_alive() => {
                work.endpoint.set_peer_gone();
                Step { next: Next::Failed(CompletionStatus::RetryExceeded), ..step }
            }
            Next::Idle if begin + step.executed < all => Step { next: Next::More, ..step },
            _ => step,
        }
    }
}

/// Advances a run by copies. Its socket belongs to the TCP path, which alone may read it.
fn step_by_copies(copier: &mut Copier, tcp: &mut Initiator, work: &mut Work<'_>) -> Step {
    if work.news {
        let end = std::mem::replace(&mut work.end, work.queue.executed);
        let step = tcp.advance(work);
        work.end = end;
        work.news = false;
        if let Next::Failed(_) = step.next {
            return step;
        }
    }
    let step = copier.advance(work);
    tcp.skip(step.executed);
    step
}
