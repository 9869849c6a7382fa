//! The initiator's half of the TCP path.
#![allow(unsafe_code, reason = "receives into registered memory")]

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;

use super::frame::{Action, REQUEST_SIZE, RESPONSE_SIZE, RequestHeader, ResponseHeader};
use crate::fabric::software::copy;
use crate::fabric::software::denial::is_denial;
use crate::fabric::software::faults::Verdict;
use crate::fabric::software::send_queue::{Piece, Request};
use crate::fabric::software::socket::{Range, ReceiveBuffer, receive, send};
use crate::fabric::software::table::Right;
use crate::fabric::software::transport::{MAX_MESSAGE, Next, PinSet, Step, Unpinned, Work, rights};
use crate::fabric::software::watched::WatchedSocket;
use crate::fabric::{CompletionStatus, Opcode};

/// Frames that are sent by one system call.
const BATCH_FRAMES: usize = 32;
/// Ranges that are sent by one system call.
const BATCH_RANGES: usize = 160;
/// Answers are read through a buffer of this size; larger payloads go to their place directly.
const BUFFER: usize = 16 * 1024;

/// The way to a peer's responder.
#[derive(Debug)]
pub(in super::super) struct Initiator {
    socket: Arc<WatchedSocket>,
    buffer: ReceiveBuffer,
    /// The request whose frame is being sent: those before it are sent.
    sending: u64,
    /// Bytes of that frame that are sent.
    sent_bytes: u64,
    /// Requests that are done.
    done: u64,
    /// Of those, the ones that another path has carried out: the peer counts without them.
    skipped: u64,
    /// Payload that is coming in, for request `done`, a READ.
    incoming: Option<Incoming>,
    /// A request that failed, and how: those before it may still be answered.
    failed: Option<(u64, CompletionStatus)>,
    readable: bool,
    writable: bool,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Incoming {
    /// Bytes of the READ that are in place.
    offset: u64,
    /// Bytes of the current frame that are still to come.
    left: u64,
}

/// Frames to send by one system call.
struct Batch {
    headers: [[u8; REQUEST_SIZE]; BATCH_FRAMES],
    frames: usize,
    ranges: [Range; BATCH_RANGES],
    used: usize,
}

impl Initiator {
    pub(in super::super) fn new(socket: Arc<WatchedSocket>) -> Self {
        Self {
            socket,
            buffer: ReceiveBuffer::new(BUFFER),
            sending: 0,
            sent_bytes: 0,
            done: 0,
            skipped: 0,
            incoming: None,
            failed: None,
            readable: true,
            writable: true,
            closed: false,
        }
    }

    /// Another path has carried out the next `count` requests. All before them are done.
    pub(in super::super) fn skip(&mut self, count: u64) {
        self.sending += count;
        self.done += count;
        self.skipped += count;
    }

