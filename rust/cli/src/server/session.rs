//! One client: its requests one after the other, over one ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Server;
use super::admission::{Permit, Phase};
use super::receive::Group;
use super::report::Report;
use crate::error::{CliError, Problem, Result};
use crate::ring::{Ring, Shape};
use crate::store::LastFolder;
use crate::wire::control::{Control, ControlError, OPEN_TIMEOUT};
use crate::wire::{Frame, Slot, authenticate};

/// Frames about small files that are sent together, at most.
pub(super) const BATCH: usize = 64;
/// How often a session checks whether the server is ending.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Serves a client until it closes its connection.
pub(super) fn run(server: &Server, control: Control, permit: &mut Permit) {
    let peer = control.peer();
    tracing::info!(%peer, "client connected");
    match authenticated(server, &control) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            if error.is_question() {
                tracing::info!(%peer, "{error}");
            } else {
                tracing::warn!(%peer, "{error}");
            }
            // A client that has not proven the key gets no reason.
            if server.key.is_none() {
                refuse(control, &error);
            }
            return;
        }
    }
    if !permit.open_session() {
        let text = format!(
            "{} clients are served already, the limit of its --max-clients; try again later",
            server.admission.max_sessions()
        );
        tracing::warn!(%peer, "refused: {text}");
        return refuse(control, &CliError::other(text));
    }
    let mut session = Session::new(server, &control);
    match session.serve() {
        Ok(()) => tracing::info!(%peer, "client disconnected"),
        Err(error) => {
            tracing::warn!(%peer, "{error}");
            // Before the ring ends, which fails the client's transfers for a worse reason.
            send_reason(&control, &error);
            drop(session);
            control.finish();
        }
    }
}

/// Sends the client the reason why its session ends, and closes it.
fn refuse(control: Control, error: &CliError) {
    send_reason(&control, error);
    control.finish();
}

/// Sends the client the reason why its session ends, unless the client itself closed it or sent nothing.
fn send_reason(control: &Control, error: &CliError) {
    if !matches!(
        error.problem(),
        Problem::Control(ControlError::Closed | ControlError::PeerTimeout | ControlError::NotOpened)
    ) {
        // Best effort: the client may be gone.
        let _ = control.send(&Frame::refused(&error.to_string()));
    }
}

/// Waits for the request for a session, and for the proof where a key is set. False: the client closed the connection.
fn authenticated(server: &Server, control: &Control) -> Result<bool> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let nonce = match control.receive_by(deadline) {
        Ok(Some(Frame::Open { nonce })) => nonce,
        Ok(Some(other)) => return Err(unexpected(&other)),
        Ok(None) => return Err(ControlError::NotOpened.into()),
        Err(ControlError::Closed) => return Ok(false), // A port scan, or a health check.
        Err(error) => return Err(error.into()),
    };
    if let Some(key) = &server.key {
        authenticate::respond(key, control, nonce, deadline)?;
    }
    Ok(true)
}

/// A client, and its ring once it has asked for one.
pub(super) struct Session<'a> {
    pub(super) server: &'a Server,
    pub(super) control: &'a Control,
    ring: Option<Arc<Ring>>,
    pub(super) folders: LastFolder,
    /// Requests to put or get a file so far.
    pub(super) requests: u64,
    /// Requests that came while another one was served.
    pub(super) waiting: VecDeque<Frame>,
    /// Chunks that were received, and chunks that were sent and credited, over all files.
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) credited: u64,
    /// Small files that wait to be synced and named.
    pub(super) group: Group,
    /// Frames about small files, to be sent together.
    pub(super) outbox: Vec<Frame>,
    pub(super) report: Report,
}

impl<'a> Session<'a> {
    fn new(server: &'a Server, control: &'a Control) -> Self {
        let (waiting, group, outbox) = (VecDeque::new(), Group::default(), vec![Frame::Opened]);
        let folders = LastFolder::below(server.directory.clone());
        let (requests, received, sent, credited) = (0, 0, 0, 0);
        let report = Report::new(server.json, control.peer());
        Self {
            server,
            control,
            ring: None,
            folders,
            requests,
            waiting,
            received,
            sent,
            credited,
            group,
            outbox,
            report,
        }
    }

