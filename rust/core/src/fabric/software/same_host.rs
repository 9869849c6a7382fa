//! A peer process of this host: each direction by copies between the address spaces, or over TCP where the kernel denies
//! that copy, from the start or from some moment on. Memory of the peer that is mapped here is copied in any case.
//!
//! The requests of a queue pair take effect in order: a run of requests for one of the two paths ends before the next run
//! begins. No socket is open for copies: the end of the peer is told by its process and by the link. TCP opens one when it is
//! needed.

use std::sync::Arc;

use super::copier::Copier;
use super::far_end::FarView;
use super::link::Link;
use super::send_queue::QueuedRequest;
use super::socket_watch::News;
use super::tcp::way::TcpWay;
use super::work::{Next, Step, Work};
use crate::fabric::{CompletionStatus, PathKind};

/// Requests that a run is looked ahead for.
const LONGEST_RUN: u64 = 512;

/// The way to a queue pair of another process of this host.
#[derive(Debug)]
pub(super) struct SameHost {
    link: Arc<Link>,
    copier: Copier,
    /// For directions that are denied.
    tcp: Box<TcpWay>,
    /// Requests before this one take TCP, where they may be on their way: also when their regions are mapped meanwhile.
    tcp_until: u64,
    /// The operator wants this path and no other: a denied direction, or memory that cannot be mapped, fails.
    forced: Option<PathKind>,
}

impl SameHost {
    /// `own`, `slot` and `counterpart`: as [`Copier::between_processes`] takes them.
    pub(super) fn new(
        link: Arc<Link>,
        tcp: TcpWay,
        own: u32,
        slot: usize,
        counterpart: u32,
        forced: Option<PathKind>,
    ) -> Self {
        let copier = Copier::between_processes(Arc::clone(&link), own, slot, counterpart, forced);
        Self { link, copier, tcp: Box::new(tcp), tcp_until: 0, forced }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Whether nothing else is copied than memory that is mapped.
    pub(super) fn only_mapped(&self) -> bool {
        self.forced == Some(PathKind::Shared)
    }

    /// The other end, for threads that copy beside this.
    pub(super) fn far_view(&self) -> FarView {
        self.copier.far_view()
    }

    pub(super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        if !self.link.denied().any() || self.only_mapped() {
            return self.copier.advance(work);
        }
        self.advance_one_run(work)
    }

    fn advance_one_run(&mut self, work: &mut Work<'_>) -> Step {
        let failed = Step { executed: 0, next: Next::Failed(CompletionStatus::RetryExceeded) };
        if self.forced.is_some() {
            return failed;
        }
        let link = &*self.link;
        let takes_tcp =
            |request: &QueuedRequest| link.denied().is_denied(request.opcode) && !link.maps(request);
        let tcp = &mut *self.tcp;
        let begin = work.queue.executed;
        let by_tcp = begin < self.tcp_until || work.request(begin).is_none_or(takes_tcp);
        let known = if by_tcp { self.tcp_until.max(begin) } else { begin };
        let is_of_run =
            |index: &u64| work.request(*index).is_some_and(|request| takes_tcp(request) == by_tcp);
        let end = known + (known..begin + LONGEST_RUN).take_while(is_of_run).count() as u64;
        if by_tcp {
            self.tcp_until = end;
        }
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
            Next::Blocked | Next::Awaiting if !self.link.is_alive() => {
                work.endpoint.set_peer_gone();
                Step { next: Next::Failed(CompletionStatus::RetryExceeded), ..step }
            }
            Next::Idle if begin + step.executed < all => Step { next: Next::More, ..step },
            _ => step,
        }
    }
}

/// Advances a run by copies. A data socket, if there is one, belongs to the TCP path, which alone may read it.
fn step_by_copies(copier: &mut Copier, tcp: &mut TcpWay, work: &mut Work<'_>) -> Step {
    if work.news >= News::Ready {
        let end = std::mem::replace(&mut work.end, work.queue.executed);
        let step = tcp.advance(work);
        work.end = end;
        work.news = News::None;
        if let Next::Failed(_) = step.next {
            return step;
        }
    }
    let step = copier.advance(work);
    tcp.skip(step.executed);
    step
}