    pub(in super::super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        if work.news {
            self.readable = true;
            self.writable = true;
        }
        let mut waiting = None;
        loop {
            let received = self.receive(work);
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
        let unsent = self.sending < work.end && self.failed.is_none();
        match idle {
            _ if self.readable && work.budget.is_spent() => Next::More,
            true => Next::Idle,
            false if unsent && self.writable => waiting.map_or(Next::More, Next::Later),
            false => Next::Blocked,
        }
    }

    fn fail(&mut self, index: u64, status: CompletionStatus) {
        if self.failed.is_none_or(|(earlier, _)| index < earlier) {
            self.failed = Some((index, status));
        }
    }

    // --- answers ---

    /// Reads until there is nothing more or the budget is spent; true when it got something.
    fn receive(&mut self, work: &mut Work<'_>) -> bool {
        let mut progress = false;
        while !work.budget.is_spent() {
            let step = match self.incoming {
                Some(incoming) if incoming.left > 0 => self.receive_payload(work, incoming),
                _ => match self.buffer.take::<RESPONSE_SIZE>() {
                    Some(bytes) => {
                        self.take_answer(work, &bytes);
                        true
                    }
                    None => self.fill(),
                },
            };
            if !step {
                break;
            }
            progress = true;
        }
        progress
    }

    fn fill(&mut self) -> bool {
        if !self.readable || self.closed {
            return false;
        }
        let answer = self.buffer.fill(&self.socket);
        self.note_receipt(answer) > 0
    }

    /// Bytes received; notes when there are none for now, or none any more.
    fn note_receipt(&mut self, answer: Result<usize, Errno>) -> u64 {
        match answer {
            Ok(0) => self.closed = true,
            Ok(received) => return received as u64,
            Err(Errno::AGAIN) => self.readable = false,
            Err(_) => self.closed = true,
        }
        0
    }

    fn take_answer(&mut self, work: &Work<'_>, bytes: &[u8; RESPONSE_SIZE]) {
        let index = |sequence: u64| sequence.checked_add(self.skipped);
        let accepted = match ResponseHeader::decode(bytes) {
            Ok(ResponseHeader::Done { sequence }) => {
                index(sequence).and_then(|index| self.take_done(work, index))
            }
            Ok(ResponseHeader::Failed { sequence, status }) => {
                index(sequence).and_then(|index| self.take_failure(work, index, status))
            }
            Ok(ResponseHeader::Data { sequence, length }) => {
                index(sequence).and_then(|index| self.take_data(work, index, u64::from(length)))
            }
            Err(_) => None,
        };
        if accepted.is_none() {
            self.fail(self.done, CompletionStatus::BadResponse);
            self.closed = true;
        }
    }

    fn take_done(&mut self, work: &Work<'_>, sequence: u64) -> Option<()> {
        let end = sequence.checked_add(1)?;
        (end > self.done && self.may_be_done(work, end)).then(|| {
            self.done = end;
            self.incoming = None;
        })
    }

    fn take_failure(&mut self, work: &Work<'_>, sequence: u64, status: CompletionStatus) -> Option<()> {
        (sequence >= self.done && self.may_be_done(work, sequence)).then(|| {
            self.done = sequence;
            self.incoming = None;
            self.fail(sequence, status);
        })
    }

    fn take_data(&mut self, work: &Work<'_>, sequence: u64, length: u64) -> Option<()> {
        let offset = match self.incoming {
            Some(incoming) if sequence == self.done => incoming.offset,
            None if sequence >= self.done && sequence < self.sending && self.may_be_done(work, sequence) => 0,
            _ => return None,
        };
        let request = work.queue.get(sequence).filter(|request| request.opcode == Opcode::Read)?;
        if length == 0 || length > request.length - offset {
            return None;
        }
        self.done = sequence;
        self.incoming = Some(Incoming { offset, left: length });
        Some(())
    }

    /// Whether the peer may say that all requests before `end` are done: they were sent, and what they READ is here.
    fn may_be_done(&self, work: &Work<'_>, end: u64) -> bool {
        let here = self.incoming.map_or(0, |incoming| incoming.offset);
        end <= self.sending
            && (self.done..end).all(|index| {
                let here = if index == self.done { here } else { 0 };
                work.queue
                    .get(index)
                    .is_some_and(|request| request.opcode == Opcode::Write || request.length == here)
            })
    }

    fn receive_payload(&mut self, work: &mut Work<'_>, incoming: Incoming) -> bool {
        let regions = work.regions;
        let mut pins = PinSet::new(regions.view());
        let Some(piece) = work.queue.pieces(self.done, incoming.offset).next() else {
            self.fail(self.done, CompletionStatus::LocalLength);
            return false;
        };
        if check_piece(&mut pins, &piece, Right::LocalWrite).is_err() {
            // Revoked since the READ was sent: nothing after it matters any more.
            self.fail(self.done, CompletionStatus::LocalProtection);
            self.closed = true;
            return false;
        }
        let wanted = piece.length.min(incoming.left).min(work.budget.bytes);
        let received = if self.buffer.is_empty() {
            if !self.readable {
                return false;
            }
            // SAFETY: the range was checked against its region, which is pinned until after the call.
            let answer = unsafe { receive(self.socket.as_fd(), piece.address, wanted) };
            self.note_receipt(answer)
        } else {
            let bytes = self.buffer.take_up_to(wanted);
            // SAFETY: as above for the target; the source is borrowed.
            unsafe { copy::copy(bytes.as_ptr() as u64, piece.address, bytes.len() as u64) };
            bytes.len() as u64
        };
        if received == 0 {
            return false;
        }
        work.budget.bytes -= received;
        work.faults.moved(received);
        self.incoming = Some(Incoming { offset: incoming.offset + received, left: incoming.left - received });
        true
    }

    // --- requests ---

    /// Sends one batch; true when some of it went out.
    fn send(&mut self, work: &mut Work<'_>, waiting: &mut Option<Instant>) -> bool {
        if !self.writable || self.closed || self.failed.is_some() || work.budget.is_spent() {
            return false;
        }
        let regions = work.regions;
        let mut pins = PinSet::new(regions.view());
        let mut batch = Batch::new();
        *waiting = self.collect(work, &mut pins, &mut batch);
        if batch.used == 0 {
            return false;
        }
        work.faults.hold();
        match send(self.socket.as_fd(), batch.ranges()) {
            Ok(sent) => {
                work.budget.bytes = work.budget.bytes.saturating_sub(sent as u64);
                work.faults.moved(sent as u64);
                self.note_sent(work, sent as u64);
                return sent > 0;
            }
            Err(Errno::AGAIN) => self.writable = false,
            Err(Errno::FAULT) => self.fail(self.sending, CompletionStatus::LocalProtection),
            // Nothing goes out any more, and nothing would tell when it does.
            Err(errno) if is_denial(errno) => self.closed = true,
            Err(_) => {
                // What the peer said before it closed is still to be read.
                self.writable = false;
                self.readable = true;
            }
        }
        false
    }

    /// Fills the batch with frames from where the last one stopped. A time when a request is not to go before it.
    fn collect(&mut self, work: &mut Work<'_>, pins: &mut PinSet<'_>, batch: &mut Batch) -> Option<Instant> {
        let mut index = self.sending;
        let mut skip = self.sent_bytes;
        let mut room = work.budget.bytes;
        while let Some(request) = work.request(index) {
            if skip == 0 {
                match work.faults.judge(index) {
                    Verdict::Go => {}
                    Verdict::Wait(time) => return Some(time),
                    Verdict::Fail(status) => {
                        self.fail(index, status);
                        break;
                    }
                    Verdict::DropPeer => {
                        self.socket.cut();
                        self.readable = true;
                        break;
                    }
                }
            }
            match check_request(work, pins, index, request) {
                Ok(()) => {}
                Err(Refused::BatchFull) => break,
                Err(Refused::Failed(status)) => {
                    self.fail(index, status);
                    break;
                }
            }
            if room == 0 || !batch.push(work, index, self.skipped, skip, &mut room) {
                break;
            }
            skip = 0;
            index += 1;
        }
        None
    }

    fn note_sent(&mut self, work: &mut Work<'_>, mut sent: u64) {
        while sent > 0 {
            let Some(request) = work.queue.get(self.sending) else { return };
            let left = frame_size(request) - self.sent_bytes;
            if sent < left {
                self.sent_bytes += sent;
                return;
            }
            sent -= left;
            self.sending += 1;
            self.sent_bytes = 0;
            work.budget.requests = work.budget.requests.saturating_sub(1);
        }
    }
}

impl Batch {
    fn new() -> Self {
        Self {
            headers: [[0; REQUEST_SIZE]; BATCH_FRAMES],
            frames: 0,
            ranges: [Range::default(); BATCH_RANGES],
            used: 0,
        }
    }

