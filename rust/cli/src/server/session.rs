//! One client: its requests one after the other, over one ring.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Server;
use super::admission::{MAX_SESSIONS, Permit, Phase};
use crate::error::{CliError, Problem, Result, While};
use crate::output;
use crate::output::units;
use crate::pipeline::{Digest, Filled, Sink, Source};
use crate::ring::{Ring, Shape};
use crate::settings;
use crate::store::{FileName, Incoming, StoreError};
use crate::wire::control::{Control, ControlError, OPEN_TIMEOUT};
use crate::wire::{Frame, Slot, authenticate};

/// How often a session checks whether the server is ending.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Serves a client until it closes its connection.
pub(super) fn run(server: &Server, control: Control, permit: &mut Permit) {
    let peer = control.peer();
    tracing::info!(%peer, "client connected");
    let session = Session { server, control: &control };
    let shape = match session.authenticate() {
        Ok(Some(shape)) => shape,
        Ok(None) => return,
        Err(error) => {
            tracing::warn!(%peer, "{error}");
            // A client that has not proven the key gets no reason.
            if server.key.is_none() {
                refuse(control, &error);
            }
            return;
        }
    };
    if !permit.open_session() {
        let text = format!("{MAX_SESSIONS} clients are served already; try again later");
        tracing::warn!(%peer, "refused: {text}");
        return refuse(control, &CliError::other(text));
    }
    match session.serve(shape) {
        Ok(()) => tracing::info!(%peer, "client disconnected"),
        Err(error) => {
            tracing::warn!(%peer, "{error}");
            refuse(control, &error);
        }
    }
}

/// Sends the client the reason why its session ends, unless the client itself closed it or sent nothing.
fn refuse(control: Control, error: &CliError) {
    if !matches!(
        error.problem(),
        Problem::Control(ControlError::Closed | ControlError::PeerTimeout | ControlError::NotOpened)
    ) {
        // Best effort: the client may be gone.
        let _ = control.send(&Frame::refused(&error.to_string()));
        control.finish();
    }
}

struct Session<'a> {
    server: &'a Server,
    control: &'a Control,
}

