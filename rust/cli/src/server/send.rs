//! Requests to get files.

use std::sync::Arc;
use std::time::Instant;

use super::admission::Phase;
use super::session::{BATCH, CHECK_INTERVAL, Session, unexpected};
use crate::error::{CliError, Result};
use crate::pipeline::{Digest, Filled, Next, Source, small};
use crate::store::{Content, Prefix, RelativeName};
use crate::wire::{Frame, Hash, MAX_GETS, Small, is_small};

impl Session<'_> {
    /// Sends a file, from behind the `kept` bytes that the client has of it, if they have this hash.
    pub(super) fn get(&mut self, name: &str, kept: u64, hash: Hash) -> Result<()> {
        let (request, shape) = (self.requests, self.ring()?.shape());
        self.requests += 1;
        let content = match self.open_content(name) {
            Ok(content) => content,
            Err(error) => return self.fail("get", name, &error),
        };
        if is_small(content.size(), shape) {
            return self.send_small(name, content);
        }
        self.send_outbox(0)?;
        // The numbers of its chunks begin where all slots are free.
        self.wait_for_credit(0, request)?;
        let started = Instant::now();
        match self.send_large(content, kept, hash, request)? {
            Ok(Some(sent)) => {
                self.control.send(&Frame::Finish { bytes: sent.bytes, hash: sent.hash })?;
                self.report.file("sent", name, sent, started.elapsed());
                Ok(())
            }
            Ok(None) => self.fail("get", name, &CliError::other("the client did not take all of it")),
            Err(error) => self.fail("get", name, &error),
        }
    }

    fn open_content(&mut self, name: &str) -> Result<Content> {
        let name = RelativeName::new(name)?;
        Ok(self.folders.folder_of(&name)?.read(name.file())?)
    }

    fn send_small(&mut self, name: &str, content: Content) -> Result<()> {
        let ring = Arc::clone(self.ring()?);
        let slots = u64::from(ring.shape().small().slots);
        self.wait_for_credit(slots - 1, self.requests)?;
        let (attributes, sequence) = (content.attributes(), self.sent);
        let digest = match small::fill(content, &ring, sequence) {
            Ok(digest) => digest,
            Err(error) => return self.fail("get", name, &error.into()),
        };
        let Digest { bytes, hash } = digest;
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.sent += 1;
        self.report.small_file("sent", name, digest);
        let (name, force) = (name.to_owned(), false);
        self.outbox.push(Frame::Small(Small { name, force, attributes, sequence, length, hash }));
        Ok(self.send_outbox(BATCH.min(usize::from(ring.shape().small().slots) / 4))?)
    }

    /// `None`: the client does not want the rest. The outer error is that of the stream.
    fn send_large(
        &mut self,
        mut content: Content,
        kept: u64,
        hash: Hash,
        request: u64,
    ) -> Result<Result<Option<Digest>>> {
        let size = content.size().unwrap_or(0);
        let mut prefix = Prefix::default();
        if (1..=size).contains(&kept) {
            let found = match content.hash_prefix(kept, &mut || self.working(Phase::Draining)) {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            if found.hash() == hash {
                content.skip_to(kept)?;
                prefix = found;
            }
        }
        self.control.send(&Frame::Ready { size, offset: prefix.bytes, attributes: content.attributes() })?;
        let source = Source::start(content, Arc::clone(self.ring()?), prefix, self.sent)
            .map_err(|error| CliError::other(error.to_string()))?;
        let sent_all = self.send_chunks(&source, request);
        // A file that cannot be read to its end is the cause of any other error.
        let digest = source.finish();
        Ok(match (sent_all?, digest) {
            (_, Err(error)) => Err(error.into()),
            (true, Ok(digest)) => Ok(Some(digest)),
            (false, Ok(_)) => Ok(None),
        })
    }

    /// Announces filled slots and waits until all of them have been fetched. False: the client does not want the rest.
    fn send_chunks(&mut self, source: &Source, request: u64) -> Result<bool> {
        let slots = u64::from(self.ring()?.shape().slots);
        let mut wanted = true;
        while wanted {
            while let Some(frame) = self.control.try_receive()? {
                wanted &= self.take(frame, Some(source), request)?;
            }
            while wanted && self.sent - self.credited >= slots {
                wanted &= self.take(self.next(Phase::Draining)?, Some(source), request)?;
            }
            match source.next_within(CHECK_INTERVAL) {
                Next::Chunk(Filled { sequence, length }) => {
                    self.control.send(&Frame::Filled { sequence, length })?;
                    self.sent += 1;
                }
                Next::NotYet => {}
                Next::End => break,
            }
        }
        while self.credited < self.sent {
            wanted &= self.take(self.next(Phase::Draining)?, Some(source), request)?;
        }
        Ok(wanted)
    }

    /// Waits until at most `most` chunks are not credited.
    fn wait_for_credit(&mut self, most: u64, request: u64) -> Result<()> {
        while let Some(frame) = self.control.try_receive()? {
            self.take(frame, None, request)?;
        }
        while self.sent - self.credited > most {
            self.send_outbox(0)?;
            let frame = self.next(Phase::Draining)?;
            self.take(frame, None, request)?;
        }
        Ok(())
    }

    /// Takes a frame that comes while files are sent. False: the client does not want the rest of this one.
    pub(super) fn take(&mut self, frame: Frame, source: Option<&Source>, current: u64) -> Result<bool> {
        match frame {
            Frame::Credit { sequence } if sequence == self.credited && sequence < self.sent => {
                self.credited += 1;
                if let Some(source) = source {
                    source.release();
                }
                Ok(true)
            }
            Frame::Abort { request } if request <= current => Ok(request != current),
            Frame::Working => Ok(true),
            Frame::Get { .. } if self.waiting.len() < MAX_GETS => {
                self.waiting.push_back(frame);
                Ok(true)
            }
            other => Err(unexpected(&other)),
        }
    }
}
