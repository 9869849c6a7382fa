//! Sending requests.

use std::os::fd::AsFd;
use std::time::Instant;

use rustix::io::Errno;

use super::group::payload_of;
use super::{TcpInitiator, check_piece};
use crate::fabric::software::denial::is_denial;
use crate::fabric::software::faults::Injection;
use crate::fabric::software::send_queue::QueuedRequest;
use crate::fabric::software::socket::{Range, send};
use crate::fabric::software::tcp::frame::GROUP;
use crate::fabric::software::work::{MAX_MESSAGE, PinSet, Unpinned, Work, rights};
use crate::fabric::{CompletionStatus, Opcode};

/// Ranges that are sent by one system call.
const RANGES: usize = 160;

impl TcpInitiator {
    /// Sends once; true when some of it went out.
    pub(super) fn send(&mut self, work: &mut Work<'_>, waiting: &mut Option<Instant>) -> bool {
        if !self.writable || self.closed || self.sending >= self.limit() || work.budget.is_spent() {
            return false;
        }
        let regions = work.regions;
        let mut pins = PinSet::new(regions.view());
        let begins = self.sending >= self.group.end() && self.group.headers_are_sent();
        if begins {
            *waiting = self.begin_group(work, &mut pins);
        }
        let ranges = self.collect(work, &mut pins, begins);
        if ranges.is_empty() {
            return false;
        }
        work.faults.hold();
        match ranges.send(self.socket.as_fd()) {
            Ok(sent) => {
                work.budget.bytes = work.budget.bytes.saturating_sub(sent as u64);
                work.faults.moved(sent as u64);
                self.note_sent(work, sent as u64);
                return sent > 0;
            }
            Err(Errno::AGAIN) => self.writable = false,
            Err(Errno::FAULT) => {
                self.fail(ranges.first, CompletionStatus::LocalProtection);
                // What was to go before it, if anything, still goes.
                return true;
            }
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

    /// Chooses the requests that go next. A time when the one behind them is not to go before it.
    fn begin_group(&mut self, work: &mut Work<'_>, pins: &mut PinSet<'_>) -> Option<Instant> {
        let first = self.sending;
        let (mut index, mut waiting) = (first, None);
        while index < self.limit().min(first + GROUP as u64) {
            let Some(request) = work.request(index) else { break };
            match work.faults.judge(index) {
                Injection::Go => {}
                Injection::Wait(time) => {
                    waiting = Some(time);
                    break;
                }
                Injection::Fail(status) => {
                    self.fail(index, status);
                    break;
                }
                Injection::DropPeer => {
                    self.socket.cut();
                    self.readable = true;
                    break;
                }
            }
            match check_request(work, pins, index, request) {
                Ok(()) => {}
                Err(Refused::GroupFull) => break,
                Err(Refused::Failed(status)) => {
                    self.fail(index, status);
                    break;
                }
            }
            index += 1;
            if request.opcode == Opcode::Read {
                self.reads_until = index;
            }
        }
        if index == first + 1 && work.request(first).is_some_and(|request| self.is_lone_read(first, request))
        {
            self.lone_read = Some(first);
        }
        self.group.begin(first, index, self.skipped, |index| work.request(index));
        waiting
    }

    /// What is to be sent of the group, as far as one call takes it. `checked`: all of the group is pinned already.
    fn collect(&mut self, work: &Work<'_>, pins: &mut PinSet<'_>, checked: bool) -> Ranges {
        let mut ranges = Ranges::new(self.group.headers(), self.sending);
        let (mut index, mut skip) = (self.sending, self.sent_bytes);
        let mut room = work.budget.bytes;
        while index < self.group.end().min(self.limit()) {
            let Some(request) = work.request(index) else { break };
            if request.opcode == Opcode::Write {
                if !checked {
                    match check_request(work, pins, index, request) {
                        Ok(()) => {}
                        Err(Refused::GroupFull) => break,
                        Err(Refused::Failed(status)) => {
                            self.fail(index, status);
                            break;
                        }
                    }
                }
                for piece in work.queue.pieces(index, skip) {
                    let length = piece.length.min(room);
                    if length == 0 || !ranges.push(index, Range::new(piece.address, length)) {
                        return ranges;
                    }
                    room -= length;
                    if length < piece.length {
                        return ranges;
                    }
                }
            }
            (index, skip) = (index + 1, 0);
        }
        ranges
    }

    fn note_sent(&mut self, work: &mut Work<'_>, sent: u64) {
        let mut sent = self.group.note_sent(sent);
        if !self.group.headers_are_sent() {
            return;
        }
        while self.sending < self.group.end() {
            let Some(request) = work.queue.get(self.sending) else { return };
            let left = payload_of(request) - self.sent_bytes;
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

/// What one system call sends: headers, and payloads right out of their memory.
struct Ranges {
    ranges: [Range; RANGES],
    used: usize,
    /// The first request with a payload among them, and how many ranges there are up to its last one.
    first: u64,
    of_first: usize,
}

impl Ranges {
    fn new(headers: Range, first: u64) -> Self {
        let mut ranges = Self { ranges: [Range::default(); RANGES], used: 0, first, of_first: 0 };
        if headers.length > 0 {
            ranges.push(first, headers);
            ranges.of_first = 0;
        }
        ranges
    }

    fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds a range of request `index`. False when there is no room.
    fn push(&mut self, index: u64, range: Range) -> bool {
        let Some(slot) = self.ranges.get_mut(self.used) else { return false };
        *slot = range;
        self.used += 1;
        if self.of_first == 0 {
            self.first = index;
        }
        if index == self.first {
            self.of_first = self.used;
        }
        true
    }

    /// Sends what fits. The kernel fills whole buffers, so memory that it cannot read may be of a later request than the
    /// next to go: `EFAULT` only when it is of the first one.
    fn send(&self, socket: std::os::fd::BorrowedFd<'_>) -> Result<usize, Errno> {
        let all = self.ranges.get(..self.used).unwrap_or(&[]);
        match send(socket, all) {
            Err(Errno::FAULT) if self.of_first < self.used => {
                send(socket, all.get(..self.of_first).unwrap_or(&[]))
            }
            answer => answer,
        }
    }
}

enum Refused {
    GroupFull,
    Failed(CompletionStatus),
}

/// Checks the local side of a request. A READ's too: it fails before the peer is asked, not when the bytes come.
fn check_request(
    work: &Work<'_>,
    pins: &mut PinSet<'_>,
    index: u64,
    request: &QueuedRequest,
) -> Result<(), Refused> {
    if request.length > u64::from(MAX_MESSAGE) {
        return Err(Refused::Failed(CompletionStatus::LocalLength));
    }
    let (local, _) = rights(request.opcode);
    for piece in work.queue.pieces(index, 0) {
        check_piece(pins, &piece, local).map_err(|problem| match problem {
            Unpinned::Full => Refused::GroupFull,
            Unpinned::Violation(_) => Refused::Failed(CompletionStatus::LocalProtection),
        })?;
    }
    Ok(())
}
