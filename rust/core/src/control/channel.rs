//! The control channel that stays open between two engines of this kind: liveness, recovery of lanes, regions,
//! orderly end.
//!
//! Frames have a 12-byte header: magic (u32), version (u16), kind (u16), payload length (u32). Unknown kinds of a
//! later version are skipped.

mod frame;
mod path_frame;
mod region_frame;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

pub use frame::{
    ChannelFrame, MAX_FRAME, RailRefusal, Received, encode_acknowledgement, encode_nics, encode_offer,
};
pub use path_frame::PathAnswer;
pub use region_frame::RegionFrame;

use super::Stream;
use super::resume::{ReceivedCount, ResumeOffer, SentLog};
use super::wire::NicList;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Bytes that are read at a time.
const READ: usize = 16 << 10;
/// How often at most, in search of a Goodbye: for what a peer keeps of frames.
const LAST_READS: usize = 80;

/// A channel. Any thread may send; one at a time receives.
#[derive(Debug)]
pub struct Channel {
    /// The other end at first, by which the channel is named.
    peer: SocketAddr,
    /// It can be made anew.
    resumable: bool,
    /// `None` while the channel is away. Locked after `outgoing` and `received`, for a moment.
    stream: Mutex<Option<Arc<Stream>>>,
    outgoing: Mutex<Outgoing>,
    received: Mutex<Incoming>,
    /// Bytes received so far. Written under the lock of `received`, read by the thread that receives: Relaxed.
    bytes_received: AtomicU64,
}

#[derive(Debug, Default)]
struct Outgoing {
    /// Bytes of frames that the socket has not accepted yet. Frames are sent whole: later ones wait behind them.
    bytes: Vec<u8>,
    /// The frames that the peer may not have, if the channel can be made anew.
    log: Option<SentLog>,
    /// The number of received frames that the peer is to be told, once `bytes` are sent. The newest includes all before: a peer that
    /// does not read has one of them wait, not many.
    acknowledgement: Option<u64>,
}

impl Outgoing {
    /// A frame that is sent again if it is not received.
    fn push(&mut self, frame: Vec<u8>) {
        self.bytes.extend_from_slice(&frame);
        if let Some(log) = &mut self.log {
            log.push(frame);
        }
    }
}

#[derive(Debug, Default)]
struct Incoming {
    /// Bytes received that do not make a whole frame yet.
    bytes: Vec<u8>,
    count: ReceivedCount,
}

/// Frames, and bytes, that are kept for a peer that does not acknowledge them.
const ROOM: (usize, usize) = (256, 1 << 20);

impl Channel {
    /// Takes over the lane socket of a finished handshake.
    pub fn new(stream: Stream) -> Self {
        Self::with_log(stream, None)
    }

    /// As [`Channel::new`], and the channel can be made anew: see [`resume`](super::resume). Only if the peer does the same.
    pub fn resumable(stream: Stream) -> Self {
        Self::with_log(stream, Some(SentLog::new(ROOM.0, ROOM.1)))
    }

    fn with_log(stream: Stream, log: Option<SentLog>) -> Self {
        Self {
            peer: stream.peer(),
            resumable: log.is_some(),
            stream: Mutex::new(Some(Arc::new(stream))),
            outgoing: Mutex::new(Outgoing { log, ..Outgoing::default() }),
            received: Mutex::default(),
            bytes_received: AtomicU64::new(0),
        }
    }

    /// The other end, as it was at first.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The socket; `None` while the channel is away.
    pub fn stream(&self) -> Option<Arc<Stream>> {
        lock(&self.stream).clone()
    }

    /// Whether it can be made anew.
    pub fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// Whether the peer has closed in order, behind what has not been read yet. Reads that, and counts none of it: for a channel that is
    /// about to be taken out of use.
    pub fn has_goodbye(&self) -> bool {
        let mut received = lock(&self.received);
        let Some(stream) = self.stream() else { return false };
        let mut buffer = [0; READ];
        for _ in 0..LAST_READS {
            let Ok(Some(count @ 1..)) = stream.try_read(&mut buffer) else { break };
            received.bytes.extend(buffer.iter().take(count));
        }
        let mut rest = received.bytes.as_slice();
        while let Ok(Some((frame, size))) = Received::decode(rest) {
            if matches!(frame, Received::Frame(ChannelFrame::Goodbye)) {
                return true;
            }
            rest = rest.get(size..).unwrap_or_default();
        }
        false
    }

    /// Takes the socket out of use: nothing of it is received any more. Returns how many frames have been received.
    pub fn suspend(&self) -> u64 {
        let mut outgoing = lock(&self.outgoing);
        let mut received = lock(&self.received);
        if let Some(stream) = lock(&self.stream).take() {
            stream.shutdown();
        }
        // Frames that have not been sent whole are in the log.
        outgoing.bytes.clear();
        outgoing.acknowledgement = None;
        received.bytes.clear();
        received.count.tell()
    }

