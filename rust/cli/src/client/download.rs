//! Fetching files: READ chunk after chunk from the server's slots. Requests follow each other without waiting for answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::Opcode;

use super::target::{Target, Writing};
use super::upload::Ended;
use super::{Client, Moved, Posted, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::interrupt;
use crate::output::progress::Progress;
use crate::output::units;
use crate::pipeline::{Destination, Digest, Filled, Sink, small};
use crate::ring::Shape;
use crate::store::{Attributes, Committer, GROUP, Incoming, Prefix};
use crate::wire::control::ControlError;
use crate::wire::{Frame, MAX_GETS, Small, is_small};

/// Frames that are sent together, at most.
const BATCH: usize = 16;

/// A request that was sent.
struct Requested {
    name: String,
    target: Target,
    number: u64,
    started: Instant,
    /// What is there of it already.
    kept: Option<(Incoming, Prefix)>,
}

/// What the server has sent, in order.
enum Step {
    Small(Option<Posted>, Small),
    Ready { size: u64, offset: u64, attributes: Attributes },
    Chunk(Posted),
    Finish(Digest),
    Failed(String),
}

/// The file of which chunks arrive.
struct Current {
    resumed: u64,
    /// Taken when it cannot be written.
    sink: Option<Sink<Writing>>,
    error: Option<CliError>,
}

/// A small file that waits to be synced and named.
struct Written {
    name: String,
    file: Incoming,
    moved: Moved,
}

/// Files that are being fetched, one after the other.
pub(super) struct Download<'a> {
    client: &'a Client,
    progress: &'a Progress,
    ended: Ended<'a>,
    requests: VecDeque<Requested>,
    steps: VecDeque<Step>,
    current: Option<Current>,
    group: Vec<Written>,
    committer: Committer,
    /// Frames that are sent together.
    outbox: Vec<Frame>,
    /// Chunks that the server has announced, and those that it may use again.
    announced: u64,
    credited: u64,
}

impl<'a> Download<'a> {
    pub(super) fn new(client: &'a Client, progress: &'a Progress, ended: Ended<'a>) -> Self {
        let announced = client.next_get.get();
        let (requests, steps) = (VecDeque::new(), VecDeque::new());
        let (group, committer) = (Vec::new(), Committer::default());
        let (current, outbox, credited) = (None, Vec::new(), announced);
        Self {
            client,
            progress,
            ended,
            requests,
            steps,
            current,
            group,
            committer,
            outbox,
            announced,
            credited,
        }
    }

    /// Fetches a file, of `size` bytes as far as known. Its end may be reported later. An error is that of the stream, and ends
    /// all.
    pub(super) fn add(&mut self, name: &str, size: u64, target: Target) -> Result<()> {
        while self.requests.len() >= MAX_GETS {
            self.step()?;
        }
        let kept = match target.check_free().and_then(|()| self.kept(size, &target)) {
            Ok(kept) => kept,
            Err(error) if matches!(error.problem(), Problem::Interrupted { .. }) => return Err(error),
            Err(error) => {
                (self.ended)(name, Err(error));
                return Ok(());
            }
        };
        let (name, number, started) = (name.to_owned(), self.client.new_request(), Instant::now());
        let (bytes, hash) = kept.as_ref().map_or((0, [0; 32]), |(_, prefix)| (prefix.bytes, prefix.hash()));
        self.outbox.push(Frame::Get { name: name.clone(), kept: bytes, hash });
        self.requests.push_back(Requested { name, target, number, started, kept });
        self.send_outbox(MAX_GETS / 4)?;
        while let Some(frame) = self.client.control.try_receive()? {
            self.take(frame)?;
        }
        Ok(())
    }

    /// A file that cannot be fetched.
    pub(super) fn failed(&mut self, name: &str, error: CliError) {
        (self.ended)(name, Err(error));
    }

    /// Waits until all files have ended.
    pub(super) fn finish(mut self) -> Result<()> {
        while !self.requests.is_empty() {
            self.step()?;
        }
        self.send_outbox(0)?;
        self.commit_group();
        self.client.next_get.set(self.announced);
        Ok(())
    }

    fn kept(&self, size: u64, target: &Target) -> Result<Option<(Incoming, Prefix)>> {
        let Some(file) = target.kept(size)? else { return Ok(None) };
        let prefix = file.hash_written(&mut || self.client.working())?;
        Ok(Some((file, prefix)))
    }