    fn ranges(&self) -> &[Range] {
        self.ranges.get(..self.used).unwrap_or(&[])
    }

    /// Adds the frame of request `index`, which the peer counts without the `skipped`, from its byte `skip` on. False when the frame, or all of it, did not fit.
    fn push(&mut self, work: &Work<'_>, index: u64, skipped: u64, skip: u64, room: &mut u64) -> bool {
        let Some(request) = work.request(index) else { return false };
        if skip < REQUEST_SIZE as u64 {
            let Some(header) = self.headers.get_mut(self.frames) else { return false };
            *header = RequestHeader {
                action: Action::from(request.opcode),
                rkey: request.rkey,
                remote_address: request.remote_address,
                length: request.length as u32,
                sequence: index - skipped,
            }
            .encode();
            let rest = Range::of(header.get(skip as usize..).unwrap_or(&[]));
            if !self.push_range(rest) {
                return false;
            }
            self.frames += 1;
        }
        if request.opcode == Opcode::Read {
            return true;
        }
        for piece in work.queue.pieces(index, skip.saturating_sub(REQUEST_SIZE as u64)) {
            let length = piece.length.min(*room);
            if length == 0 || !self.push_range(Range::new(piece.address, length)) {
                return false;
            }
            *room -= length;
            if length < piece.length {
                return false;
            }
        }
        true
    }

    fn push_range(&mut self, range: Range) -> bool {
        let Some(slot) = self.ranges.get_mut(self.used) else { return false };
        *slot = range;
        self.used += 1;
        true
    }
}

enum Refused {
    BatchFull,
    Failed(CompletionStatus),
}

/// Checks the local side of a request. A READ's too: it fails before the peer is asked, not when the bytes come.
fn check_request(
    work: &Work<'_>,
    pins: &mut PinSet<'_>,
    index: u64,
    request: &Request,
) -> Result<(), Refused> {
    if request.length > u64::from(MAX_MESSAGE) {
        return Err(Refused::Failed(CompletionStatus::LocalLength));
    }
    let (local, _) = rights(request.opcode);
    for piece in work.queue.pieces(index, 0) {
        check_piece(pins, &piece, local).map_err(|problem| match problem {
            Unpinned::Full => Refused::BatchFull,
            Unpinned::Violation => Refused::Failed(CompletionStatus::LocalProtection),
        })?;
    }
    Ok(())
}

fn check_piece(pins: &mut PinSet<'_>, piece: &Piece, right: Right) -> Result<(), Unpinned> {
    piece.lkey.map_or(Ok(()), |lkey| pins.check(lkey, piece.address, piece.length, right))
}

fn frame_size(request: &Request) -> u64 {
    REQUEST_SIZE as u64 + if request.opcode == Opcode::Write { request.length } else { 0 }
}