impl Session<'_> {
    /// Waits for the request for a ring, and for the proof where a key is set. `None`: the client closed the connection.
    fn authenticate(&self) -> Result<Option<Shape>> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let (shape, nonce) = match self.control.receive_by(deadline) {
            Ok(Some(Frame::Open { chunk, slots, nonce })) => (Shape { chunk, slots }, nonce),
            Ok(Some(other)) => return Err(unexpected(&other)),
            Ok(None) => return Err(ControlError::NotOpened.into()),
            Err(ControlError::Closed) => return Ok(None), // A port scan, or a health check.
            Err(error) => return Err(error.into()),
        };
        if let Some(key) = &self.server.key {
            authenticate::respond(key, self.control, nonce, deadline)?;
        }
        Ok(Some(shape))
    }

    fn serve(&self, requested: Shape) -> Result<()> {
        let ring = self.open(requested)?;
        loop {
            match self.next(Phase::Serving) {
                Ok(Frame::Put { name, size, force }) => self.put(&ring, &name, size, force)?,
                Ok(Frame::Get { name }) => self.get(&ring, &name)?,
                Ok(Frame::UsageRequest) => {
                    let micros = u64::try_from(settings::processor_time().as_micros()).unwrap_or(u64::MAX);
                    self.control.send(&Frame::Usage { micros })?;
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(ControlError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The client's next frame. It must come within the idle limit, and before the server is past `phase`.
    fn next(&self, phase: Phase) -> Result<Frame, ControlError> {
        let limit = self.server.idle_limit;
        let deadline = Instant::now() + limit;
        loop {
            if self.server.admission.phase() > phase {
                return Err(ControlError::Ending);
            }
            if let Some(frame) = self.control.receive_by(deadline.min(Instant::now() + CHECK_INTERVAL))? {
                return Ok(frame);
            }
            if Instant::now() >= deadline {
                return Err(ControlError::Idle(limit));
            }
        }
    }

    fn open(&self, requested: Shape) -> Result<Arc<Ring>> {
        let ring = Ring::allocate(&self.server.engine, requested.fitted(self.server.ring_limit))?;
        let metadata = self.server.metadata.clone();
        let slots = ring.describe()?.into_iter().map(Slot::from).collect();
        self.control.send(&Frame::Ring { metadata, chunk: ring.shape().chunk, slots })?;
        Ok(ring)
    }

    /// Receives a file. The stream goes on after a request that is refused at once; a later error ends it.
    fn put(&self, ring: &Arc<Ring>, name: &str, size: u64, force: bool) -> Result<()> {
        let created = FileName::new(name).and_then(|name| self.server.directory.create(&name, size, force));
        let Some(file) = self.accepted("put", name, created)? else { return Ok(()) };
        self.control.send(&Frame::Ready { size })?;
        let started = Instant::now();
        let stored = self.receive_file(ring, file, size).doing(|| format!("store {name}"))?;
        self.control.send(&Frame::Finish { bytes: stored.bytes, hash: stored.hash })?;
        report("stored", name, stored, started.elapsed());
        Ok(())
    }

    fn receive_file(&self, ring: &Arc<Ring>, file: Incoming, size: u64) -> Result<Digest> {
        let mut sink =
            Sink::start(file, Arc::clone(ring)).map_err(|error| CliError::other(error.to_string()))?;
        let announced = self.receive_chunks(ring, &mut sink, size);
        // A disk that cannot store the file is the cause of any other error.
        let (file, stored) = sink.finish()?;
        let announced = announced?;
        if stored != announced {
            let text = format!("sent {}, arrived {}", units::hex(&announced.hash), units::hex(&stored.hash));
            return Err(Problem::Mismatch(text).into());
        }
        file.commit()?;
        Ok(stored)
    }

    fn receive_chunks(&self, ring: &Arc<Ring>, sink: &mut Sink, size: u64) -> Result<Digest> {
        let (mut expected, mut left) = (0, size);
        loop {
            match self.next(Phase::Draining)? {
                Frame::Filled { sequence, length }
                    if sequence == expected
                        && (1..=ring.shape().chunk).contains(&length)
                        && u64::from(length) <= left =>
                {
                    if !sink.push(Filled { sequence, length }) {
                        return Err(CliError::other("the file cannot be written"));
                    }
                    self.control.send(&Frame::Credit { sequence })?;
                    expected += 1;
                    left -= u64::from(length);
                }
                Frame::Finish { bytes, hash } if left == 0 => return Ok(Digest { bytes, hash }),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Sends a file: [`Session::put`] in the other direction.
    fn get(&self, ring: &Arc<Ring>, name: &str) -> Result<()> {
        let opened = FileName::new(name).and_then(|name| self.server.directory.read(&name));
        let Some(content) = self.accepted("get", name, opened)? else { return Ok(()) };
        self.control.send(&Frame::Ready { size: content.size() })?;
        let started = Instant::now();
        let source =
            Source::start(content, Arc::clone(ring)).map_err(|error| CliError::other(error.to_string()))?;
        let offered = self.send_chunks(ring, &source);
        // A file that cannot be read to its end is the cause of any other error.
        let sent = source.finish()?;
        offered?;
        self.control.send(&Frame::Finish { bytes: sent.bytes, hash: sent.hash })?;
        report("sent", name, sent, started.elapsed());
        Ok(())
    }

    /// Announces filled slots and waits until all of them have been fetched.
    fn send_chunks(&self, ring: &Arc<Ring>, source: &Source) -> Result<()> {
        let (mut sent, mut credited) = (0, 0);
        loop {
            while let Some(frame) = self.control.try_receive()? {
                credited = released(source, &frame, credited, sent)?;
            }
            while sent - credited >= u64::from(ring.shape().slots) {
                credited = released(source, &self.next(Phase::Draining)?, credited, sent)?;
            }
            let Some(Filled { sequence, length }) = source.next() else { break };
            self.control.send(&Frame::Filled { sequence, length })?;
            sent += 1;
        }
        while credited < sent {
            credited = released(source, &self.next(Phase::Draining)?, credited, sent)?;
        }
        Ok(())
    }

    /// The result of opening a request's file, or `None` after the reason was sent to the client.
    fn accepted<T>(&self, verb: &str, name: &str, made: Result<T, StoreError>) -> Result<Option<T>> {
        match made {
            Ok(made) => Ok(Some(made)),
            Err(error) => {
                tracing::info!(peer = %self.control.peer(), "{verb} {} refused: {error}", name.escape_debug());
                self.control.send(&Frame::refused(&error.to_string()))?;
                Ok(None)
            }
        }
    }
}

/// Counts the credit of `frame`: the slot of that chunk is free again.
fn released(source: &Source, frame: &Frame, credited: u64, sent: u64) -> Result<u64> {
    match frame {
        Frame::Credit { sequence } if *sequence == credited && credited < sent => {
            source.release();
            Ok(credited + 1)
        }
        other => Err(unexpected(other)),
    }
}

fn report(verb: &str, name: &str, digest: Digest, elapsed: Duration) {
    output::line(&format!(
        "{verb} {name}: {} in {:.2} s, {}, blake3 {}",
        units::bytes(digest.bytes),
        elapsed.as_secs_f64(),
        units::rate(digest.bytes, elapsed),
        units::hex(&digest.hash)
    ));
}

fn unexpected(frame: &Frame) -> CliError {
    CliError::protocol(format!("unexpected {frame:?}"))
}
