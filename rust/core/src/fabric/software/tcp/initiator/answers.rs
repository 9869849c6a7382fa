//! Receiving answers, and what READs bring.
#![allow(unsafe_code, reason = "receives into registered memory")]

use std::os::fd::AsFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;

use super::{ANSWERS, TcpInitiator, check_piece};
use crate::fabric::software::socket::{Range, receive};
use crate::fabric::software::table::Right;
use crate::fabric::software::tcp::frame::{RESPONSE_SIZE, ResponseHeader};
use crate::fabric::software::work::{PinSet, Work};
use crate::fabric::{CompletionStatus, Opcode};

/// Ranges that are received by one system call.
pub(super) const RANGES: usize = 64;
/// What has no place any more is received in pieces of this size.
const SCRATCH: usize = 16 * 1024;

/// Where the bytes of READs go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    /// The READ that gets the next byte: those before it, back to the first that is not done, have all of theirs.
    pub(super) index: u64,
    /// Bytes that it has.
    pub(super) offset: u64,
    /// Bytes of the current frame that are still to come.
    pub(super) left: u64,
}

impl TcpInitiator {
    /// Reads until there is nothing more or the budget is spent; true when it got something.
    pub(super) fn receive(&mut self, work: &mut Work<'_>) -> bool {
        let mut progress = false;
        while !work.budget.is_spent() {
            let step = match self.incoming {
                Some(incoming) if incoming.left > 0 => self.receive_payload(work, incoming),
                _ => match self.buffer.take::<RESPONSE_SIZE>() {
                    Some(bytes) => {
                        self.take_answer(work, &bytes);
                        true
                    }
                    // Most often nothing comes behind the last answer.
                    None if progress && self.done == work.end && !self.ends => break,
                    None if self.awaits_lone_read() => self.receive_lone_read(work),
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

    pub(super) fn fill(&mut self) -> bool {
        if !self.readable || self.closed {
            return false;
        }
        // What follows the header of an answer to a READ has its place in memory.
        let headers = if self.reads_until > self.done { 1 } else { ANSWERS };
        let answer = self.buffer.fill_to(&*self.socket, headers * RESPONSE_SIZE);
        self.note_receipt(answer) > 0
    }

    /// Bytes received; notes when there are none for now, or none any more.
    pub(super) fn note_receipt(&mut self, answer: Result<usize, Errno>) -> u64 {
        match answer {
            Ok(0) => self.closed = true,
            Ok(received) => return received as u64,
            Err(Errno::AGAIN) => self.readable = false,
            Err(_) => self.closed = true,
        }
        0
    }

    /// Counts as a request: a peer may bring what a READ asks for a byte at a time, each with a header of its own, and would
    /// keep its caller for as many system calls as a poll may move bytes.
    pub(super) fn take_answer(&mut self, work: &mut Work<'_>, bytes: &[u8; RESPONSE_SIZE]) {
        work.budget.requests = work.budget.requests.saturating_sub(1);
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
            self.break_off();
        }
    }

    /// The peer has sent what is no answer.
    pub(super) fn break_off(&mut self) {
        self.fail(self.done, CompletionStatus::BadResponse);
        self.closed = true;
    }

    fn take_done(&mut self, work: &Work<'_>, index: u64) -> Option<()> {
        let end = index.checked_add(1)?;
        (end > self.done && self.may_be_done(work, end)).then(|| {
            self.done = end.min(self.limit());
            self.incoming = None;
        })
    }

    fn take_failure(&mut self, work: &Work<'_>, sequence: u64, status: CompletionStatus) -> Option<()> {
        (sequence >= self.done && self.may_be_done(work, sequence)).then(|| {
            self.done = sequence.min(self.limit());
            self.incoming = None;
            self.fail(sequence, status);
            // Nothing comes after it.
            self.closed = true;
        })
    }

    fn take_data(&mut self, work: &Work<'_>, sequence: u64, length: u64) -> Option<()> {
        let (index, offset) =
            self.incoming.map_or((self.done, 0), |incoming| (incoming.index, incoming.offset));
        let continues = sequence == index || (sequence > index && offset == 0);
        if !continues || length == 0 || !self.buffer.is_empty() || !self.may_be_done(work, sequence) {
            return None;
        }
        let mut room = 0;
        for index in sequence..self.sending {
            let request = work.queue.get(index).filter(|request| request.opcode == Opcode::Read);
            room += request.map_or(0, |request| request.length);
            if request.is_none() || room >= length + offset {
                break;
            }
        }
        if length + offset > room {
            return None;
        }
        self.done = sequence.min(self.limit());
        self.incoming = Some(Incoming { index: sequence, offset, left: length });
        Some(())
    }

    /// Whether the peer may say that all requests before `end` are done: they were sent, and what they READ is here.
    fn may_be_done(&self, work: &Work<'_>, end: u64) -> bool {
        let here = self.incoming.map_or(self.done, |incoming| incoming.index);
        end <= self.sending
            && (here.max(self.done)..end).all(|index| {
                let request = work.queue.get(index);
                request.is_some_and(|request| request.opcode == Opcode::Write || request.length == 0)
            })
    }

    /// Receives what READs bring, as much as comes at once, and the header behind it.
    fn receive_payload(&mut self, work: &mut Work<'_>, incoming: Incoming) -> bool {
        if !self.readable {
            return false;
        }
        if incoming.index >= self.limit() {
            return self.discard(work, incoming);
        }
        let regions = work.regions;
        let mut pins = PinSet::new(regions.view());
        let mut ranges = [Range::default(); RANGES];
        let (mut used, length) = self.places(work, incoming, &mut pins, &mut ranges);
        if used == 0 {
            // Revoked since the READ was sent.
            self.fail(incoming.index, CompletionStatus::LocalProtection);
            return true;
        }
        if let Some(slot) = ranges.get_mut(used).filter(|_| length == incoming.left) {
            *slot = Range::of_mut(self.buffer.room(RESPONSE_SIZE));
            used += 1;
        }
        let all = ranges.get(..used).unwrap_or(&[]);
        // SAFETY: the ranges were checked against their regions, which are pinned until after the call; the last one may
        // be the room of the buffer, which is ours.
        let mut answer = unsafe { receive(self.socket.as_fd(), all) };
        if answer == Err(Errno::FAULT) && used > 1 {
            // Not always of the first range: the kernel takes segments whole.
            // SAFETY: as above.
            answer = unsafe { receive(self.socket.as_fd(), all.get(..1).unwrap_or(&[])) };
        }
        if answer == Err(Errno::FAULT) {
            self.fail(incoming.index, CompletionStatus::LocalProtection);
            return true;
        }
        let received = self.note_receipt(answer);
        let of_payload = received.min(length);
        self.buffer.note((received - of_payload) as usize);
        self.note_payload(work, incoming, of_payload);
        received > 0
    }

    /// Where the next bytes belong: fills `ranges`, leaves room for one more, and answers how many they are, and of how
    /// many bytes together.
    pub(super) fn places(
        &self,
        work: &Work<'_>,
        incoming: Incoming,
        pins: &mut PinSet<'_>,
        ranges: &mut [Range],
    ) -> (usize, u64) {
        let (mut used, mut length) = (0, 0);
        let (mut index, mut offset) = (incoming.index, incoming.offset);
        let wanted = incoming.left.min(work.budget.bytes);
        while length < wanted && index < self.limit() {
            for piece in work.queue.pieces(index, offset) {
                let fits = piece.length.min(wanted - length);
                if fits == 0
                    || used + 1 >= ranges.len()
                    || check_piece(pins, &piece, Right::LocalWrite).is_err()
                {
                    return (used, length);
                }
                if let Some(slot) = ranges.get_mut(used) {
                    *slot = Range::new(piece.address, fits);
                }
                used += 1;
                length += fits;
            }
            (index, offset) = (index + 1, 0);
        }
        (used, length)
    }

    /// Takes bytes off the socket that have no place any more: what failed is told after those before it are answered.
    fn discard(&mut self, work: &mut Work<'_>, incoming: Incoming) -> bool {
        let mut scratch = [0; SCRATCH];
        let size = scratch.len().min(usize::try_from(incoming.left).unwrap_or(usize::MAX));
        let room = scratch.get_mut(..size).unwrap_or_default();
        let answer = retry_on_intr(|| rustix::net::recv(&*self.socket, &mut *room, RecvFlags::DONTWAIT));
        let received = self.note_receipt(answer.map(|(received, _)| received));
        self.note_payload(work, incoming, received);
        received > 0
    }

    pub(super) fn note_payload(&mut self, work: &mut Work<'_>, incoming: Incoming, received: u64) {
        let Incoming { mut index, mut offset, left } = incoming;
        work.budget.bytes = work.budget.bytes.saturating_sub(received);
        work.faults.moved(received);
        let mut rest = received;
        while let Some(request) = work.queue.get(index) {
            let wanted = request.length - offset;
            if rest < wanted {
                offset += rest;
                break;
            }
            if rest == 0 {
                break;
            }
            rest -= wanted;
            (index, offset) = (index + 1, 0);
        }
        self.incoming = Some(Incoming { index, offset, left: left - received });
    }
}
