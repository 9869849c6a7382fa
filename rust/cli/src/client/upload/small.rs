//! Small files: each is a slot and a frame, and its answer comes with those of others.

use std::time::Instant;

use flagcx_p2p::Opcode;

use super::{Upload, answer};
use crate::client::{Moved, unexpected};
use crate::error::Result;
use crate::interrupt;
use crate::pipeline::{Digest, small};
use crate::store::Content;
use crate::wire::{Frame, Small};

/// Most small files that may be unanswered: more than a server collects before it answers.
const WINDOW: usize = 256;

/// Announcements that are sent together, where the ring has room for four times as many.
const BATCH: usize = 32;

impl Upload<'_> {
    pub(super) fn add_small(&mut self, content: Content, name: &str) -> Result<()> {
        while self.sent - self.credited >= u64::from(self.client.ring.shape().small().slots)
            || self.small.len() + self.unanswered.len() >= WINDOW
        {
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
            _ => Some(self.client.start_small(Opcode::Write, sequence, length)?),
        };
        self.sent += 1;
        self.client.new_request();
        let (name, force) = (name.to_owned(), self.force);
        self.small.push_back((
            posted,
            Small { name, force, attributes, sequence, length, hash },
            Instant::now(),
        ));
        self.announce_small(false)?;
        if self.outbox.len() >= BATCH.min(usize::from(self.client.ring.shape().small().slots) / 4) {
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

    pub(super) fn wait_for_small(&mut self) -> Result<()> {
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
}
