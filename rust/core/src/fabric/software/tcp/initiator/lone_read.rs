//! The answer to a READ that was sent alone, received by one call: its header, its bytes right into their place, and the header
//! behind them. In any other case bytes have a place only once the header before them is known.
#![allow(unsafe_code, reason = "receives into registered memory")]

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::TcpInitiator;
use super::answers::{Incoming, RANGES};
use crate::fabric::Opcode;
use crate::fabric::software::send_queue::QueuedRequest;
use crate::fabric::software::socket::{Range, receive};
use crate::fabric::software::tcp::frame::{RESPONSE_SIZE, ResponseHeader, WHOLE_READ};
use crate::fabric::software::work::{PinSet, Work};

impl TcpInitiator {
    /// Whether a group of `request` alone, which is `index`, is a READ that will be answered by the next frame and by no other.
    pub(super) fn is_lone_read(&self, index: u64, request: &QueuedRequest) -> bool {
        let is_short = (1..=WHOLE_READ).contains(&request.length);
        request.opcode == Opcode::Read && is_short && index == self.done
    }

    /// Whether the next frame is the answer to one.
    pub(super) fn awaits_lone_read(&self) -> bool {
        let is_next = self.lone_read == Some(self.done) && self.done < self.limit();
        is_next && self.readable && !self.closed && self.buffer.is_empty() && self.incoming.is_none()
    }

    /// Receives it, as much as is there; true when that is something.
    pub(super) fn receive_lone_read(&mut self, work: &mut Work<'_>) -> bool {
        let index = self.done;
        let length = work.queue.get(index).map_or(0, |request| request.length);
        let incoming = Incoming { index, offset: 0, left: length };
        let regions = work.regions;
        let mut pins = PinSet::new(regions.view());
        let mut ranges = [Range::default(); RANGES];
        let (used, placed) = match ranges.get_mut(1..) {
            Some(behind) => self.places(work, incoming, &mut pins, behind),
            None => (0, 0),
        };
        // In the room both headers come to lie side by side.
        let headers = self.buffer.room(2 * RESPONSE_SIZE).split_at_mut_checked(RESPONSE_SIZE);
        let (Some((header, trailer)), true) = (headers, placed == length) else { return self.fill() };
        for (place, range) in [(0, Range::of_mut(header)), (used + 1, Range::of_mut(trailer))] {
            if let Some(slot) = ranges.get_mut(place) {
                *slot = range;
            }
        }
        // SAFETY: the ranges were checked against their regions, which are pinned until after the call; the first and the last
        // one are room of the buffer, which is ours.
        let answer = unsafe { receive(self.socket.as_fd(), ranges.get(..used + 2).unwrap_or(&[])) };
        if answer == Err(Errno::FAULT) {
            // Nothing was taken off the socket. The bytes alone show which request it is that has failed.
            return self.fill();
        }
        let received = self.note_receipt(answer);
        let of_payload = received.saturating_sub(RESPONSE_SIZE as u64).min(length);
        self.buffer.note((received - of_payload) as usize);
        if of_payload > 0 {
            self.take_lone_read(work, incoming, of_payload);
        }
        received > 0
    }

    /// The header and the first bytes behind it are here. If the header says anything else, they are in the wrong place.
    fn take_lone_read(&mut self, work: &mut Work<'_>, incoming: Incoming, of_payload: u64) {
        let header = self.buffer.take::<RESPONSE_SIZE>().map(|bytes| ResponseHeader::decode(&bytes));
        let expected =
            ResponseHeader::Data { sequence: incoming.index - self.skipped, length: incoming.left as u32 };
        if header != Some(Ok(expected)) {
            return self.break_off();
        }
        work.budget.requests = work.budget.requests.saturating_sub(1);
        self.note_payload(work, incoming, of_payload);
    }
}
