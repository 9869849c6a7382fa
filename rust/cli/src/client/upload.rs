//! Sending files: WRITE chunk after chunk into the server's slots. Small files follow each other without waiting for answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::Opcode;

use super::{CHECK_INTERVAL, Client, Moved, Posted, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::interrupt;
use crate::output::progress::Progress;
use crate::output::units;
use crate::pipeline::{Digest, Filled, Next, Source, small};
use crate::store::{Content, Prefix};
use crate::wire::control::ControlError;
use crate::wire::{Frame, Small, is_small};

/// Most small files that may be unanswered: more than a server collects before it answers.
const WINDOW: usize = 128;

/// Called at the end of each file, with its name.
pub(super) type Ended<'a> = &'a mut dyn FnMut(&str, Result<Moved>);

/// Files that are being sent, one after the other.
pub(super) struct Upload<'a> {
    client: &'a Client,
    force: bool,
    resume: bool,
    progress: &'a Progress,
    ended: Ended<'a>,
    /// Next chunk to start.
    sent: u64,
    /// Chunks that the server was told of.
    reported: u64,
    /// Chunks of which the server has freed the slot.
    credited: u64,
    /// Small files being written, oldest first, each with its announcement; an empty one has no transfer.
    small: VecDeque<(Option<Posted>, Small, Instant)>,
    /// Announcements that are sent together.
    outbox: Vec<Frame>,
    /// Small files that were announced, oldest first.
    unanswered: VecDeque<(Small, Instant)>,
}

impl<'a> Upload<'a> {
    pub(super) fn new(
        client: &'a Client,
        (force, resume): (bool, bool),
        progress: &'a Progress,
        ended: Ended<'a>,
    ) -> Self {
        let sent = client.next_put.get();
        let (small, outbox, unanswered) = (VecDeque::new(), Vec::new(), VecDeque::new());
        let (reported, credited) = (sent, sent);
        Self { client, force, resume, progress, ended, sent, reported, credited, small, outbox, unanswered }
    }

    /// Sends a file. Its end may be reported later. An error is that of the stream, and ends all.
    pub(super) fn add(&mut self, content: Content, name: &str) -> Result<()> {
        interrupt::check()?;
        if is_small(content.size(), self.client.ring.shape().chunk) {
            self.add_small(content, name)
        } else {
            self.wait_for_small()?;
            let moved = self.send_large(content, name)?;
            (self.ended)(name, moved);
            Ok(())
        }
    }

    /// A file that cannot be sent.
    pub(super) fn failed(&mut self, name: &str, error: CliError) {
        (self.ended)(name, Err(error));
    }

    /// Waits until all files have ended.
    pub(super) fn finish(mut self) -> Result<()> {
        self.wait_for_small()?;
        self.client.next_put.set(self.sent);
        Ok(())
    }

    fn add_small(&mut self, content: Content, name: &str) -> Result<()> {
        while !self.has_room() || self.small.len() + self.unanswered.len() >= WINDOW {
            self.step()?;
        }
        let (attributes, sequence) = (content.attributes(), self.sent);
        let Digest { bytes, hash } = match small::fill(content, &self.client.ring, sequence) {
            Ok(digest) => digest,
            Err(error) => {
                (self.ended)(name, Err(error.into()));
                return Ok(());
            }
        };
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        let posted = match length {
            0 => None,
            _ => Some(self.client.start(Opcode::Write, sequence, length)?),
        };
        self.sent += 1;
        self.client.new_request();
        let (name, force) = (name.to_owned(), self.force);
        self.small.push_back((posted, Small { name, force, attributes, sequence, length, hash }, Instant::now()));
        self.announce_small(false)?;
        if self.outbox.len() * 2 >= usize::from(self.client.ring.shape().slots) {
            self.send_outbox()?;
        }
        while let Some(frame) = self.client.control.try_receive()? {
            self.take(frame)?;
        }
        Ok(())
    }

    /// Collects the announcements of small files that have been written; with `wait` it waits a short time for the first.
    fn announce_small(&mut self, mut wait: bool) -> Result<()> {
        while let Some((posted, ..)) = self.small.front() {
            if let Some(posted) = posted
                && !self.client.is_done(posted, wait)?
            {
                break;
            }
            wait = false;
            if let Some((_, small, started)) = self.small.pop_front() {
                self.reported += 1;
                self.outbox.push(Frame::Small(small.clone()));
                self.unanswered.push_back((small, started));
            }
        }
        Ok(())
    }

