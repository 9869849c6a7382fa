//! The responder's half of the TCP path: one peer's requests to one queue pair.
#![allow(unsafe_code, reason = "receives into registered memory")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::frame::{Action, REQUEST_SIZE, RESPONSE_SIZE, RequestHeader, ResponseHeader};
use crate::fabric::software::copy;
use crate::fabric::software::device::Core;
use crate::fabric::software::endpoint::Endpoint;
use crate::fabric::software::socket::{Range, ReceiveBuffer, receive, send};
use crate::fabric::software::table::{Counterpart, Pinned, Right, Violation};
use crate::fabric::software::transport::CONNECT_PATIENCE;
use crate::fabric::{CompletionStatus, QpAddress};

/// Bytes that one turn moves before other peers have theirs.
const TURN: u64 = 1 << 20;
/// Requests are read through a buffer of this size; larger payloads go to their place directly.
const BUFFER: usize = 64 * 1024;
/// Largest payload of one frame of an answer to READ.
const CHUNK: u64 = 1 << 20;
/// How long what a peer still sends is thrown away after a failure, so that it can read what failed.
const DRAIN: Duration = Duration::from_secs(2);
/// Sent in place of memory whose registration ended in the middle of a frame.
static ZEROES: [u8; 4096] = [0; 4096];

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Wish {
    /// More requests.
    Read,
    /// Room to answer.
    Write,
    /// Another turn: there is work left.
    Again,
    /// Our side to be connected.
    Parked,
    /// Nothing: close it.
    Close,
}

/// One peer's way to one of our queue pairs.
#[derive(Debug)]
pub(in super::super) struct Server {
    socket: OwnedFd,
    endpoint: Arc<Endpoint>,
    sender: QpAddress,
    buffer: ReceiveBuffer,
    /// A WRITE whose payload is coming in, and how much of it is in place.
    incoming: Option<(RequestHeader, u64)>,
    outgoing: Option<Outgoing>,
    /// A READ that is being answered, and how much of it was framed.
    reading: Option<(RequestHeader, u64)>,
    /// Requests carried out, and how many of them the peer has been told of.
    done: u64,
    told: u64,
    /// Set when a request failed: all that comes now is thrown away, until then.
    draining: Option<Instant>,
    parked: bool,
    /// When the peer first asked for something although our side was not connected.
    asking_since: Option<Instant>,
    /// The peer has closed: it has given up what it was not told to be done, so nothing more of that is carried out.
    abandoned: bool,
}

/// A frame that is being sent, with what follows its payload at once.
#[derive(Debug)]
struct Outgoing {
    header: [u8; RESPONSE_SIZE],
    payload: Option<Payload>,
    /// Bytes of header, payload and trailer sent.
    sent: u64,
}

/// A piece of the memory that a READ asks for.
#[derive(Debug)]
struct Payload {
    sequence: u64,
    rkey: u32,
    address: u64,
    length: u64,
    /// Whether it is the end of what the READ asks for.
    last: bool,
    /// The registration ended in the middle of it: the rest is zeroes, and then the failure is told.
    revoked: bool,
}

/// Ends a turn.
struct Stop(Wish);

impl Server {
    pub(in super::super) fn new(socket: OwnedFd, endpoint: Arc<Endpoint>, sender: QpAddress) -> Self {
        Self {
            socket,
            endpoint,
            sender,
            buffer: ReceiveBuffer::new(BUFFER),
            incoming: None,
            outgoing: None,
            reading: None,
            done: 0,
            told: 0,
            draining: None,
            parked: false,
            asking_since: None,
            abandoned: false,
        }
    }

