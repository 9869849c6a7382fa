//! Sending notifications to one peer.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::kept::{Kept, Lingering};
use super::queue::Queue;
use super::{LargeMessage, Message, Notification, NotifyError};
use crate::control::Stream;
use crate::control::wire::notification::{Header, MESSAGE_SIZE, NAME_SIZE};
use crate::events::{Interest, Wakeup, is_ready};

/// Bytes of a content that a socket takes whole whenever it is ready for more: then a third of its buffer is free.
const AT_ONCE: usize = 2048;

/// How long the rest of such a message may take, should it not fit after all.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

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
    Socket {
        stream: Stream,
        turn: TimedLock,
    },
    /// With a peer that takes up a socket that is made anew.
    Kept(Kept),
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

    /// As [`Sender::new`], over a socket that has named its link: it is made anew when it fails, and messages are kept until the peer has
    /// delivered them.
    pub(crate) fn kept(stream: Stream, max_bytes: u32) -> Self {
        let peer = stream.peer().to_string();
        Self { transport: Transport::Kept(Kept::new(stream)), peer, max_bytes: max_bytes as usize }
    }

    /// `wakeup` is woken when the socket may have to be made anew.
    pub(crate) fn attach(&self, wakeup: &Arc<Wakeup>) {
        if let Transport::Kept(kept) = &self.transport {
            kept.attach(wakeup);
        }
    }

    /// Whether it needs another socket.
    pub(crate) fn needs_socket(&self) -> bool {
        matches!(&self.transport, Transport::Kept(kept) if kept.needs_socket())
    }

    /// Whether messages wait for the peer to deliver them.
    pub(crate) fn keeps_some(&self) -> bool {
        matches!(&self.transport, Transport::Kept(kept) if kept.keeps_some())
    }

    /// Takes the socket out of use, if it can be made anew.
    pub(crate) fn leave(&self) {
        if let Transport::Kept(kept) = &self.transport {
            kept.leave();
        }
    }

    /// Breaks a socket that can be made anew, as a network that fails does.
    pub(crate) fn break_socket(&self) {
        if let Transport::Kept(kept) = &self.transport {
            kept.break_socket();
        }
    }

    /// No more are sent, if the socket can be made anew, and has not been for too long. Returns how many messages do not arrive.
    pub(crate) fn give_up(&self, why: &'static str) -> usize {
        match &self.transport {
            Transport::Kept(kept) => kept.give_up(why),
            _ => 0,
        }
    }

    /// The connection ends. Over a socket that can be made anew, waits until the peer has read what it was sent, at most until
    /// `deadline`; then that is to be closed later. Fails with the number of messages that may not arrive.
    pub(crate) fn end(&self, deadline: Instant) -> Result<Option<Lingering>, usize> {
        match &self.transport {
            Transport::Kept(kept) => kept.end(deadline),
            _ => Ok(None),
        }
    }

    /// Goes on over another socket that has named the link; the peer has delivered `count` messages. May block for seconds.
    pub(crate) fn relink(&self, stream: Stream, count: u64) {
        if let Transport::Kept(kept) = &self.transport {
            kept.relink(stream, count);
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
                self.write(stream, turn, &[&encoded(message)], deadline)?;
            }
            Transport::Kept(kept) => {
                kept.write(&[&encoded(message)], deadline).map_err(|reason| self.failed(reason))?;
            }
        }
        Ok(Message::SIZE)
    }

    /// Sends a message of any size up to the peer's limit, with its exact length; returns the bytes of its content. A
    /// peer that runs the original engine gets it as one of 512 bytes, padded with zeros, if it fits.
    ///
    /// Sizes are checked before anything is copied.
    pub fn send_bytes(&self, name: &[u8], content: &[u8], deadline: Instant) -> Result<usize, NotifyError> {
        self.check(name, content)?;
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
                let front = self.front(name, content);
                self.write(stream, turn, &[&front, content], deadline)?;
            }
            Transport::Kept(kept) => {
                let front = self.front(name, content);
                kept.write(&[&front, content], deadline).map_err(|reason| self.failed(reason))?;
            }
        }
        Ok(content.len())
    }

    /// As [`Sender::send_bytes`], if the peer takes the whole message now; else sends nothing, and answers `None`. A socket takes
    /// messages of at most `AT_ONCE` bytes so.
    pub fn try_send_bytes(&self, name: &[u8], content: &[u8]) -> Result<Option<usize>, NotifyError> {
        self.check(name, content)?;
        let now = Instant::now();
        let sent = match &self.transport {
            Transport::SameProcess(queue) => {
                let sent = self.send_bytes(name, content, now);
                // One that is closed is ready.
                if sent.is_err() && !queue.is_ready() { None } else { Some(sent) }
            }
            Transport::Socket { .. } | Transport::Kept(_) if content.len() > AT_ONCE => None,
            Transport::Kept(kept) => {
                let front = self.front(name, content);
                let rest = if self.max_bytes == 0 { &[] } else { content };
                let sent = kept.write_now(&[&front, rest], WRITE_LIMIT);
                sent.map(|sent| sent.map(|()| content.len()).map_err(|reason| self.failed(reason)))
            }
            Transport::Socket { stream, turn } => {
                if !turn.begin(now) {
                    return Ok(None);
                }
                // No other thread fills the socket meanwhile, so that the message fits.
                let sent = self.is_ready().then(|| {
                    let front = self.front(name, content);
                    let rest = if self.max_bytes == 0 { &[] } else { content };
                    self.write_in_turn(stream, &[&front, rest], now + WRITE_LIMIT)
                });
                turn.end();
                sent.map(|sent| sent.map(|()| content.len()))
            }
        };
        sent.transpose()
    }

    /// What comes before the content; for an original peer it is the whole message.
    fn front(&self, name: &[u8], content: &[u8]) -> Vec<u8> {
        if self.max_bytes == 0 {
            return encoded(&Message::new(name, content));
        }
        let mut front = Header::Large(content.len() as u32).encode().to_vec();
        front.extend(super::padded(name));
        front
    }

    /// Whether the peer takes a message now: its queue has room, or the socket some for its beginning.
    pub(crate) fn is_ready(&self) -> bool {
        match &self.transport {
            Transport::SameProcess(queue) => queue.is_ready(),
            Transport::Kept(kept) => kept.is_ready(),
            Transport::Socket { stream, .. } => {
                stream.is_closed() || is_ready(stream.as_fd(), Interest::Write).unwrap_or(true)
            }
        }
    }

    /// Refuses a name or a content of a size that may not be sent.
    pub(crate) fn check(&self, name: &[u8], content: &[u8]) -> Result<(), NotifyError> {
        let (peer, bytes, limit) = (self.peer.clone(), content.len(), self.max_bytes);
        if name.len() > NAME_SIZE {
            return Err(NotifyError::NameTooLong { peer, bytes: name.len() });
        }
        if limit == 0 && bytes > NAME_SIZE {
            return Err(NotifyError::OriginalPeer { peer, bytes });
        }
        let fits = u32::try_from(bytes).is_ok() && (limit == 0 || bytes <= limit);
        if fits { Ok(()) } else { Err(NotifyError::TooLarge { peer, bytes, limit }) }
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
        let result = self.write_in_turn(stream, parts, deadline);
        turn.end();
        result
    }

    fn write_in_turn(&self, stream: &Stream, parts: &[&[u8]], deadline: Instant) -> Result<(), NotifyError> {
        if stream.is_closed() {
            return Err(NotifyError::NoChannel);
        }
        let mut sent = 0;
        let written = parts.iter().try_for_each(|part| stream.write_counted_by(part, deadline, &mut sent));
        written.map_err(|error| {
            if sent == 0 && is_deadline(&error) {
                return self.failed(format!("{error}; nothing of it was sent, and the channel stays open"));
            }
            stream.shutdown();
            self.failed(format!("{error}; the channel is closed now"))
        })
    }

    fn failed(&self, reason: String) -> NotifyError {
        NotifyError::Send { peer: self.peer.clone(), reason }
    }
}

/// Whether it was our own deadline that has passed, and not that of the kernel, which gives the connection up.
pub(super) fn is_deadline(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MESSAGE_SIZE);
    bytes.extend(Header::Message.encode());
    bytes.extend(message.name);
    bytes.extend(message.text);
    bytes
}

/// A lock with a deadline for waiting.
#[derive(Debug, Default)]
pub(super) struct TimedLock {
    taken: Mutex<bool>,
    free: Condvar,
}

impl TimedLock {
    pub(super) fn begin(&self, deadline: Instant) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.free.wait_timeout_while(taken, left, |taken| *taken);
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut *taken, true)
    }

    pub(super) fn end(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.free.notify_one();
    }
}
