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
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

pub use frame::{ChannelFrame, MAX_FRAME, RailRefusal, Received, encode_nics};
pub use path_frame::PathAnswer;
pub use region_frame::RegionFrame;

use super::Stream;
use super::wire::NicList;
use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// Bytes that are read at a time.
const READ: usize = 16 << 10;

/// A channel. Any thread may send; one at a time receives.
#[derive(Debug)]
pub struct Channel {
    stream: Stream,
    /// Bytes of frames that the socket has not accepted yet. Frames are sent whole: later ones wait behind them.
    outgoing: Mutex<Vec<u8>>,
    /// Bytes received that do not make a whole frame yet.
    received: Mutex<Vec<u8>>,
    /// Bytes received so far. Written under the lock of `received`, read by the thread that receives: Relaxed.
    bytes_received: AtomicU64,
}

impl Channel {
    /// Takes over the lane socket of a finished handshake.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            outgoing: Mutex::default(),
            received: Mutex::default(),
            bytes_received: AtomicU64::new(0),
        }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.stream.peer()
    }

    /// Sends a frame whole, behind what is queued. After an error the channel is shut down: part of the frame may be out.
    pub fn send(&self, frame: &ChannelFrame, deadline: Instant) -> io::Result<()> {
        let mut outgoing = lock(&self.outgoing);
        outgoing.extend(frame.encode());
        let bytes = std::mem::take(&mut *outgoing);
        self.stream.write_all_by(&bytes, deadline).inspect_err(|_| self.stream.shutdown())
    }

    /// Queues a frame for [`Channel::flush`].
    pub fn queue(&self, frame: &ChannelFrame) {
        lock(&self.outgoing).extend(frame.encode());
    }

    /// Queues a frame about regions for [`Channel::flush`].
    pub fn queue_regions(&self, frame: &RegionFrame) {
        lock(&self.outgoing).extend(frame.encode());
    }

    /// Queues the list of this engine's NICs for [`Channel::flush`].
    pub fn queue_nics(&self, nics: &NicList) {
        lock(&self.outgoing).extend(encode_nics(nics));
    }

    /// Sends queued frames as far as the socket accepts them, without waiting; true once nothing is left.
    pub fn flush(&self) -> io::Result<bool> {
        let mut outgoing = lock(&self.outgoing);
        while !outgoing.is_empty() {
            match self.stream.try_write(&outgoing)? {
                None => return Ok(false),
                Some(count) => drop(outgoing.drain(..count)),
            }
        }
        Ok(true)
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
        loop {
            let decoded =
                Received::decode(&received).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if let Some((frame, size)) = decoded {
                received.drain(..size);
                return Ok(frame);
            }
            let mut buffer = [0; READ];
            match self.stream.try_read(&mut buffer)? {
                None => return Ok(Received::Nothing),
                Some(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(count) => {
                    self.bytes_received.fetch_add(count as u64, Ordering::Relaxed);
                    received.extend(buffer.iter().take(count));
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
        self.stream.has_unread()
    }

    /// Whether the peer has closed its end, as far as this host knows.
    pub fn is_closed(&self) -> bool {
        self.stream.is_closed()
    }

    /// Ends the channel in both directions.
    pub fn shutdown(&self) {
        self.stream.shutdown();
    }
}

impl AsFd for Channel {
    /// Readable when [`Channel::try_read`] has a result.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
pub(crate) mod tests;