    /// Goes on with what the server has sent, waiting for a transfer or for the server.
    fn step(&mut self) -> Result<()> {
        interrupt::check()?;
        while let Some(frame) = self.client.control.try_receive()? {
            self.take(frame)?;
        }
        let Some(step) = self.steps.pop_front() else {
            self.send_outbox(0)?;
            let frame = self.client.receive()?;
            return self.take(frame);
        };
        if let Step::Small(Some(posted), _) | Step::Chunk(posted) = &step
            && !self.client.is_done(posted, false)?
        {
            self.send_outbox(0)?;
            if !self.client.is_done(posted, true)? {
                self.steps.push_front(step);
                return Ok(());
            }
        }
        match step {
            Step::Small(_, small) => self.store_small(small)?,
            Step::Ready { size, offset, attributes } => self.begin(size, offset, attributes)?,
            Step::Chunk(posted) => self.store_chunk(posted)?,
            Step::Finish(sent) => self.end(Ok(sent))?,
            Step::Failed(text) => self.end(Err(ControlError::Refused(text).into()))?,
        }
        self.send_outbox(BATCH.min(usize::from(self.client.ring.shape().slots) / 2))
    }

    /// Sends what is to be sent, if it is more than `most`.
    fn send_outbox(&mut self, most: usize) -> Result<()> {
        if self.outbox.len() > most {
            self.client.control.send_all(&std::mem::take(&mut self.outbox))?;
        }
        Ok(())
    }

    /// Takes a frame, and starts its transfer.
    fn take(&mut self, frame: Frame) -> Result<()> {
        let step = match frame {
            Frame::Small(small)
                if self.is_next(small.sequence, self.client.ring.shape().small())
                    && is_small(Some(small.length.into()), self.client.ring.shape()) =>
            {
                let posted = match small.length {
                    0 => None,
                    length => Some(self.client.start_small(Opcode::Read, small.sequence, length)?),
                };
                self.announced += 1;
                Step::Small(posted, small)
            }
            Frame::Filled { sequence, length }
                if self.is_next(sequence, self.client.ring.shape())
                    && (1..=self.client.ring.shape().chunk).contains(&length) =>
            {
                self.announced += 1;
                Step::Chunk(self.client.start(Opcode::Read, sequence, length)?)
            }
            Frame::Ready { size, offset, attributes } => Step::Ready { size, offset, attributes },
            Frame::Finish { bytes, hash } => Step::Finish(Digest { bytes, hash }),
            Frame::Failed { text } => Step::Failed(text),
            Frame::Working => return Ok(()),
            other => return Err(unexpected(&other)),
        };
        self.steps.push_back(step);
        Ok(())
    }

    fn is_next(&self, sequence: u64, shape: Shape) -> bool {
        sequence == self.announced && self.announced - self.credited < u64::from(shape.slots)
    }

    fn store_small(&mut self, small: Small) -> Result<()> {
        let mut request =
            self.requests.pop_front().ok_or_else(|| CliError::protocol("a file that was not asked for"))?;
        if let Some((kept, _)) = request.kept.take() {
            // The file is smaller now.
            kept.discard();
        }
        let (bytes, stored) = small::take(&self.client.ring, small.sequence, small.length)
            .ok_or_else(|| CliError::protocol("a small file is longer than its slot"))?;
        self.credit(small.sequence);
        self.progress.advance(stored.bytes);
        match write_small(&request, &small, &bytes, stored) {
            Ok(Some(file)) => {
                let elapsed = request.started.elapsed();
                let moved = Moved { bytes: stored.bytes, hash: stored.hash, elapsed, resumed: 0 };
                self.group.push(Written { name: request.name, file, moved });
                if self.group.len() >= GROUP {
                    self.commit_group();
                }
            }
            Ok(None) => {
                let elapsed = request.started.elapsed();
                let moved = Moved { bytes: stored.bytes, hash: stored.hash, elapsed, resumed: 0 };
                (self.ended)(&request.name, Ok(moved));
            }
            Err(error) => (self.ended)(&request.name, Err(error)),
        }
        Ok(())
    }

