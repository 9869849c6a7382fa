//! Sending notifications to one peer.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use super::queue::{Arrival, Queue};
use super::{LargeMessage, Message, NotifyError};
use crate::control::Stream;
use crate::control::wire::notification::{Header, MESSAGE_SIZE};

/// The way to one peer's receiver. Any thread may send; messages go out whole, in the order in which senders got
/// their turn.
#[derive(Debug)]
pub struct Sender {
    way: Way,
    peer: String,
    max_bytes: usize,
}

#[derive(Debug)]
enum Way {
    Socket { stream: Stream, turn: Turn },
    SameProcess(Arc<Queue>),
}

impl Sender {
    /// A sender over the socket of a finished handshake. `max_bytes` is what the peer announced, 0 for an original
    /// engine.
    pub fn new(stream: Stream, max_bytes: u32) -> Self {
        let peer = stream.peer().to_string();
        Self { way: Way::Socket { stream, turn: Turn::default() }, peer, max_bytes: max_bytes as usize }
    }

    /// A sender to an engine of this process, named by its incarnation; `None` when there is none.
    pub fn same_process(incarnation: u64, max_bytes: u32) -> Option<Self> {
        let queue = Queue::of(incarnation)?;
        let peer = "an engine of this process".to_owned();
        Some(Self { way: Way::SameProcess(queue), peer, max_bytes: max_bytes as usize })
    }

    /// Sends a message; answers its 512 bytes. That they are handed over does not mean that the peer has read them.
    ///
    /// A peer that does not read makes this wait until `deadline`. If only part of a message could be sent by then,
    /// the channel is closed, because the peer could not tell where the next one begins.
    pub fn send(&self, message: &Message, deadline: Instant) -> Result<usize, NotifyError> {
        match &self.way {
            Way::SameProcess(queue) => self.push(queue, Arrival::Small(Box::new(*message)), deadline)?,
            Way::Socket { stream, turn } => {
                let mut bytes = Vec::with_capacity(MESSAGE_SIZE);
                bytes.extend(Header::Message.encode());
                bytes.extend(message.name);
                bytes.extend(message.text);
                self.write(stream, turn, &bytes, deadline)?;
            }
        }
        Ok(Message::SIZE)
    }

    /// Sends a message of any size up to the peer's limit; answers the bytes of its content.
    pub fn send_large(&self, message: &LargeMessage, deadline: Instant) -> Result<usize, NotifyError> {
        let size = message.content.len();
        let length = u32::try_from(size).ok().filter(|_| size <= self.max_bytes).ok_or_else(|| {
            let limit = self.max_bytes;
            match limit {
                0 => self.failed("the peer takes messages of 512 bytes only".to_owned()),
                _ => self.failed(format!("{size} bytes, and the peer takes at most {limit}")),
            }
        })?;
        match &self.way {
            Way::SameProcess(queue) => {
                self.push(queue, Arrival::Large(Box::new(message.clone())), deadline)?
            }
            Way::Socket { stream, turn } => {
                let mut bytes = Header::Large(length).encode().to_vec();
                bytes.extend(message.name);
                bytes.extend(&message.content);
                self.write(stream, turn, &bytes, deadline)?;
            }
        }
        Ok(size)
    }

    fn push(&self, queue: &Queue, arrival: Arrival, deadline: Instant) -> Result<(), NotifyError> {
        match queue.push_by(arrival, deadline) {
            true => Ok(()),
            false => Err(self.failed("its queue stayed full, or it is closed".to_owned())),
        }
    }

    fn write(
        &self,
        stream: &Stream,
        turn: &Turn,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<(), NotifyError> {
        if !turn.begin(deadline) {
            return Err(self.failed("other messages kept the channel busy until the deadline".to_owned()));
        }
        let result = if stream.is_closed() {
            Err(NotifyError::NoChannel)
        } else {
            stream.write_all_by(bytes, deadline).map_err(|error| {
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

/// A lock that is waited for until a deadline only.
#[derive(Debug, Default)]
struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

impl Turn {
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
