//! Fetching a file: READ chunk after chunk from the server's slots.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::Opcode;

use super::{Client, Moved, Posted, unexpected};
use crate::error::{CliError, Problem, Result};
use crate::output::progress::Progress;
use crate::output::units;
use crate::pipeline::{Digest, Filled, Sink};
use crate::store::{Directory, FileName};
use crate::wire::Frame;

/// The destination of a fetched file.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    directory: Directory,
    name: FileName,
    force: bool,
}

impl Target {
    /// `output` (a path), or `name` in the current directory.
    pub(crate) fn new(name: &str, output: Option<&Path>, force: bool) -> Result<Self> {
        let path = output.unwrap_or_else(|| Path::new(name));
        let own = FileName::new(name).map_err(|error| CliError::usage(error.to_string()))?;
        let name = match output {
            None => own,
            Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
                let text = format!("-o {}: is a directory; name the file in it", path.display());
                return Err(CliError::usage(text));
            }
            Some(path) => {
                let last = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
                    CliError::usage(format!("-o {}: expected the path of a file", path.display()))
                })?;
                FileName::new(last).map_err(|error| CliError::usage(error.to_string()))?
            }
        };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory =
            Directory::open(parent.unwrap_or_else(|| Path::new("."))).map_err(CliError::argument)?;
        directory.check_free(&name, force)?;
        Ok(Self { directory, name, force })
    }
}

impl Client {
    /// Fetches `name` from the server into `target`.
    pub(crate) fn get(&self, name: &str, target: &Target) -> Result<Moved> {
        self.control.send(&Frame::Get { name: name.to_owned() })?;
        let size = match self.control.receive()? {
            Frame::Ready { size } => size,
            other => return Err(unexpected(&other)),
        };
        let started = Instant::now();
        let file = target.directory.create(&target.name, size, target.force)?;
        let mut sink =
            Sink::start(file, Arc::clone(&self.ring)).map_err(|error| CliError::other(error.to_string()))?;
        let progress = Progress::new(&format!("get {name}"), size);
        let mut receiver =
            Receiver { client: self, progress: &progress, posted: VecDeque::new(), sequence: 0, size };
        let announced = receiver.receive_all(&mut sink);
        receiver.cancel_rest();
        // A disk that cannot store the file is the cause of any other error.
        let (file, stored) = sink.finish()?;
        let announced = announced?;
        if stored != announced {
            let text = format!("sent {}, arrived {}", units::hex(&announced.hash), units::hex(&stored.hash));
            return Err(Problem::Mismatch(text).into());
        }
        file.commit()?;
        progress.finish();
        Ok(Moved { bytes: size, hash: stored.hash, elapsed: started.elapsed() })
    }
}

/// The state of one file that is being received.
struct Receiver<'a> {
    client: &'a Client,
    progress: &'a Progress,
    /// Chunks being read, oldest first.
    posted: VecDeque<Posted>,
    /// Number of the next chunk that the server may announce.
    sequence: u64,
    /// Bytes that are still to be announced.
    size: u64,
}

impl Receiver<'_> {
    /// Fetches every chunk that the server announces; returns the server's digest of them.
    fn receive_all(&mut self, sink: &mut Sink) -> Result<Digest> {
        let mut finished = None;
        loop {
            while let Some(frame) = self.client.control.try_receive()? {
                self.handle(frame, &mut finished)?;
            }
            match (self.posted.front().copied(), finished) {
                (Some(oldest), _) => self.collect(oldest, sink)?,
                (None, Some(digest)) => return Ok(digest),
                (None, None) => {
                    let frame = self.client.control.receive()?;
                    self.handle(frame, &mut finished)?;
                }
            }
        }
    }

    fn handle(&mut self, frame: Frame, finished: &mut Option<Digest>) -> Result<()> {
        match frame {
            Frame::Filled { sequence, length }
                if finished.is_none() && self.may_announce(sequence, length) =>
            {
                self.posted.push_back(self.client.start(Opcode::Read, sequence, length)?);
                self.sequence += 1;
                self.size -= u64::from(length);
            }
            Frame::Finish { bytes, hash } if finished.is_none() && self.size == 0 => {
                *finished = Some(Digest { bytes, hash });
            }
            other => return Err(unexpected(&other)),
        }
        Ok(())
    }

    fn may_announce(&self, sequence: u64, length: u32) -> bool {
        let shape = self.client.ring.shape();
        sequence == self.sequence
            && self.posted.len() < usize::from(shape.slots)
            && (1..=shape.chunk).contains(&length)
            && u64::from(length) <= self.size
    }

    /// Passes the oldest chunk to `sink` if its READ has ended; waits a short time for that.
    fn collect(&mut self, oldest: Posted, sink: &mut Sink) -> Result<()> {
        if !self.client.is_done(&oldest, true)? {
            return Ok(());
        }
        self.posted.pop_front();
        let chunk = Filled { sequence: oldest.sequence, length: oldest.length };
        if !sink.push(chunk) {
            return Err(CliError::other("the file cannot be written"));
        }
        self.client.control.send(&Frame::Credit { sequence: oldest.sequence })?;
        self.progress.advance(u64::from(oldest.length));
        Ok(())
    }

    /// Cancels the transfers that are left after an error, so that none writes to the ring any more.
    fn cancel_rest(&mut self) {
        for posted in self.posted.drain(..) {
            self.client.connection.cancel(posted.id);
        }
    }
}
