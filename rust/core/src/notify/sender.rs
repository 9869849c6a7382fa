//! Sending notifications to one peer.

use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::queue::Queue;
use super::{LargeMessage, Message, Notification, NotifyError};
use crate::control::Stream;
use crate::control::wire::notification::{Header, MESSAGE_SIZE, NAME_SIZE};
use crate::events::{Interest, is_ready};

/// A sender to one peer's receiver. Any thread may send; messages are sent whole, in the order in which threads
/// acquired the lock.
#[derive(Debug)]
pub struct Sender {
    transport: Transport,
    peer: String,
    max_bytes: usize,
}

#[derive(Debug)]
enum Transport {
    Socket { stream: Stream, turn: TimedLock },
    SameProcess(Arc<Queue>),
}

impl Sender {
    /// A sender over the socket of a finished handshake. `max_bytes` is what the peer announced, 0 for an original
    /// engine.
    pub fn new(stream: Stream, max_bytes: u32) -> Self {
        let peer = stream.peer().to_string();
        Self {
            transport: Transport::Socket { stream, turn: TimedLock::default() },
            peer,
            max_bytes: max_bytes as usize,
        }
    }

    /// A sender to the engine of this process with this incarnation; `None` when there is none.
    pub fn same_process(incarnation: u64, max_bytes: u32) -> Option<Self> {
        let queue = Queue::of(incarnation)?;
        let peer = "an engine of this process".to_owned();
        Some(Self { transport: Transport::SameProcess(queue), peer, max_bytes: max_bytes as usize })
    }

    /// Sends a message; returns its size, 512 bytes. The peer may not have read it yet.
    ///
    /// Waits until `deadline` for a peer that does not read. If only part of a message was sent by then, the channel
    /// is closed, because the peer could not find the start of the next one.
    pub fn send(&self, message: &Message, deadline: Instant) -> Result<usize, NotifyError> {
        match &self.transport {
            Transport::SameProcess(queue) => {
                self.push(queue, Notification::Fixed(Box::new(*message)), deadline)?
            }
            Transport::Socket { stream, turn } => {
                let mut bytes = Vec::with_capacity(MESSAGE_SIZE);
                bytes.extend(Header::Message.encode());
                bytes.extend(message.name);
                bytes.extend(message.text);
                self.write(stream, turn, &[&bytes], deadline)?;
            }
        }
        Ok(Message::SIZE)
    }

    /// Sends a message of any size up to the peer's limit, with its exact length; returns the bytes of its content. A
    /// peer that runs the original engine gets it as one of 512 bytes, padded with zeros, if it fits.
    ///
    /// Sizes are checked before anything is copied.
    pub fn send_bytes(&self, name: &[u8], content: &[u8], deadline: Instant) -> Result<usize, NotifyError> {
        let length = self.check(name, content)?;
        if self.max_bytes == 0 {
            self.send(&Message::new(name, content), deadline)?;
            return Ok(content.len());
        }
        match &self.transport {
            Transport::SameProcess(queue) => {
                let message = LargeMessage::new(name, content.to_vec());
                self.push(queue, Notification::Exact(Box::new(message)), deadline)?;
            }
            Transport::Socket { stream, turn } => {
                let mut front = Header::Large(length).encode().to_vec();
                front.extend(super::padded(name));
                self.write(stream, turn, &[&front, content], deadline)?;
            }
        }
        Ok(content.len())
    }

    /// Whether the peer takes a message now: its queue has room, or the socket some for its beginning.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.transport {
            Transport::SameProcess(queue) => queue.is_ready(),
            Transport::Socket { stream, .. } => {
                stream.is_closed() || is_ready(stream.as_fd(), Interest::Write).unwrap_or(true)
            }
        }
    }

    /// The length of the content on the wire, if name and content may be sent.
    pub(crate) fn check(&self, name: &[u8], content: &[u8]) -> Result<u32, NotifyError> {
        let (peer, bytes, limit) = (self.peer.clone(), content.len(), self.max_bytes);
        if name.len() > NAME_SIZE {
            return Err(NotifyError::NameTooLong { peer, bytes: name.len() });
        }
        if limit == 0 && bytes > NAME_SIZE {
            return Err(NotifyError::OriginalPeer { peer, bytes });
        }
        let fits = |_: &u32| limit == 0 || bytes <= limit;
        u32::try_from(bytes).ok().filter(fits).ok_or(NotifyError::TooLarge { peer, bytes, limit })
    }

    fn push(&self, queue: &Queue, arrival: Notification, deadline: Instant) -> Result<(), NotifyError> {
        match queue.push_by(arrival, deadline) {
            true => Ok(()),
            false => Err(self.failed("its queue stayed full until the deadline, or is closed".to_owned())),
        }
    }

    fn write(
        &self,
        stream: &Stream,
        turn: &TimedLock,
        parts: &[&[u8]],
        deadline: Instant,
    ) -> Result<(), NotifyError> {
        if !turn.begin(deadline) {
            return Err(self.failed("other messages kept the channel busy until the deadline".to_owned()));
        }
        let result = if stream.is_closed() {
            Err(NotifyError::NoChannel)
        } else {
            let mut parts = parts.iter();
            parts.try_for_each(|part| stream.write_all_by(part, deadline)).map_err(|error| {
                stream.shutdown();
                self.failed(format!("{error}; the channel is closed now"))
            })
        };
        turn.end();
        result
    }

    fn failed(&self, reason: String) -> NotifyError {
        NotifyError::Send { peer: self.peer.clone(), reason }
    }
}

/// A lock with a deadline for waiting.
#[derive(Debug, Default)]
struct TimedLock {
    taken: Mutex<bool>,
    free: Condvar,
}

impl TimedLock {
    fn begin(&self, deadline: Instant) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.free.wait_timeout_while(taken, left, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut *taken, true)
    }

    fn end(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.free.notify_one();
    }
}
