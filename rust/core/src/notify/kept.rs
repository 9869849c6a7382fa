//! A notification socket that is made anew, with a peer that does the same: see `FLAGCX_P2P_CONTROL_REDIAL`.
//!
//! The sender names the socket's link once. The receiver answers how many messages of that link it has delivered, and says so again
//! while it receives. The sender keeps messages until then, and sends those that are not delivered again over the next socket. What
//! the receiver has of a former socket is dropped when the next one names the link: so its number is final.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::sender::{TimedLock, is_deadline};
use crate::control::Stream;
use crate::control::resume::SentLog;
use crate::control::wire::notification::COUNT_SIZE;
use crate::events::{EventLoopHandle, Interest, Wakeup, is_ready};
use crate::sync::{Mutex, lock};

/// Messages, and bytes, that are kept for a peer that has not delivered them.
pub(super) const ROOM: (usize, usize) = (1024, 4 << 20);
/// How often room is looked for.
const LOOK: Duration = Duration::from_millis(2);
/// Reads of what a peer has said, at one time: one that sends without end must not keep the thread, which may be the event loop.
const READS: usize = 4;
/// How long the messages may take that are sent again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a socket stays open behind its connection for a peer that has not read everything, and how often it is looked at.
pub(crate) const LINGER: Duration = Duration::from_secs(10);
const LINGER_LOOK: Duration = Duration::from_millis(20);

const LOST_COUNT: &str = "the peer has lost count of them";

/// The sending end of a link.
#[derive(Debug)]
pub(super) struct Kept {
    turn: TimedLock,
    state: Mutex<State>,
    /// Wakes the task that makes the socket anew.
    wakeup: OnceLock<Arc<Wakeup>>,
}

#[derive(Debug)]
struct State {
    /// `None` until there is another one.
    stream: Option<Arc<Stream>>,
    log: SentLog,
    /// Of an answer of the receiver: less than a whole one.
    answer: Vec<u8>,
    /// Why no more are sent.
    over: Option<&'static str>,
}

impl Kept {
    pub(super) fn new(stream: Stream) -> Self {
        let log = SentLog::new(ROOM.0, ROOM.1);
        let state = State { stream: Some(Arc::new(stream)), log, answer: Vec::new(), over: None };
        Self { turn: TimedLock::default(), state: Mutex::new(state), wakeup: OnceLock::new() }
    }

    /// `wakeup` is woken when there is something to look at.
    pub(super) fn attach(&self, wakeup: &Arc<Wakeup>) {
        let _ = self.wakeup.set(Arc::clone(wakeup));
    }

    fn wake(&self) {
        if let Some(wakeup) = self.wakeup.get() {
            wakeup.wake();
        }
    }

    /// Sends a message, or keeps it for the next socket. After an error nothing of it was sent.
    pub(super) fn write(&self, parts: &[&[u8]], deadline: Instant) -> Result<(), String> {
        while self.turn.begin(deadline) {
            let written = self.try_write(parts, deadline);
            self.turn.end();
            if let Some(written) = written {
                return written;
            }
            if Instant::now() >= deadline {
                return Err(
                    "the peer has not delivered earlier ones by the deadline; nothing of it was sent"
                        .to_owned(),
                );
            }
            std::thread::sleep(LOOK);
        }
        Err("other messages kept the channel busy until the deadline".to_owned())
    }

    /// As [`Kept::write`], if there is room now and no other message is being sent.
    pub(super) fn write_now(&self, parts: &[&[u8]], limit: Duration) -> Option<Result<(), String>> {
        let now = Instant::now();
        if !self.turn.begin(now) {
            return None;
        }
        let written = self.is_ready().then(|| self.try_write(parts, now + limit)).flatten();
        self.turn.end();
        written
    }

    /// Whether a message would be taken now.
    pub(super) fn is_ready(&self) -> bool {
        let mut state = lock(&self.state);
        state.read();
        let takes = |stream: &Arc<Stream>| is_ready(stream.as_fd(), Interest::Write).unwrap_or(true);
        state.over.is_some() || state.log.has_room() && state.stream.as_ref().is_none_or(takes)
    }

    /// `None` without room. The caller has its turn.
    fn try_write(&self, parts: &[&[u8]], deadline: Instant) -> Option<Result<(), String>> {
        let message = parts.concat();
        let (stream, is_first) = {
            let mut state = lock(&self.state);
            state.read();
            if let Some(why) = state.over {
                return Some(Err(why.to_owned()));
            }
            if !state.log.has_room() {
                return None;
            }
            let is_first = state.log.is_empty();
            state.log.push(message.clone());
            (state.stream.clone(), is_first)
        };
        if is_first {
            self.wake();
        }
        let Some(stream) = stream else { return Some(Ok(())) };
        let mut sent = 0;
        if let Err(error) = stream.write_counted_by(&message, deadline, &mut sent) {
            if sent == 0 && is_deadline(&error) {
                // The turn is still this thread's, so it is the last one.
                lock(&self.state).log.take_back();
                return Some(Err(format!("{error}; nothing of it was sent, and the channel stays open")));
            }
            tracing::debug!("the notification socket to {} is made anew: {error}", stream.peer());
            lock(&self.state).leave();
            self.wake();
        }
        Some(Ok(()))
    }