    pub(in super::super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The queue pair that it serves, and who asks.
    pub(in super::super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether it waits for our side to be connected.
    pub(in super::super) fn is_parked(&self) -> bool {
        self.parked
    }

    /// Serves for one turn.
    pub(in super::super) fn serve(&mut self, core: &Core) -> Wish {
        let mut budget = TURN;
        self.look_for_the_end();
        loop {
            if let Err(Stop(wish)) = self.step(core, &mut budget) {
                if wish == Wish::Close && self.endpoint.counterpart(&self.sender) == Counterpart::Ready {
                    self.endpoint.set_peer_gone();
                }
                self.parked = wish == Wish::Parked;
                return wish;
            }
        }
    }

    fn step(&mut self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        if self.outgoing.is_some() {
            return self.send(core, budget);
        }
        if let Some(until) = self.draining {
            return self.drain(until);
        }
        match self.endpoint.counterpart(&self.sender) {
            Counterpart::Ready => {}
            Counterpart::NotYet => return self.wait_for_our_side(),
            Counterpart::Gone => return Err(Stop(Wish::Close)),
        }
        if *budget == 0 {
            self.tell();
            return if self.outgoing.is_some() { Ok(()) } else { Err(Stop(Wish::Again)) };
        }
        if self.reading.is_some() {
            self.frame_answer();
            Ok(())
        } else if self.incoming.is_some() {
            self.receive_payload(core, budget)
        } else if let Some(bytes) = self.buffer.take::<REQUEST_SIZE>() {
            // Headers count too, or a stream of empty requests would never let others have their turn.
            *budget = budget.saturating_sub(REQUEST_SIZE as u64);
            self.take_request(core, &bytes)
        } else {
            let answer = self.buffer.fill(&self.socket);
            self.look_for_the_end();
            self.note_receipt(answer).map(|_| ())
        }
    }

    /// Our side is not connected yet. That is no error, but a peer that asks for something does not wait for ever.
    fn wait_for_our_side(&mut self) -> Result<(), Stop> {
        if self.buffer.is_empty() {
            let answer = self.buffer.fill(&self.socket);
            self.note_receipt(answer)?;
        }
        let since = *self.asking_since.get_or_insert_with(Instant::now);
        Err(Stop(if since.elapsed() < CONNECT_PATIENCE { Wish::Parked } else { Wish::Close }))
    }

    /// Whether the peer has closed while requests of it still lie in the socket. This process may have been stopped
    /// for long, and what those requests would overwrite may have been used for something else since.
    fn look_for_the_end(&mut self) {
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let answer = retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())));
        let [socket] = fds;
        self.abandoned = matches!(answer, Ok(1..)) && !socket.revents().is_empty();
    }

    /// Bytes received. When there are none for now, tells the peer first what is done.
    fn note_receipt(&mut self, answer: Result<usize, Errno>) -> Result<u64, Stop> {
        match answer {
            Ok(0) => Err(Stop(Wish::Close)),
            Ok(received) => Ok(received as u64),
            Err(Errno::AGAIN) => {
                self.tell();
                if self.outgoing.is_some() { Ok(0) } else { Err(Stop(Wish::Read)) }
            }
            Err(_) => Err(Stop(Wish::Close)),
        }
    }

    fn take_request(&mut self, core: &Core, bytes: &[u8; REQUEST_SIZE]) -> Result<(), Stop> {
        let Ok(header) = RequestHeader::decode(bytes) else { return Err(Stop(Wish::Close)) };
        if header.action == Action::Violation {
            core.queue_pair_fatal(&self.endpoint);
            return Err(Stop(Wish::Close));
        }
        if header.sequence != self.done {
            return Err(Stop(Wish::Close));
        }
        if header.length == 0 {
            self.done += 1;
            return Ok(());
        }
        if self.abandoned {
            return Err(Stop(Wish::Close));
        }
        if access(core, &header).is_err() {
            self.refuse(core);
        } else if header.action == Action::Write {
            self.incoming = Some((header, 0));
        } else {
            self.reading = Some((header, 0));
        }
        Ok(())
    }

    /// Request `done` has no access: says so.
    fn refuse(&mut self, core: &Core) {
        self.outgoing = Some(Outgoing::header(no_access(self.done)));
        self.fail(core);
    }

    /// Takes both queue pairs down, as RC does: the peer's by the answer, ours here.
    fn fail(&mut self, core: &Core) {
        self.incoming = None;
        self.reading = None;
        self.draining = Some(Instant::now() + DRAIN);
        core.queue_pair_fatal(&self.endpoint);
    }

    fn receive_payload(&mut self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        let Some((header, offset)) = self.incoming else { return Ok(()) };
        if self.abandoned {
            return Err(Stop(Wish::Close));
        }
        let Ok(_pinned) = access(core, &header) else {
            self.refuse(core);
            return Ok(());
        };
        let address = header.remote_address + offset;
        let wanted = (u64::from(header.length) - offset).min(*budget);
        let received = if self.buffer.is_empty() {
            // SAFETY: the range was checked against its region, which is pinned until after the call.
            let answer = unsafe { receive(self.socket.as_fd(), address, wanted) };
            self.note_receipt(answer)?
        } else {
            let bytes = self.buffer.take_up_to(wanted);
            // SAFETY: as above for the target; the source is borrowed.
            unsafe { copy::copy(bytes.as_ptr() as u64, address, bytes.len() as u64) };
            bytes.len() as u64
        };
        *budget -= received;
        let offset = offset + received;
        self.incoming = Some((header, offset));
        if offset == u64::from(header.length) {
            self.incoming = None;
            self.done += 1;
        }
        Ok(())
    }

    /// Prepares the next frame of the answer to a READ.
    fn frame_answer(&mut self) {
        let Some((header, offset)) = self.reading.take() else { return };
        let left = u64::from(header.length) - offset;
        let length = left.min(CHUNK);
        let answer = ResponseHeader::Data { sequence: header.sequence, length: length as u32 };
        self.outgoing = Some(Outgoing {
            payload: Some(Payload {
                sequence: header.sequence,
                rkey: header.rkey,
                address: header.remote_address + offset,
                length,
                last: length == left,
                revoked: false,
            }),
            ..Outgoing::header(answer)
        });
        if left > length {
            self.reading = Some((header, offset + length));
        }
    }

    /// Prepares the answer that covers all that is done and not told yet.
    fn tell(&mut self) {
        if self.told < self.done && self.reading.is_none() {
            self.told = self.done;
            self.outgoing = Some(Outgoing::header(ResponseHeader::Done { sequence: self.done - 1 }));
        }
    }

    fn send(&mut self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        match outgoing.send(core, self.socket.as_fd()) {
            Ok(sent) => *budget = budget.saturating_sub(sent),
            Err(Errno::AGAIN) => return Err(Stop(Wish::Write)),
            Err(_) => return Err(Stop(Wish::Close)),
        }
        if outgoing.is_sent() {
            let payload = self.outgoing.take().and_then(|outgoing| outgoing.payload);
            if payload.as_ref().is_some_and(|payload| payload.revoked) {
                self.fail(core);
            } else if payload.is_some_and(|payload| payload.last) {
                self.done += 1;
                self.told = self.done;
            }
        }
        Ok(())
    }

    fn drain(&mut self, until: Instant) -> Result<(), Stop> {
        if Instant::now() >= until {
            return Err(Stop(Wish::Close));
        }
        self.buffer.take_up_to(u64::MAX);
        match self.buffer.fill(&self.socket) {
            Ok(received) if received > 0 => Ok(()),
            Err(Errno::AGAIN) => Err(Stop(Wish::Read)),
            _ => Err(Stop(Wish::Close)),
        }
    }

    /// Whether it lives on only to let the peer read what failed.
    pub(in super::super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }
}