    fn commit_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        let (files, rest): (Vec<_>, Vec<_>) =
            group.into_iter().map(|written| (written.file, (written.name, written.moved))).unzip();
        for ((name, moved), stored) in rest.into_iter().zip(self.committer.commit(files)) {
            (self.ended)(&name, stored.map(|()| moved).map_err(CliError::from));
        }
    }

    fn begin(&mut self, size: u64, offset: u64, attributes: Attributes) -> Result<()> {
        let request =
            self.requests.front_mut().ok_or_else(|| CliError::protocol("a file that was not asked for"))?;
        let begun = match request.kept.take() {
            Some((mut file, prefix)) if prefix.bytes == offset => {
                file.set_size(size);
                file.set_attributes(attributes);
                Ok((Writing::File(file), prefix))
            }
            kept if offset == 0 => {
                if kept.is_some() {
                    let name = &request.name;
                    self.progress.remark(&format!("get {name}: what was kept of it differs; starting over"));
                }
                drop(kept);
                request.target.create(size, attributes).map(|file| (file, Prefix::default()))
            }
            _ => return Err(CliError::protocol("it goes on where nothing is")),
        };
        let ring = Arc::clone(&self.client.ring);
        let started = begun.and_then(|(file, prefix)| {
            let resumed = prefix.bytes;
            let sink = Sink::start(file, ring, prefix).map_err(|error| CliError::other(error.to_string()))?;
            Ok((sink, resumed))
        });
        self.current = Some(match started {
            Ok((sink, resumed)) => {
                self.progress.advance(resumed);
                Current { resumed, sink: Some(sink), error: None }
            }
            Err(error) => {
                self.outbox.push(Frame::Abort { request: request.number });
                Current { resumed: 0, sink: None, error: Some(error) }
            }
        });
        Ok(())
    }

    /// Chunks of a file that cannot be stored are read from their slots and dropped, until the server stops.
    fn store_chunk(&mut self, Posted { sequence, length, .. }: Posted) -> Result<()> {
        let current = self.current.as_mut().ok_or_else(|| CliError::protocol("a chunk of no file"))?;
        if let Some(sink) = &mut current.sink
            && !sink.push(Filled { sequence, length })
        {
            let reason = current.sink.take().map(Sink::finish);
            current.error = Some(match reason {
                Some(Err(error)) => error.into(),
                _ => CliError::other("the file cannot be written"),
            });
            let request = self.requests.front().map_or(0, |request| request.number);
            self.outbox.push(Frame::Abort { request });
        }
        self.credit(sequence);
        self.progress.advance(u64::from(length));
        Ok(())
    }

    fn credit(&mut self, sequence: u64) {
        self.credited += 1;
        self.outbox.push(Frame::Credit { sequence });
    }

    /// Ends the file of the oldest request, with the server's digest or with the server's reason.
    fn end(&mut self, sent: Result<Digest>) -> Result<()> {
        let request =
            self.requests.pop_front().ok_or_else(|| CliError::protocol("an answer to no request"))?;
        let moved = match (self.current.take(), sent) {
            (None, Ok(_)) => return Err(CliError::protocol("the end of a file that has not begun")),
            (Some(Current { error: Some(error), .. }), _) | (None | Some(_), Err(error)) => Err(error),
            (Some(Current { sink, resumed, .. }), Ok(sent)) => store(sink, sent).map(|()| (sent, resumed)),
        };
        let elapsed = request.started.elapsed();
        let moved = moved.map(|(Digest { bytes, hash }, resumed)| Moved { bytes, hash, elapsed, resumed });
        // In the order of the requests.
        self.commit_group();
        (self.ended)(&request.name, moved);
        Ok(())
    }
}

/// Completes a file of which all chunks have arrived.
fn store(sink: Option<Sink<Writing>>, sent: Digest) -> Result<()> {
    let sink = sink.ok_or_else(|| CliError::other("the file cannot be written"))?;
    let (file, stored) = sink.finish()?;
    match file {
        Writing::File(file) if stored == sent => Ok(file.commit()?),
        Writing::Output(_) if stored == sent => Ok(()),
        Writing::File(file) => {
            file.discard();
            Err(mismatch(sent, stored))
        }
        Writing::Output(_) => Err(mismatch(sent, stored)),
    }
}

/// Writes a small file; `None`: it has no name to get.
fn write_small(request: &Requested, small: &Small, bytes: &[u8], stored: Digest) -> Result<Option<Incoming>> {
    let sent = Digest { bytes: u64::from(small.length), hash: small.hash };
    if stored != sent {
        return Err(mismatch(sent, stored));
    }
    let mut writing = request.target.create(stored.bytes, small.attributes)?;
    writing.write(bytes)?;
    Ok(match writing {
        Writing::File(file) => Some(file),
        Writing::Output(_) => None,
    })
}

fn mismatch(sent: Digest, arrived: Digest) -> CliError {
    Problem::Mismatch(format!("sent {}, arrived {}", units::hex(&sent.hash), units::hex(&arrived.hash)))
        .into()
}