    /// Whether another socket is needed.
    pub(super) fn needs_socket(&self) -> bool {
        let mut state = lock(&self.state);
        state.read();
        state.stream.is_none() && state.over.is_none()
    }

    /// Whether messages are kept for a peer that may still say that it has them.
    pub(super) fn keeps_some(&self) -> bool {
        let state = lock(&self.state);
        state.over.is_none() && !state.log.is_empty()
    }

    /// No more are sent. Returns how many are kept: they do not arrive, or it is not known.
    pub(super) fn give_up(&self, why: &'static str) -> usize {
        let mut state = lock(&self.state);
        state.leave();
        state.over = Some(why);
        state.log.len()
    }

    /// No more are sent. Waits until the peer has read what it was sent, which it says by closing its end, at most until `deadline`.
    /// Then the socket has to stay open. Fails with the number of messages that may not arrive, for want of a socket.
    pub(super) fn end(&self, deadline: Instant) -> Result<Option<Lingering>, usize> {
        let mut lingering = {
            let mut state = lock(&self.state);
            state.read();
            let over = Some(*state.over.get_or_insert("the connection has ended"));
            let ended = State { stream: None, log: SentLog::new(ROOM.0, ROOM.1), answer: Vec::new(), over };
            Lingering(std::mem::replace(&mut *state, ended))
        };
        if let Some(stream) = &lingering.0.stream {
            stream.shutdown_write();
        }
        loop {
            match lingering.lost() {
                Some(0) => return Ok(None),
                Some(lost) => return Err(lost),
                None if Instant::now() >= deadline => return Ok(Some(lingering)),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    /// Takes the socket out of use: it may be of the path that has failed.
    pub(super) fn leave(&self) {
        lock(&self.state).leave();
    }

    /// Ends the socket, and leaves it to be found out.
    pub(super) fn break_socket(&self) {
        if let Some(stream) = &lock(&self.state).stream {
            stream.shutdown();
        }
    }

    /// Goes on over another socket; the receiver has delivered `count` messages.
    pub(super) fn relink(&self, stream: Stream, count: u64) {
        if !self.turn.begin(Instant::now() + AGAIN) {
            return;
        }
        let stream = Arc::new(stream);
        let missing = {
            let mut state = lock(&self.state);
            state.leave();
            if state.over.is_some() {
                drop(state);
                return self.turn.end();
            }
            let missing = state.log.missing(count);
            match &missing {
                Ok(_) => state.stream = Some(Arc::clone(&stream)),
                Err(error) => {
                    tracing::warn!("notifications to {} end: {error}", stream.peer());
                    state.over = Some(LOST_COUNT);
                }
            }
            missing
        };
        if let Ok(missing) = missing
            && stream.write_all_by(&missing, Instant::now() + AGAIN).is_err()
        {
            lock(&self.state).leave();
            self.wake();
        }
        self.turn.end();
    }
}

/// A socket of which this end has sent its last message, and the peer has not read all. Were it closed, then the kernel would throw away
/// what it has not sent yet as soon as the peer answers.
#[derive(Debug)]
pub(crate) struct Lingering(State);

impl Lingering {
    /// `None` while the peer may read more. Then how many messages may not have arrived: none if the peer has closed its end, which it does behind
    /// the last one.
    fn lost(&mut self) -> Option<usize> {
        let state = &mut self.0;
        if state.stream.is_none() {
            return Some(state.log.len());
        }
        match state.take_counts() {
            Ok(true) => None,
            Ok(false) => Some(0),
            Err(_) => Some(state.log.len()),
        }
    }

    /// Keeps it open until then, for at most `limit`. Returns how many messages may not have arrived.
    pub(crate) async fn close(mut self, limit: Duration, handle: EventLoopHandle) -> usize {
        let until = Instant::now() + limit;
        loop {
            match self.lost() {
                Some(lost) => return lost,
                None if Instant::now() >= until => return self.0.log.len(),
                None => handle.sleep(LINGER_LOOK).await,
            }
        }
    }
}

impl State {
    fn leave(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.shutdown();
        }
        self.answer.clear();
    }

    /// Reads how many messages have been delivered. A socket that has ended is taken out of use.
    fn read(&mut self) {
        if !matches!(self.take_counts(), Ok(true)) {
            self.leave();
        }
    }

    /// The same. Whether the socket is open; fails if it has failed, or what it says cannot be.
    fn take_counts(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 64 * COUNT_SIZE];
        for _ in 0..READS {
            let Some(stream) = &self.stream else { return Ok(false) };
            match stream.try_read(&mut bytes)? {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(count) => self.answer.extend(bytes.iter().take(count)),
            }
            self.take_answers()?;
        }
        Ok(true)
    }

    /// Takes the last whole number of what was read.
    fn take_answers(&mut self) -> io::Result<()> {
        let whole = self.answer.len() / COUNT_SIZE * COUNT_SIZE;
        let last = self.answer.get(..whole).and_then(|whole| whole.last_chunk::<COUNT_SIZE>());
        let Some(last) = last.copied() else { return Ok(()) };
        self.answer.drain(..whole);
        self.log.acknowledge(u64::from_le_bytes(last)).map_err(|error| {
            tracing::warn!("notifications end: {error}");
            self.over = Some(LOST_COUNT);
            io::Error::other(LOST_COUNT)
        })
    }
}

#[cfg(test)]
mod tests;
