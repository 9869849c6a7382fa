//! The responder's half of the TCP path: one peer's requests to one queue pair.

mod answer;
mod guesses;
mod reads;
mod writes;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;

use super::frame::{FrameKind, GROUP, REQUEST_SIZE, RequestHeader, ResponseHeader};
use crate::fabric::software::device_core::Core;
use crate::fabric::software::endpoint::{Endpoint, listener_of};
use crate::fabric::software::socket::{ReceiveBuffer, has_peer_closed};
use crate::fabric::software::table::Counterpart;
use crate::fabric::software::work::CONNECT_PATIENCE;
use crate::fabric::software::wrong_keys::PeerRecord;
use crate::fabric::{CompletionStatus, QpAddress};
use crate::fork::OwnSocket;
use answer::{Answer, ReadRange};

/// Bytes that one turn moves before other peers have theirs.
const TURN: u64 = 1 << 20;
/// The same for what is thrown away: no request waits for it. 64 KiB take some 10 us.
const DRAIN_TURN: u64 = 64 << 10;
/// How long what a peer still sends is thrown away after a failure, so that it can read what failed.
const DRAIN: Duration = Duration::from_secs(2);
/// For how long it is taken as true that the peer had not closed. Longer than one system call takes, so that most requests need
/// no second one only to look; far shorter than a process is stopped for.
const LOOK_HOLDS: Duration = Duration::from_micros(200);
/// In pieces of this size.
const SCRATCH: usize = 16 * 1024;

/// What the connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum WaitsFor {
    /// More requests.
    Read,
    /// Room to answer.
    Write,
    /// Another turn: there is work left.
    Again,
    /// Our side to be connected, or its turn.
    Parked,
    /// Nothing: close it.
    Close,
}

/// One peer's way to one of our queue pairs.
#[derive(Debug)]
pub(in super::super) struct Server {
    socket: OwnSocket<OwnedFd>,
    endpoint: Arc<Endpoint>,
    sender: QpAddress,
    /// Headers of one group, and never a byte of a payload.
    buffer: ReceiveBuffer,
    /// Headers of the group that are still to come; 0 before its first one.
    headers_left: usize,
    /// Requests of the group that are not done. The first one is request `done`.
    pending: VecDeque<RequestHeader>,
    /// Bytes of the first one that are moved.
    offset: u64,
    outgoing: Option<Answer>,
    /// Room for the ranges of the next answer.
    ranges_read: Vec<ReadRange>,
    /// Requests carried out, and how many of them the peer has been told of.
    done: u64,
    told: u64,
    /// There was less in the socket than there was room for: nothing is left in it.
    emptied: bool,
    /// Set when a request failed: all that comes now is thrown away, until then.
    draining: Option<Instant>,
    parked: bool,
    /// When the peer first asked for something although our side was not connected.
    asking_since: Option<Instant>,
    /// What wrong keys have cost this peer.
    peer_record: Arc<PeerRecord>,
    /// A key that may be guessed, and when it is looked at.
    held: Option<(u32, Instant)>,
    /// The last one that was: the requests that go on with it do not wait.
    admitted: Option<u32>,
    /// The peer has closed: it has given up what it was not told to be done, so nothing more of that is carried out.
    has_closed: bool,
    /// When that was looked at.
    looked: Option<Instant>,
    /// The peer closes the socket because nothing has used it: its queue pair goes on.
    rests: bool,
}

/// Ends a turn.
struct Stop(WaitsFor);

impl Server {
    pub(in super::super) fn new(
        socket: OwnSocket<OwnedFd>,
        endpoint: Arc<Endpoint>,
        sender: QpAddress,
        peer_record: Arc<PeerRecord>,
    ) -> Self {
        Self {
            socket,
            endpoint,
            sender,
            buffer: ReceiveBuffer::new(GROUP * REQUEST_SIZE),
            headers_left: 0,
            pending: VecDeque::with_capacity(GROUP),
            offset: 0,
            outgoing: None,
            ranges_read: Vec::with_capacity(GROUP),
            done: 0,
            told: 0,
            emptied: false,
            draining: None,
            parked: false,
            asking_since: None,
            peer_record,
            held: None,
            admitted: None,
            has_closed: false,
            looked: None,
            rests: false,
        }
    }