    fn send_outbox(&mut self) -> Result<()> {
        Ok(self.client.control.send_all(&std::mem::take(&mut self.outbox))?)
    }

    /// Goes on with small files, waiting for their transfers or for the server.
    fn step(&mut self) -> Result<()> {
        interrupt::check()?;
        self.announce_small(true)?;
        self.send_outbox()?;
        if self.small.is_empty() {
            let frame = self.client.receive()?;
            self.take(frame)?;
        }
        while let Some(frame) = self.client.control.try_receive()? {
            self.take(frame)?;
        }
        Ok(())
    }

    fn wait_for_small(&mut self) -> Result<()> {
        while !self.small.is_empty() {
            self.step()?;
        }
        if !self.unanswered.is_empty() {
            self.outbox.push(Frame::Sync);
        }
        self.send_outbox()?;
        while !self.unanswered.is_empty() || self.credited < self.sent {
            let frame = self.client.receive()?;
            self.take(frame)?;
        }
        Ok(())
    }

    /// Takes a frame that comes while small files are sent.
    fn take(&mut self, frame: Frame) -> Result<()> {
        if self.take_credit(&frame, None) {
            return Ok(());
        }
        let Some((Small { name, length, hash, .. }, started)) = self.unanswered.pop_front() else {
            return Err(unexpected(&frame));
        };
        let sent = Digest { bytes: u64::from(length), hash };
        let moved = answer(frame, sent)?.map(|()| {
            self.progress.advance(sent.bytes);
            Moved { bytes: sent.bytes, hash, elapsed: started.elapsed(), resumed: 0 }
        });
        (self.ended)(&name, moved);
        Ok(())
    }

    /// The result of the file; the outer error is that of the stream.
    fn send_large(&mut self, mut content: Content, name: &str) -> Result<Result<Moved>> {
        let request = self.client.new_request();
        let (size, attributes) = (content.size(), content.attributes());
        let (force, resume) = (self.force, self.resume);
        self.client.control.send(&Frame::Put { name: name.to_owned(), size, force, resume, attributes })?;
        let (kept, hash) = match self.client.receive()? {
            Frame::Kept { bytes, hash } => (bytes, hash),
            Frame::Failed { text } => return Ok(Err(ControlError::Refused(text).into())),
            other => return Err(unexpected(&other)),
        };
        let started = Instant::now();
        let mut prefix = Prefix::default();
        if size.is_some_and(|size| (1..=size).contains(&kept)) {
            match content.hash_prefix(kept, &mut || self.client.working()) {
                Ok(own) if own.hash() == hash => {
                    content.skip_to(kept)?;
                    prefix = own;
                }
                Ok(_) => self.progress.remark(&format!("put {name}: what was kept of it differs; starting over")),
                Err(error) if matches!(error.problem(), Problem::Store(_)) => return self.abort(request, error),
                Err(error) => return Err(error),
            }
        }
        let resumed = prefix.bytes;
        self.progress.advance(resumed);
        self.client.control.send(&Frame::Start { offset: resumed })?;
        let source = Source::start(content, Arc::clone(&self.client.ring), prefix, self.sent)
            .map_err(|error| CliError::other(error.to_string()))?;
        let failed = match self.send_chunks(&source) {
            Ok(failed) => failed,
            // A file that cannot be read to its end is the cause of any other error. A stream may never end.
            Err(error) if size.is_some() => return source.finish().map_err(CliError::from).and(Err(error)),
            Err(error) => return Err(error),
        };
        let moved = match (failed, source.finish()) {
            (Some(text), _) => {
                self.client.control.send(&Frame::Abort { request })?;
                Err(ControlError::Refused(text).into())
            }
            (None, Err(error)) => return self.abort(request, error.into()),
            (None, Ok(sent)) => {
                self.client.control.send(&Frame::Finish { bytes: sent.bytes, hash: sent.hash })?;
                let Digest { bytes, hash } = sent;
                self.answer(sent)?.map(|()| Moved { bytes, hash, elapsed: started.elapsed(), resumed })
            }
        };
        self.wait_for_credit()?;
        Ok(moved)
    }

    /// Ends a file that cannot be sent, because of `error`.
    fn abort(&mut self, request: u64, error: CliError) -> Result<Result<Moved>> {
        self.client.control.send(&Frame::Abort { request })?;
        // Its reason is this side's.
        let _aborted = self.answer(Digest { bytes: 0, hash: [0; 32] })?;
        self.wait_for_credit()?;
        Ok(Err(error))
    }

