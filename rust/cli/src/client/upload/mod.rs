//! Sending files: WRITE chunk after chunk into the server's slots. Small files follow each other without waiting for answers.

mod large;
mod small;

use std::collections::VecDeque;
use std::time::Instant;

use super::{Client, Moved, Posted, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::interrupt;
use crate::output::progress::Progress;
use crate::output::units;
use crate::pipeline::{Digest, Source};
use crate::store::Content;
use crate::wire::control::ControlError;
use crate::wire::{Frame, Small, is_small};

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
        if is_small(content.size(), self.client.ring.shape()) {
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
