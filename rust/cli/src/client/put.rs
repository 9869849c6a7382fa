//! Sending a file: WRITE chunk after chunk into the server's slots.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::Opcode;

use super::{Client, Moved, Posted, PutOptions, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::output::progress::Progress;
use crate::output::units;
use crate::pipeline::{Digest, Filled, Next, Source};
use crate::store::{Content, FileName};
use crate::wire::Frame;

/// The name to store a file under: `--name`, or the file's own.
pub(super) fn name_of(options: &PutOptions) -> Result<String> {
    let own = || options.file.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let name = options.name.clone().or_else(own).ok_or_else(|| {
        CliError::usage(format!("{} has no name in UTF-8; give one with --name", options.file.display()))
    })?;
    FileName::new(&name).map_err(|error| CliError::usage(error.to_string()))?;
    Ok(name)
}

impl Client {
    /// Stores `content` on the server as `name`.
    pub(crate) fn put(&self, content: Content, name: &str, force: bool) -> Result<Moved> {
        let size = content.size();
        self.control.send(&Frame::Put { name: name.to_owned(), size, force })?;
        match self.control.receive()? {
            Frame::Ready { size: agreed } if agreed == size => {}
            other => return Err(unexpected(&other)),
        }
        let started = Instant::now();
        let source = Source::start(content, Arc::clone(&self.ring))
            .map_err(|error| CliError::other(error.to_string()))?;
        let progress = Progress::new(&format!("put {name}"), size);
        let mut sender = Sender::new(self, &progress);
        let sent = sender.send_all(&source);
        sender.cancel_rest();
        // A file that cannot be read to its end is the cause of any other error.
        let digest = source.finish()?;
        sent?;
        self.finish_put(digest)?;
        progress.finish();
        Ok(Moved { bytes: size, hash: digest.hash, elapsed: started.elapsed() })
    }

    fn finish_put(&self, sent: Digest) -> Result<()> {
        self.control.send(&Frame::Finish { bytes: sent.bytes, hash: sent.hash })?;
        loop {
            match self.control.receive()? {
                Frame::Credit { .. } => {}
                Frame::Finish { bytes, hash } if bytes == sent.bytes && hash == sent.hash => return Ok(()),
                Frame::Finish { hash, .. } => {
                    let text = format!("sent {}, stored {}", units::hex(&sent.hash), units::hex(&hash));
                    return Err(Problem::Mismatch(text).into());
                }
                other => return Err(unexpected(&other)),
            }
        }
    }
}

/// The state of one file that is being sent.
struct Sender<'a> {
    client: &'a Client,
    progress: &'a Progress,
    /// Chunks being written, oldest first. They are reported to the server in this order.
    posted: VecDeque<Posted>,
    /// Next chunk to start.
    sequence: u64,
    /// Chunks that the server was told of.
    reported: u64,
    /// Chunks of which the server has freed the slot.
    credited: u64,
}

impl<'a> Sender<'a> {
    fn new(client: &'a Client, progress: &'a Progress) -> Self {
        Self { client, progress, posted: VecDeque::new(), sequence: 0, reported: 0, credited: 0 }
    }

    fn send_all(&mut self, source: &Source) -> Result<()> {
        let mut at_end = false;
        while !(at_end && self.posted.is_empty()) {
            while let Some(frame) = self.client.control.try_receive()? {
                self.take_credit(source, &frame)?;
            }
            let idle = self.posted.is_empty();
            let next = match (at_end, self.has_room(), idle) {
                (true, ..) => Next::NotYet,
                (_, false, true) => {
                    self.take_credit(source, &self.client.control.receive()?)?;
                    continue;
                }
                (_, false, false) => Next::NotYet,
                (_, true, true) => source.next().map_or(Next::End, Next::Chunk),
                (_, true, false) => source.try_next(),
            };
            let started = matches!(next, Next::Chunk(_));
            match next {
                Next::Chunk(chunk) => self.start(chunk)?,
                Next::NotYet => {}
                Next::End => at_end = true,
            }
            self.report_done(!started)?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.sequence - self.credited < u64::from(self.client.ring.shape().slots)
    }

    fn take_credit(&mut self, source: &Source, frame: &Frame) -> Result<()> {
        match frame {
            Frame::Credit { sequence } if *sequence == self.credited && *sequence < self.reported => {
                self.credited += 1;
                source.release();
                Ok(())
            }
            other => Err(unexpected(other)),
        }
    }

    fn start(&mut self, Filled { sequence, length }: Filled) -> Result<()> {
        self.posted.push_back(self.client.start(Opcode::Write, sequence, length)?);
        self.sequence = sequence + 1;
        Ok(())
    }

    /// Announces chunks that have been written to the server, oldest first; with `wait` it waits a short time for the first.
    fn report_done(&mut self, mut wait: bool) -> Result<()> {
        while let Some(oldest) = self.posted.front().copied() {
            if !self.client.is_done(&oldest, wait)? {
                break;
            }
            wait = false;
            self.posted.pop_front();
            self.client.control.send(&Frame::Filled { sequence: oldest.sequence, length: oldest.length })?;
            self.reported += 1;
            self.progress.advance(u64::from(oldest.length));
        }
        Ok(())
    }

    /// Cancels the transfers that are left after an error, so that none reads the ring any more.
    fn cancel_rest(&mut self) {
        for posted in self.posted.drain(..) {
            self.client.connection.cancel(posted.id);
        }
    }
}