    /// The server's answer about a file with this digest.
    fn answer(&mut self, sent: Digest) -> Result<Result<()>> {
        loop {
            let frame = self.client.receive()?;
            if !self.take_credit(&frame, None) {
                return answer(frame, sent);
            }
        }
    }

    fn wait_for_credit(&mut self) -> Result<()> {
        while self.credited < self.sent {
            let frame = self.client.receive()?;
            if !self.take_credit(&frame, None) {
                return Err(unexpected(&frame));
            }
        }
        Ok(())
    }

    /// Sends a file's chunks; returns the server's reason if it does not want the rest.
    fn send_chunks(&mut self, source: &Source) -> Result<Option<String>> {
        let mut posted = VecDeque::new();
        let sent = self.send_posted(source, &mut posted);
        // After an error, none may read the ring any more.
        posted.drain(..).for_each(|posted: Posted| {
            self.client.connection.cancel(posted.id);
        });
        sent
    }

    fn send_posted(&mut self, source: &Source, posted: &mut VecDeque<Posted>) -> Result<Option<String>> {
        let (mut at_end, mut failed) = (false, None);
        while !(at_end && posted.is_empty()) {
            interrupt::check()?;
            while let Some(frame) = self.client.control.try_receive()? {
                self.take_answer(frame, source, &mut failed)?;
            }
            at_end |= failed.is_some();
            let idle = posted.is_empty();
            let next = match (at_end, self.has_room(), idle) {
                (true, ..) | (_, false, false) => Next::NotYet,
                (_, false, true) => {
                    let frame = self.client.receive()?;
                    self.take_answer(frame, source, &mut failed)?;
                    continue;
                }
                (_, true, true) => source.next_within(CHECK_INTERVAL),
                (_, true, false) => source.try_next(),
            };
            let started = matches!(next, Next::Chunk(_));
            match next {
                Next::Chunk(Filled { sequence, length }) => {
                    posted.push_back(self.client.start(Opcode::Write, sequence, length)?);
                    self.sent = sequence + 1;
                }
                Next::NotYet => {}
                Next::End => at_end = true,
            }
            self.report_done(posted, !started)?;
        }
        Ok(failed)
    }

    /// Announces chunks that have been written to the server, oldest first; with `wait` it waits a short time for the first.
    fn report_done(&mut self, posted: &mut VecDeque<Posted>, mut wait: bool) -> Result<()> {
        while let Some(oldest) = posted.front().copied() {
            if !self.client.is_done(&oldest, wait)? {
                break;
            }
            wait = false;
            posted.pop_front();
            self.client.control.send(&Frame::Filled { sequence: oldest.sequence, length: oldest.length })?;
            self.reported += 1;
            self.progress.advance(u64::from(oldest.length));
        }
        Ok(())
    }

    fn take_answer(&mut self, frame: Frame, source: &Source, failed: &mut Option<String>) -> Result<()> {
        match frame {
            Frame::Failed { text } if failed.is_none() => {
                *failed = Some(text);
                Ok(())
            }
            frame if self.take_credit(&frame, Some(source)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn has_room(&self) -> bool {
        self.sent - self.credited < u64::from(self.client.ring.shape().slots)
    }

    /// Counts a credit. False: it is another frame.
    fn take_credit(&mut self, frame: &Frame, source: Option<&Source>) -> bool {
        let is_next = matches!(frame, Frame::Credit { sequence }
            if *sequence == self.credited && *sequence < self.reported);
        if is_next {
            self.credited += 1;
            if let Some(source) = source {
                source.release();
            }
        }
        is_next
    }
}

/// What the server says of a file that was sent; the outer error is that of the stream.
fn answer(frame: Frame, sent: Digest) -> Result<Result<()>> {
    match frame {
        Frame::Finish { bytes, hash } if bytes == sent.bytes && hash == sent.hash => Ok(Ok(())),
        Frame::Finish { hash, .. } => {
            let text = format!("sent {}, stored {}", units::hex(&sent.hash), units::hex(&hash));
            Ok(Err(Problem::Mismatch(text).into()))
        }
        Frame::Failed { text } => Ok(Err(ControlError::Refused(text).into())),
        other => Err(unexpected(&other)),
    }
}