    /// Goes on over another socket, of which the peer has received `count` frames of this end; `greeting` are the first bytes for it.
    /// Only after [`Channel::suspend`]. `InvalidData`: that count cannot be.
    pub fn resume(&self, stream: Stream, greeting: &[u8], count: u64) -> io::Result<Arc<Stream>> {
        let mut outgoing = lock(&self.outgoing);
        let log = outgoing.log.as_mut().ok_or(ErrorKind::Unsupported)?;
        let missing = log.missing(count).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        outgoing.bytes = [greeting, &missing].concat();
        let stream = Arc::new(stream);
        *lock(&self.stream) = Some(Arc::clone(&stream));
        Ok(stream)
    }

    /// Whether another frame may be queued: one that can be made anew keeps what the peer has not acknowledged.
    pub fn has_room(&self) -> bool {
        !self.resumable || lock(&self.outgoing).log.as_ref().is_none_or(SentLog::has_room)
    }

    /// The peer has received so many frames. `InvalidData`: it cannot have.
    pub fn acknowledged(&self, count: u64) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        let Some(log) = &mut outgoing.log else { return Ok(()) };
        log.acknowledge(count).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Queues the number of received frames for [`Channel::flush`], if it is time to tell the peer; true if it was.
    pub fn acknowledge(&self) -> bool {
        if !self.resumable {
            return false;
        }
        let mut outgoing = lock(&self.outgoing);
        let due = lock(&self.received).count.due();
        outgoing.acknowledgement = due.or(outgoing.acknowledgement);
        due.is_some()
    }

    /// Sends a frame whole, behind what is queued. After an error the channel is shut down: part of the frame may be out.
    pub fn send(&self, frame: &ChannelFrame, deadline: Instant) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        let stream = self.stream().ok_or(ErrorKind::NotConnected)?;
        outgoing.bytes.extend(frame.encode());
        let bytes = std::mem::take(&mut outgoing.bytes);
        stream.write_all_by(&bytes, deadline).inspect_err(|_| stream.shutdown())
    }

    /// Queues a frame for [`Channel::flush`].
    pub fn queue(&self, frame: &ChannelFrame) {
        let mut outgoing = lock(&self.outgoing);
        match frame.is_numbered() {
            true => outgoing.push(frame.encode()),
            false => outgoing.bytes.extend(frame.encode()),
        }
    }

    /// Queues a frame about regions for [`Channel::flush`].
    pub fn queue_regions(&self, frame: &RegionFrame) {
        lock(&self.outgoing).push(frame.encode());
    }

    /// Queues the list of this engine's NICs for [`Channel::flush`].
    pub fn queue_nics(&self, nics: &NicList) {
        lock(&self.outgoing).push(encode_nics(nics));
    }

    /// Queues where this end can be dialled again for [`Channel::flush`].
    pub fn queue_offer(&self, offer: &ResumeOffer) {
        lock(&self.outgoing).push(encode_offer(offer));
    }

    /// Sends queued frames as far as the socket accepts them, without waiting; true once nothing is left. False while the channel is
    /// away.
    pub fn flush(&self) -> io::Result<bool> {
        let mut outgoing = lock(&self.outgoing);
        let Some(stream) = self.stream() else { return Ok(false) };
        loop {
            while !outgoing.bytes.is_empty() {
                match stream.try_write(&outgoing.bytes)? {
                    None => return Ok(false),
                    Some(count) => drop(outgoing.bytes.drain(..count)),
                }
            }
            let Some(count) = outgoing.acknowledgement.take() else { return Ok(true) };
            outgoing.bytes = encode_acknowledgement(count);
        }
    }

    /// Sends a frame without waiting, unless other frames are queued; false if it was not sent, or not completely:
    /// [`Channel::flush`] sends the rest.
    pub fn try_send(&self, frame: &ChannelFrame) -> io::Result<bool> {
        if !self.flush()? {
            return Ok(false);
        }
        self.queue(frame);
        self.flush()
    }

    /// The next complete frame that has arrived. Never blocks.
    ///
    /// `UnexpectedEof`: the peer has closed. `InvalidData`: a malformed frame. Both are final.
    pub fn try_read(&self) -> io::Result<Received> {
        let mut received = lock(&self.received);
        let Some(stream) = self.stream() else { return Ok(Received::Nothing) };
        loop {
            let decoded = Received::decode(&received.bytes)
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if let Some((frame, size)) = decoded {
                received.bytes.drain(..size);
                if frame.is_numbered() {
                    received.count.received(size);
                }
                return Ok(frame);
            }
            let mut buffer = [0; READ];
            match stream.try_read(&mut buffer)? {
                None => return Ok(Received::Nothing),
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(count) => {
                    self.bytes_received.fetch_add(count as u64, Ordering::Relaxed);
                    received.bytes.extend(buffer.iter().take(count));
                }
            }
        }
    }

    /// Bytes that [`Channel::try_read`] has received so far, of whole frames and of others.
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received.load(Ordering::Relaxed)
    }

    /// Whether received bytes wait to be read. The peer's end alone does not count.
    pub fn has_unread(&self) -> bool {
        self.stream().is_some_and(|stream| stream.has_unread())
    }

    /// Whether the peer has closed its end, as far as this host knows, or the channel is away.
    pub fn is_closed(&self) -> bool {
        self.stream().is_none_or(|stream| stream.is_closed())
    }

    /// Ends the socket in both directions.
    pub fn shutdown(&self) {
        if let Some(stream) = self.stream() {
            stream.shutdown();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
