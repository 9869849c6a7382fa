//! A frame that is being sent, with what follows its payload at once.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::fabric::CompletionStatus;
use crate::fabric::software::device_core::Core;
use crate::fabric::software::socket::{Range, send};
use crate::fabric::software::table::Right;
use crate::fabric::software::tcp::frame::{GROUP, RESPONSE_SIZE, ResponseHeader};
use crate::fabric::software::work::{PinSet, Unpinned};

/// Sent in place of memory that cannot be read any more.
static ZEROES: [u8; 4096] = [0; 4096];

/// Header, payload and trailer.
#[derive(Debug)]
pub(super) struct Answer {
    header: [u8; RESPONSE_SIZE],
    ranges_read: Vec<ReadRange>,
    /// Bytes of all of them.
    length: u64,
    /// What the READs end with.
    trailer: Option<[u8; RESPONSE_SIZE]>,
    /// Where in the payload memory begins that cannot be read: from there on it is zeroes, and then the failure is told.
    zeroes_from: Option<u64>,
    /// Bytes of header, payload and trailer sent.
    sent: u64,
}

/// Memory that a READ asks for.
#[derive(Debug)]
pub(super) struct ReadRange {
    pub(super) sequence: u64,
    pub(super) rkey: u32,
    pub(super) address: u64,
    pub(super) length: u64,
}

/// What one system call sends.
struct Ranges {
    ranges: [Range; GROUP + 2],
    used: usize,
    /// Ranges up to the first one of registered memory.
    to_first: usize,
}

impl Answer {
    pub(super) fn header(header: ResponseHeader) -> Self {
        let header = header.encode();
        Self { header, ranges_read: Vec::new(), length: 0, trailer: None, zeroes_from: None, sent: 0 }
    }

    /// The next bytes of READs in a row, or, if not `whole`, of one alone.
    pub(super) fn data(ranges_read: Vec<ReadRange>, whole: bool) -> Self {
        let length = ranges_read.iter().map(|range| range.length).sum::<u64>();
        let sequence = |range: Option<&ReadRange>| range.map_or(0, |range| range.sequence);
        let header = ResponseHeader::Data { sequence: sequence(ranges_read.first()), length: length as u32 };
        let last = ResponseHeader::Done { sequence: sequence(ranges_read.last()) };
        let trailer = whole.then(|| last.encode());
        Self { ranges_read, length, trailer, ..Self::header(header) }
    }

    pub(super) fn ranges_read(&self) -> &[ReadRange] {
        &self.ranges_read
    }

    /// The room of its ranges, empty again.
    pub(super) fn into_room(mut self) -> Vec<ReadRange> {
        self.ranges_read.clear();
        self.ranges_read
    }

    /// Whether the last READ in it is done with it.
    pub(super) fn ends_reads(&self) -> bool {
        self.trailer.is_some()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.zeroes_from.is_some()
    }

    pub(super) fn is_sent(&self) -> bool {
        let trailer = self.trailer.map_or(0, |trailer| trailer.len() as u64);
        self.sent == RESPONSE_SIZE as u64 + self.length + trailer
    }

    /// Sends some more of it; says how much.
    pub(super) fn send(&mut self, core: &Core, socket: BorrowedFd<'_>) -> Result<u64, Errno> {
        // Pinned until the bytes are in the socket's buffer. Once they all are, nothing can go wrong with them.
        let mut pins = PinSet::new(core.regions.view());
        let ranges = self.collect(&mut pins);
        let mut answer = send(socket, ranges.all());
        if answer == Err(Errno::FAULT) && ranges.to_first < ranges.used {
            // Not always of the first range: the kernel fills whole buffers.
            answer = send(socket, ranges.to_first());
        }
        if answer == Err(Errno::FAULT) {
            self.cannot_read(self.payload_sent());
            return Ok(0);
        }
        let sent = answer? as u64;
        self.sent += sent;
        Ok(sent)
    }

    fn payload_sent(&self) -> u64 {
        self.sent.saturating_sub(RESPONSE_SIZE as u64).min(self.length)
    }

    fn collect(&mut self, pins: &mut PinSet<'_>) -> Ranges {
        let mut ranges = Ranges { ranges: [Range::default(); GROUP + 2], used: 0, to_first: 0 };
        ranges.push(Range::of(self.header.get(self.sent as usize..).unwrap_or(&[])));
        let done = self.payload_sent();
        let mut start = 0;
        for range in &self.ranges_read {
            let end = start + range.length;
            if self.zeroes_from.is_some() || done >= end {
                start = end;
                continue;
            }
            match pins.check(range.rkey, range.address, range.length, Right::RemoteRead) {
                Ok(_) => {}
                Err(Unpinned::Full) => return ranges,
                Err(Unpinned::Violation(_)) if ranges.to_first == 0 => {
                    self.cannot_read(done.max(start));
                    break;
                }
                // What is before it goes first.
                Err(Unpinned::Violation(_)) => return ranges,
            }
            let skip = done.saturating_sub(start);
            ranges.push(Range::new(range.address + skip, range.length - skip));
            if ranges.to_first == 0 {
                ranges.to_first = ranges.used;
            }
            start = end;
        }
        if self.zeroes_from.is_some() {
            let left = self.length - done;
            ranges.push(Range { length: ZEROES.len().min(left as usize), ..Range::of(&ZEROES) });
            if left > ZEROES.len() as u64 {
                // After these zeroes comes more of them.
                return ranges;
            }
        }
        let skip = self.sent.saturating_sub(RESPONSE_SIZE as u64 + self.length) as usize;
        ranges.push(Range::of(self.trailer.as_ref().and_then(|bytes| bytes.get(skip..)).unwrap_or(&[])));
        ranges
    }

    /// The memory at this place of the payload is not to be had.
    fn cannot_read(&mut self, place: u64) {
        let mut start = 0;
        let failed = self.ranges_read.iter().find(|range| {
            start += range.length;
            place < start
        });
        let sequence = failed.map_or(0, |range| range.sequence);
        self.zeroes_from = Some(place);
        let failure = ResponseHeader::Failed { sequence, status: CompletionStatus::RemoteAccess };
        self.trailer = Some(failure.encode());
    }
}

impl Ranges {
    fn push(&mut self, range: Range) {
        if let Some(slot) = self.ranges.get_mut(self.used).filter(|_| range.length > 0) {
            *slot = range;
            self.used += 1;
        }
    }

    fn all(&self) -> &[Range] {
        self.ranges.get(..self.used).unwrap_or(&[])
    }

    fn to_first(&self) -> &[Range] {
        self.ranges.get(..self.to_first).unwrap_or(&[])
    }
}
