//! The initiator's half of the TCP path.

mod answers;
mod group;
mod lone_read;
mod requests;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use super::frame::{RESPONSE_SIZE, RequestHeader};
use crate::fabric::software::send_queue::Piece;
use crate::fabric::software::socket::{Range, ReceiveBuffer, send};
use crate::fabric::software::socket_watch::News;
use crate::fabric::software::table::Right;
use crate::fabric::software::watched::WatchedSocket;
use crate::fabric::software::work::{Next, PinSet, Step, Unpinned, Work};
use crate::fabric::{CompletionStatus, Opcode};
use answers::Incoming;
use group::RequestGroup;

/// Headers of answers that are received at a time while nothing but headers can come.
const ANSWERS: usize = 64;
/// A READ of at most so many bytes is looked for by receiving: with 64 KiB, one took 36 us instead of 42, and 32 of 1 MiB over
/// four lanes took twice the time.
const SHORT: u64 = 64 << 10;

/// The way to a peer's responder.
#[derive(Debug)]
pub(in super::super) struct TcpInitiator {
    socket: Arc<WatchedSocket>,
    /// Headers of answers, and never a byte of what a READ brings.
    buffer: ReceiveBuffer,
    /// Requests that are being sent together.
    group: RequestGroup,
    /// The request of the payload that is being sent: those before it are sent.
    sending: u64,
    /// Bytes of that payload that are sent.
    sent_bytes: u64,
    /// Behind the last READ that the peer may know of.
    reads_until: u64,
    /// Requests that are done.
    done: u64,
    /// Of those, the ones that another path has carried out: the peer counts without them.
    skipped: u64,
    /// A READ that was sent alone, with nothing before it unanswered: the next frame is its answer, and all of it.
    lone_read: Option<u64>,
    /// What READs bring.
    incoming: Option<Incoming>,
    /// A request that failed, and how: those before it may still be answered.
    failed: Option<(u64, CompletionStatus)>,
    readable: bool,
    writable: bool,
    /// The peer sends no more than what lies in the socket.
    ends: bool,
    closed: bool,
}

impl TcpInitiator {
    pub(in super::super) fn new(socket: Arc<WatchedSocket>) -> Self {
        Self {
            socket,
            buffer: ReceiveBuffer::new(ANSWERS * RESPONSE_SIZE),
            group: RequestGroup::new(),
            sending: 0,
            sent_bytes: 0,
            reads_until: 0,
            done: 0,
            skipped: 0,
            lone_read: None,
            incoming: None,
            failed: None,
            readable: true,
            writable: true,
            ends: false,
            closed: false,
        }
    }

    /// Another path has carried out the next `count` requests. All before them are done.
    pub(in super::super) fn skip(&mut self, count: u64) {
        self.sending += count;
        self.done += count;
        self.skipped += count;
    }

    /// Tells the peer that this socket is closed at rest: the queue pair goes on. All requests are done.
    pub(in super::super) fn say_rest(&self) {
        if self.socket.end_in_order().is_ok() {
            say_rest(self.socket.as_fd());
        }
    }

    pub(in super::super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        self.readable |= work.news >= News::Awaited;
        self.writable |= work.news >= News::Ready;
        self.ends |= work.news == News::End;
        let mut waiting = None;
        // When nothing is awaited, a call that receives finds nothing.
        let mut receives = self.done < self.sending || work.news != News::None;
        loop {
            let received = receives && self.receive(work);
            receives = self.done < self.sending || self.ends || !self.buffer.is_empty();
            let sent = self.send(work, &mut waiting);
            if !(received || sent) || work.budget.is_spent() {
                break;
            }
        }
        let next = self.next(work, waiting);
        Step { executed: self.done - work.queue.executed, next }
    }

    fn next(&mut self, work: &Work<'_>, waiting: Option<Instant>) -> Next {
        if let Some((_, status)) = self.failed.filter(|(index, _)| *index == self.done) {
            return Next::Failed(status);
        }
        let idle = self.done == work.end;
        if self.closed {
            work.endpoint.set_peer_gone();
            return if idle { Next::Idle } else { Next::Failed(CompletionStatus::RetryExceeded) };
        }
        let unsent = self.sending < work.end.min(self.limit());
        match idle {
            _ if self.readable && work.budget.is_spent() => Next::More,
            true => Next::Idle,
            false if unsent && self.writable => waiting.map_or(Next::More, Next::Later),
            // A long answer comes in pieces, and to take each as it comes is the slower way.
            false if !unsent && self.sending == self.done + 1 && self.is_short(work) => Next::Awaiting,
            false => Next::Blocked,
        }
    }

    /// Whether the answer to the next request comes at once, or nearly.
    fn is_short(&self, work: &Work<'_>) -> bool {
        work.queue
            .get(self.done)
            .is_some_and(|request| request.opcode == Opcode::Write || request.length <= SHORT)
    }

    /// The first request that is not carried out any more. What comes before it is still sent and answered.
    fn limit(&self) -> u64 {
        self.failed.map_or(u64::MAX, |(index, _)| index)
    }

    fn fail(&mut self, index: u64, status: CompletionStatus) {
        if index < self.limit() {
            self.failed = Some((index, status));
        }
    }
}

/// Sends the last frame of a socket that is closed at rest. Where it does not go out, the peer takes the end for a failure.
pub(in super::super) fn say_rest(socket: BorrowedFd<'_>) {
    let _ = send(socket, &[Range::of(&RequestHeader::REST.encode())]);
}

fn check_piece(pins: &mut PinSet<'_>, piece: &Piece, right: Right) -> Result<bool, Unpinned> {
    pins.check(piece.lkey, piece.address, piece.length, right)
}