    pub(in super::super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The queue pair that it serves.
    pub(in super::super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether both serve one sender's requests to one queue pair.
    pub(in super::super) fn is_of_same_sender(&self, other: &Self) -> bool {
        let key = |server: &Self| (server.endpoint.qpn(), server.sender.qpn, listener_of(&server.sender));
        key(self) == key(other)
    }

    /// Whether it waits for our side to be connected, or for its turn.
    pub(in super::super) fn is_parked(&self) -> bool {
        self.parked
    }

    /// Whether it lives on only to let the peer read what failed.
    pub(in super::super) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// What a look at its socket has shown of whether the peer has closed.
    pub(in super::super) fn note_look(&mut self, now: Instant, has_closed: bool) {
        self.has_closed |= has_closed;
        self.looked = Some(now);
    }

    /// Looks whether the peer has sent a request, by a call that receives it. False: nothing has come, and at `now` the peer had
    /// not closed. Only while it waits for one.
    pub(in super::super) fn looks_for_request(&mut self, now: Instant) -> bool {
        match self.buffer.fill_to(&self.socket, REQUEST_SIZE) {
            Err(Errno::AGAIN) => {
                self.note_look(now, false);
                false
            }
            // The turn finds an end or an error again.
            _ => true,
        }
    }

    /// Whether it waits for the first header of a group and for nothing else.
    pub(in super::super) fn waits_for_request(&self) -> bool {
        let is_between = self.pending.is_empty() && self.buffer.is_empty() && self.outgoing.is_none();
        is_between && !self.is_draining() && !self.parked
    }

    /// Serves for one turn.
    pub(in super::super) fn serve(&mut self, core: &Core) -> WaitsFor {
        let mut budget = if self.is_draining() { DRAIN_TURN } else { TURN };
        self.emptied = false;
        if !(self.pending.is_empty() && self.buffer.is_empty()) {
            self.look_for_the_end();
        }
        loop {
            if let Err(Stop(waits_for)) = self.step(core, &mut budget) {
                if waits_for == WaitsFor::Close
                    && !self.rests
                    && self.endpoint.counterpart(&self.sender) == Counterpart::Ready
                {
                    self.endpoint.set_peer_gone();
                }
                self.parked = waits_for == WaitsFor::Parked;
                return waits_for;
            }
        }
    }

    fn step(&mut self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        if self.draining.is_some_and(|until| Instant::now() >= until) {
            return self.end_drain(core);
        }
        if self.outgoing.is_some() {
            return self.send(core, budget);
        }
        if self.draining.is_some() {
            return self.drain(core, budget);
        }
        match self.endpoint.counterpart(&self.sender) {
            Counterpart::Ready => {}
            Counterpart::NotYet => return self.wait_for_our_side(),
            Counterpart::Gone => return Err(Stop(WaitsFor::Close)),
        }
        if *budget == 0 {
            self.tell();
            return if self.outgoing.is_some() { Ok(()) } else { Err(Stop(WaitsFor::Again)) };
        }
        let must_wait =
            self.peer_record.is_limited() && self.headers_left == 0 && !self.may_be_looked_at(core);
        match self.pending.front().filter(|_| self.headers_left == 0) {
            None => self.take_header(budget),
            Some(_) if self.has_closed => Err(Stop(WaitsFor::Close)),
            Some(header) if header.length == 0 => {
                self.next_request();
                Ok(())
            }
            Some(_) if must_wait => self.wait_for_turn(),
            Some(header) if header.action == FrameKind::Read => {
                self.answer_reads(core);
                Ok(())
            }
            Some(_) => self.receive_writes(core, budget),
        }
    }

    /// Takes a header of a group out of the buffer, or fills that.
    fn take_header(&mut self, budget: &mut u64) -> Result<(), Stop> {
        if let Some(bytes) = self.buffer.take::<REQUEST_SIZE>() {
            // Headers count too, or a stream of empty requests would never let others have their turn.
            *budget = budget.saturating_sub(REQUEST_SIZE as u64);
            return self.take_request(&bytes);
        }
        if self.emptied {
            return self.wait_for_more();
        }
        let answer = self.buffer.fill_to(&self.socket, self.headers_left.max(1) * REQUEST_SIZE);
        self.look_for_the_end();
        self.note_receipt(answer).map(|_| ())
    }

    fn take_request(&mut self, bytes: &[u8; REQUEST_SIZE]) -> Result<(), Stop> {
        let Ok(header) = RequestHeader::decode(bytes) else { return Err(Stop(WaitsFor::Close)) };
        if header.action == FrameKind::Rest {
            self.rests = self.pending.is_empty();
            return Err(Stop(WaitsFor::Close));
        }
        let following = usize::from(header.following);
        let is_next = header.sequence == self.done + self.pending.len() as u64;
        if !is_next || (self.headers_left > 0 && following + 1 != self.headers_left) {
            return Err(Stop(WaitsFor::Close));
        }
        self.headers_left = following;
        self.pending.push_back(header);
        Ok(())
    }

    /// Our side is not connected yet. That is no error, but a peer that asks for something does not wait for ever.
    fn wait_for_our_side(&mut self) -> Result<(), Stop> {
        if self.buffer.is_empty() {
            let answer = self.buffer.fill_to(&self.socket, REQUEST_SIZE);
            self.note_receipt(answer)?;
        }
        let since = *self.asking_since.get_or_insert_with(Instant::now);
        Err(Stop(if since.elapsed() < CONNECT_PATIENCE { WaitsFor::Parked } else { WaitsFor::Close }))
    }

    /// Whether the peer has closed while requests of it still lie in the socket. This process may have been stopped
    /// for long, and what those requests would overwrite may have been used for something else since.
    fn look_for_the_end(&mut self) {
        let now = Instant::now();
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK_HOLDS) {
            return;
        }
        self.note_look(now, has_peer_closed(self.socket.as_fd()));
    }

    /// Bytes received. When there are none for now, tells the peer first what is done.
    fn note_receipt(&mut self, answer: Result<usize, Errno>) -> Result<u64, Stop> {
        match answer {
            Ok(0) => Err(Stop(WaitsFor::Close)),
            Ok(received) => Ok(received as u64),
            Err(Errno::AGAIN) => self.wait_for_more().map(|()| 0),
            Err(_) => Err(Stop(WaitsFor::Close)),
        }
    }

    /// There is nothing more for now.
    fn wait_for_more(&mut self) -> Result<(), Stop> {
        self.tell();
        if self.outgoing.is_some() { Ok(()) } else { Err(Stop(WaitsFor::Read)) }
    }

    /// The first request of the group is done.
    fn next_request(&mut self) {
        self.pending.pop_front();
        self.offset = 0;
        self.done += 1;
    }

    /// Request `done` has no access: says so.
    fn refuse(&mut self, core: &Core) {
        if self.pending.front().is_some_and(|header| core.regions.is_guess(header.rkey)) {
            core.note_wrong_key(&self.peer_record);
        }
        let failure = ResponseHeader::Failed { sequence: self.done, status: CompletionStatus::RemoteAccess };
        self.outgoing = Some(Answer::header(failure));
        self.fail();
    }

    /// Nothing more is carried out. Both queue pairs go down, as with RC: the peer's by the answer, and ours when the peer has
    /// closed. Earlier, the news of it could reach the peer before the reason does, behind all that READs have brought.
    fn fail(&mut self) {
        self.pending.clear();
        self.draining = Some(Instant::now() + DRAIN);
    }

    /// Prepares the answer that covers all that is done and not told yet.
    fn tell(&mut self) {
        if self.told < self.done {
            self.told = self.done;
            self.outgoing = Some(Answer::header(ResponseHeader::Done { sequence: self.done - 1 }));
        }
    }

    /// Throws away what the peer sends, until it has closed.
    fn drain(&self, core: &Core, budget: &mut u64) -> Result<(), Stop> {
        if *budget == 0 {
            return Err(Stop(WaitsFor::Again));
        }
        let mut scratch = [0_u8; SCRATCH];
        match retry_on_intr(|| rustix::net::recv(&self.socket, &mut scratch[..], RecvFlags::DONTWAIT)) {
            Ok((received, _)) if received > 0 => {
                *budget = budget.saturating_sub(received as u64);
                Ok(())
            }
            Err(Errno::AGAIN) => Err(Stop(WaitsFor::Read)),
            _ => self.end_drain(core),
        }
    }

    /// The peer has closed, or had its time to.
    fn end_drain(&self, core: &Core) -> Result<(), Stop> {
        core.queue_pair_fatal(&self.endpoint);
        Err(Stop(WaitsFor::Close))
    }
}