impl Outgoing {
    fn header(answer: ResponseHeader) -> Self {
        Self { header: answer.encode(), payload: None, sent: 0 }
    }

    /// Sends some more of it; says how much.
    fn send(&mut self, core: &Core, socket: BorrowedFd<'_>) -> Result<u64, Errno> {
        let sent = self.sent;
        let header = Range::of(self.header.get(sent as usize..).unwrap_or(&[]));
        let Some(payload) = &mut self.payload else {
            let sent = send(socket, &[header])? as u64;
            self.sent += sent;
            return Ok(sent);
        };
        let offset = sent.saturating_sub(RESPONSE_SIZE as u64);
        let left = payload.length.saturating_sub(offset);
        // Pinned until the bytes are in the socket's buffer. Once they all are, nothing can go wrong with them.
        let _pinned = if left > 0 { payload.pin(core) } else { None };
        let body = match left {
            _ if !payload.revoked => Range::new(payload.address + offset.min(payload.length), left),
            left => Range { length: ZEROES.len().min(left as usize), ..Range::of(&ZEROES) },
        };
        let trailer = payload.trailer();
        let skip = offset.saturating_sub(payload.length) as usize;
        let tail = trailer.as_ref().and_then(|bytes| bytes.get(skip..)).unwrap_or(&[]);
        // After a part of the zeroes comes more of them.
        let ends = body.length as u64 == left;
        let ranges = [header, body, if ends { Range::of(tail) } else { Range::default() }];
        let sent = send(socket, &ranges)? as u64;
        self.sent += sent;
        Ok(sent)
    }

    fn is_sent(&self) -> bool {
        let rest = self.payload.as_ref().map_or(0, |payload| {
            payload.length + payload.trailer().map_or(0, |trailer| trailer.len() as u64)
        });
        self.sent == RESPONSE_SIZE as u64 + rest
    }
}

impl Payload {
    /// Pins the memory, or notes that it cannot be had any more.
    fn pin<'a>(&mut self, core: &'a Core) -> Option<Pinned<'a>> {
        let pinned = core.regions.view().pin(self.rkey).ok().filter(|_| !self.revoked);
        let pinned =
            pinned.filter(|pinned| pinned.check(self.address, self.length, Right::RemoteRead).is_ok());
        self.revoked = pinned.is_none();
        pinned
    }

    /// What is said right after it.
    fn trailer(&self) -> Option<[u8; RESPONSE_SIZE]> {
        if self.revoked {
            Some(no_access(self.sequence).encode())
        } else if self.last {
            Some(ResponseHeader::Done { sequence: self.sequence }.encode())
        } else {
            None
        }
    }
}

fn no_access(sequence: u64) -> ResponseHeader {
    ResponseHeader::Failed { sequence, status: CompletionStatus::RemoteAccess }
}

/// Pins what a request wants, if its key, bounds and rights allow it.
fn access<'a>(core: &'a Core, header: &RequestHeader) -> Result<Pinned<'a>, Violation> {
    let right = if header.action == Action::Write { Right::RemoteWrite } else { Right::RemoteRead };
    let pinned = core.regions.view().pin(header.rkey)?;
    pinned.check(header.remote_address, u64::from(header.length), right)?;
    Ok(pinned)
}
