//! Requests to put files.

use std::sync::Arc;
use std::time::Instant;

use super::admission::Phase;
use super::session::{BATCH, Session, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::output::units;
use crate::pipeline::{Digest, Filled, Sink, small};
use crate::store::{Attributes, Committer, GROUP, Incoming, Prefix, RelativeName};
use crate::wire::{Frame, Small, is_small};

/// A request to put a file that is not small.
pub(super) struct Request {
    pub(super) name: String,
    pub(super) size: Option<u64>,
    pub(super) force: bool,
    pub(super) resume: bool,
    pub(super) attributes: Attributes,
}

/// Small files that wait to be synced and named, each with its answer; in the order of their requests.
#[derive(Default)]
pub(super) struct Group {
    files: Vec<Incoming>,
    /// As many `Ok` as there are files.
    answers: Vec<(String, Result<Digest>)>,
    committer: Committer,
}

/// How the chunks of a file ended.
enum Ended {
    /// With the client's digest.
    Finished(Digest),
    /// By the client.
    Aborted,
    /// By a file that cannot be written.
    Unwritten,
}

impl Session<'_> {
    /// Takes a small file out of its slot; the answer comes with that of others, in [`Session::commit_group`].
    pub(super) fn put_small(&mut self, small: Small) -> Result<()> {
        let (&Small { sequence, length, .. }, ring) = (&small, Arc::clone(self.ring()?));
        if sequence != self.received || !is_small(Some(length.into()), ring.shape()) {
            return Err(unexpected(&Frame::Small(small)));
        }
        self.requests += 1;
        self.received += 1;
        let (bytes, digest) = small::take(&ring, sequence, length)
            .ok_or_else(|| CliError::protocol("a small file is longer than its slot"))?;
        self.outbox.push(Frame::Credit { sequence });
        let written = self.write_small(&small, &bytes, digest);
        let answer = written.map(|file| self.group.files.push(file)).map(|()| digest);
        self.group.answers.push((small.name, answer));
        if self.group.answers.len() >= GROUP {
            self.commit_group()?;
        }
        Ok(self.send_outbox(BATCH.min(usize::from(ring.shape().small().slots) / 4))?)
    }

    fn write_small(&mut self, small: &Small, bytes: &[u8], digest: Digest) -> Result<Incoming> {
        if digest.hash != small.hash {
            return Err(mismatch(small.hash, digest));
        }
        let name = RelativeName::new(&small.name)?;
        let folder = self.folders.make_folder_of(&name)?;
        let mut file = folder.create_anew(name.file(), digest.bytes, small.force)?;
        file.set_attributes(small.attributes);
        file.write(bytes)?;
        Ok(file)
    }

    /// Syncs and names the small files so far, and answers their requests.
    pub(super) fn commit_group(&mut self) -> Result<()> {
        let Group { files, answers, committer } = &mut self.group;
        let (files, answers) = (std::mem::take(files), std::mem::take(answers));
        let mut stored = committer.commit(files).into_iter();
        for (name, answer) in answers {
            let answer = answer.and_then(|digest| match stored.next() {
                Some(Err(error)) => Err(error.into()),
                _ => Ok(digest),
            });
            self.outbox.push(match answer {
                Ok(digest) => {
                    self.report.small_file("stored", &name, digest);
                    Frame::Finish { bytes: digest.bytes, hash: digest.hash }
                }
                Err(error) => {
                    tracing::info!(peer = %self.control.peer(), "put {} failed: {error}", name.escape_debug());
                    Frame::failed(&error.to_string())
                }
            });
        }
        Ok(())
    }

    /// Receives a file. The stream goes on after a request that fails; an error of the stream ends it.
    pub(super) fn put(&mut self, request: &Request) -> Result<()> {
        self.ring()?;
        self.commit_group()?;
        self.send_outbox(0)?;
        self.requests += 1;
        let name = &request.name;
        let (file, kept) = match self.create(request) {
            Ok(created) => created,
            Err(error) => return self.fail("put", name, &error),
        };
        self.control.send(&Frame::Kept { bytes: kept.bytes, hash: kept.hash() })?;
        match self.next(Phase::Draining)? {
            Frame::Start { offset: 0 } => self.receive_file(request, file, Prefix::default()),
            Frame::Start { offset } if offset == kept.bytes => self.receive_file(request, file, kept),
            Frame::Abort { .. } => self.fail("put", name, &aborted()),
            other => Err(unexpected(&other)),
        }
    }

    fn create(&mut self, request: &Request) -> Result<(Incoming, Prefix)> {
        let &Request { size, force, resume, attributes, .. } = request;
        let name = RelativeName::new(&request.name)?;
        let folder = self.folders.make_folder_of(&name)?;
        let mut file = match size {
            Some(size) => folder.create_resumable(name.file(), size, force, resume)?,
            None => folder.create(name.file(), None, force)?,
        };
        file.set_attributes(attributes);
        let kept = file.hash_written(&mut || self.working(Phase::Draining))?;
        Ok((file, kept))
    }

    /// Receives the rest of a file, and answers the request.
    fn receive_file(&mut self, request: &Request, mut file: Incoming, kept: Prefix) -> Result<()> {
        let (name, started) = (&request.name, Instant::now());
        if file.written() != kept.bytes {
            file.continue_at(kept.bytes)?;
        }
        let left = request.size.map_or(u64::MAX, |size| size - kept.bytes);
        let mut sink = Sink::start(file, Arc::clone(self.ring()?), kept)
            .map_err(|error| CliError::other(error.to_string()))?;
        let ended = self.receive_chunks(&mut sink, left, request.size.is_some());
        let written = sink.finish();
        let stored = match (ended?, written) {
            (Ended::Finished(sent), Ok((file, stored))) if sent == stored => {
                file.commit().map(|()| stored).map_err(CliError::from)
            }
            (Ended::Finished(sent), Ok((file, stored))) => {
                file.discard();
                Err(mismatch(sent.hash, stored))
            }
            (Ended::Aborted, _) => Err(aborted()),
            (Ended::Unwritten, Ok(_)) => return Err(CliError::protocol("a chunk is longer than its slot")),
            (Ended::Unwritten, Err(error)) => {
                // The answer comes first, for the client stops sending then.
                self.fail("put", name, &error.into())?;
                return self.drop_chunks();
            }
            (Ended::Finished(_), Err(error)) => Err(error.into()),
        };
        match stored {
            Ok(digest) => {
                self.control.send(&Frame::Finish { bytes: digest.bytes, hash: digest.hash })?;
                self.report.file("stored", name, digest, started.elapsed());
                Ok(())
            }
            Err(error) => self.fail("put", name, &error),
        }
    }

    fn receive_chunks(&mut self, sink: &mut Sink<Incoming>, mut left: u64, exact: bool) -> Result<Ended> {
        loop {
            match self.next(Phase::Draining)? {
                Frame::Filled { sequence, length }
                    if self.is_next(sequence, length) && u64::from(length) <= left =>
                {
                    let pushed = sink.push(Filled { sequence, length });
                    self.received += 1;
                    self.control.send(&Frame::Credit { sequence })?;
                    if !pushed {
                        return Ok(Ended::Unwritten);
                    }
                    left -= u64::from(length);
                }
                Frame::Finish { bytes, hash } if left == 0 || !exact => {
                    return Ok(Ended::Finished(Digest { bytes, hash }));
                }
                Frame::Abort { .. } => return Ok(Ended::Aborted),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Frees the slots of a file that cannot be stored, until the client has stopped sending it.
    fn drop_chunks(&mut self) -> Result<()> {
        loop {
            match self.next(Phase::Draining)? {
                Frame::Filled { sequence, length } if self.is_next(sequence, length) => {
                    self.received += 1;
                    self.control.send(&Frame::Credit { sequence })?;
                }
                Frame::Finish { .. } | Frame::Abort { .. } => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn is_next(&self, sequence: u64, length: u32) -> bool {
        sequence == self.received && self.ring().is_ok_and(|ring| (1..=ring.shape().chunk).contains(&length))
    }
}

fn aborted() -> CliError {
    CliError::other("the client did not send all of it")
}

fn mismatch(sent: [u8; 32], arrived: Digest) -> CliError {
    Problem::Mismatch(format!("sent {}, arrived {}", units::hex(&sent), units::hex(&arrived.hash))).into()
}
