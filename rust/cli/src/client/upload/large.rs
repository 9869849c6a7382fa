//! Files of several chunks, and streams: one at a time, with an answer before the first chunk and after the last.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::Opcode;

use super::{Upload, answer};
use crate::client::{CHECK_INTERVAL, Moved, Posted, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::interrupt;
use crate::pipeline::{Digest, Filled, Next, Source};
use crate::store::{Content, Prefix};
use crate::wire::Frame;
use crate::wire::control::ControlError;

/// How often a server is told that the source has nothing yet: well within its shortest `--idle-limit` of use.
const STILL_HERE: Duration = Duration::from_millis(500);

impl Upload<'_> {
    /// The result of the file; the outer error is that of the stream.
    pub(super) fn send_large(&mut self, mut content: Content, name: &str) -> Result<Result<Moved>> {
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
                Ok(_) => {
                    self.progress.remark(&format!("put {name}: what was kept of it differs; starting over"))
                }
                Err(error) if matches!(error.problem(), Problem::Store(_)) => {
                    return self.abort(request, error);
                }
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
        let (mut at_end, mut failed, mut told) = (false, None, Instant::now());
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
                // A stream that gives nothing for a while.
                Next::NotYet if idle && told.elapsed() > STILL_HERE => {
                    self.client.working()?;
                    told = Instant::now();
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
}
