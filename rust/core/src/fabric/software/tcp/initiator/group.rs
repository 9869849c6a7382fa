//! Requests that are sent together: their headers, and how much of those is sent.

use crate::fabric::Opcode;
use crate::fabric::software::send_queue::QueuedRequest;
use crate::fabric::software::socket::Range;
use crate::fabric::software::tcp::frame::{FrameKind, GROUP, REQUEST_SIZE, RequestHeader};

/// Once begun, a group is what it is: the peer counts on the payloads that its headers announce.
#[derive(Debug)]
pub(super) struct RequestGroup {
    headers: Vec<u8>,
    headers_sent: usize,
    /// Behind its last request.
    end: u64,
}

impl RequestGroup {
    pub(super) fn new() -> Self {
        Self { headers: Vec::with_capacity(GROUP * REQUEST_SIZE), headers_sent: 0, end: 0 }
    }

    /// Begins the group of requests `first..end`, at most [`GROUP`], which the peer counts without the `skipped`.
    pub(super) fn begin<'a>(
        &mut self,
        first: u64,
        end: u64,
        skipped: u64,
        request: impl Fn(u64) -> Option<&'a QueuedRequest>,
    ) {
        self.headers.clear();
        self.headers_sent = 0;
        self.end = end;
        for index in first..end {
            let Some(request) = request(index) else { return };
            let header = RequestHeader {
                action: FrameKind::from(request.opcode),
                following: (end - 1 - index) as u8,
                rkey: request.rkey,
                remote_address: request.remote_address,
                length: request.length as u32,
                sequence: index - skipped,
            };
            self.headers.extend_from_slice(&header.encode());
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The headers that are not sent yet.
    pub(super) fn headers(&self) -> Range {
        Range::of(self.headers.get(self.headers_sent..).unwrap_or(&[]))
    }

    pub(super) fn headers_are_sent(&self) -> bool {
        self.headers_sent == self.headers.len()
    }

    /// Takes what was sent of the headers off `sent`, and answers the rest, which is of payloads.
    pub(super) fn note_sent(&mut self, sent: u64) -> u64 {
        let of_headers = sent.min(self.headers().length as u64);
        self.headers_sent += of_headers as usize;
        sent - of_headers
    }
}

/// What follows the group's headers for this request.
pub(super) fn payload_of(request: &QueuedRequest) -> u64 {
    if request.opcode == Opcode::Write { request.length } else { 0 }
}