    /// Makes the client's ring.
    fn allocate(&mut self, requested: Shape) -> Result<()> {
        let ring = Ring::allocate(&self.server.engine, requested.fitted(self.server.ring_limit))?;
        let (metadata, chunk) = (self.server.metadata.clone(), ring.shape().chunk);
        let slots = ring.describe()?.into_iter().map(Slot::from).collect();
        self.outbox.push(Frame::Ring { metadata, chunk, slots });
        self.ring = Some(ring);
        Ok(())
    }

    /// The client's ring.
    pub(super) fn ring(&self) -> Result<&Arc<Ring>> {
        self.ring.as_ref().ok_or_else(|| CliError::protocol("a file before it has asked for a ring"))
    }

    fn serve(&mut self) -> Result<()> {
        loop {
            let next = match self.waiting.pop_front() {
                Some(frame) => Ok(frame),
                None => self.next_request(),
            };
            match next {
                Ok(Frame::Allocate { chunk, slots }) if self.ring.is_none() => {
                    self.allocate(Shape { chunk, slots })?;
                }
                Ok(Frame::Small(small)) => self.put_small(small)?,
                Ok(Frame::Sync) => self.commit_group()?,
                Ok(Frame::Put { name, size, force, resume, attributes }) => {
                    self.put(&super::receive::Request { name, size, force, resume, attributes })?;
                }
                Ok(Frame::Get { name, kept, hash }) => self.get(&name, kept, hash)?,
                Ok(Frame::List { folder }) => self.list(&folder)?,
                // Of the last chunks of a file.
                Ok(frame @ Frame::Credit { .. }) => {
                    self.take(frame, None, self.requests)?;
                }
                // It was sent before the answer to that request had arrived.
                Ok(Frame::Abort { request }) if request < self.requests => {}
                Ok(other) => return Err(unexpected(&other)),
                Err(ControlError::Closed) => return Ok(()),
                Err(error) => {
                    if matches!(error, ControlError::Ending) {
                        // Files that have arrived are running requests.
                        self.commit_group()?;
                        self.send_outbox(0)?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// The client's next request; what is to be sent goes out before this waits.
    fn next_request(&mut self) -> Result<Frame, ControlError> {
        if self.server.admission.phase() == Phase::Serving {
            match self.control.try_receive() {
                Ok(None | Some(Frame::Working)) => {}
                Ok(Some(frame)) => return Ok(frame),
                Err(error) => {
                    // The client may have closed only its own side.
                    self.send_outbox(0)?;
                    return Err(error);
                }
            }
        }
        self.send_outbox(0)?;
        self.next(Phase::Serving)
    }

    /// Sends what is to be sent, if it is more than `most` frames.
    pub(super) fn send_outbox(&mut self, most: usize) -> Result<(), ControlError> {
        if self.outbox.len() > most {
            self.control.send_all(&std::mem::take(&mut self.outbox))?;
        }
        Ok(())
    }

    /// The client's next frame. It must come within the idle limit, and before the server is past `phase`.
    pub(super) fn next(&self, phase: Phase) -> Result<Frame, ControlError> {
        let limit = self.server.idle_limit;
        let mut deadline = Instant::now() + limit;
        loop {
            if self.server.admission.phase() > phase {
                return Err(ControlError::Ending);
            }
            match self.control.receive_by(deadline.min(Instant::now() + CHECK_INTERVAL))? {
                Some(Frame::Working) => deadline = Instant::now() + limit,
                Some(frame) => return Ok(frame),
                None if Instant::now() >= deadline => return Err(ControlError::Idle(limit)),
                None => {}
            }
        }
    }

    /// Tells the client that this side is busy with what is there already; an error once the server is past `phase`.
    pub(super) fn working(&self, phase: Phase) -> Result<()> {
        if self.server.admission.phase() > phase {
            return Err(ControlError::Ending.into());
        }
        Ok(self.control.send(&Frame::Working)?)
    }

    /// Answers a request with the reason why it failed.
    pub(super) fn fail(&mut self, verb: &str, name: &str, error: &CliError) -> Result<()> {
        tracing::info!(peer = %self.control.peer(), "{verb} {} failed: {error}", name.escape_debug());
        self.outbox.push(Frame::failed(&error.to_string()));
        // After the answers to earlier requests.
        Ok(self.send_outbox(0)?)
    }
}

pub(super) fn unexpected(frame: &Frame) -> CliError {
    CliError::protocol(format!("unexpected {frame:?}"))
}
