//! The active side: connects to a server and moves every byte itself, one-sidedly.

#[cfg(test)]
mod damage_tests;
mod download;
mod get;
mod list;
mod opening;
mod options;
mod put;
mod results;
mod sources;
mod target;
mod upload;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::{
    Connection, ConnectionInfo, Engine, Iov, Opcode, Outcome, PathKind, RemoteRange, Status, TransferId,
};

use crate::error::{CliError, Problem, Result};
use crate::interrupt;
use crate::output;
use crate::ring::{Ring, Shape};
use crate::wire::control::Control;
use crate::wire::{Frame, Hash};

use opening::Opening;

pub(crate) use get::get;
pub(crate) use list::list;
pub(crate) use options::{GetOptions, ListOptions, PutOptions, Style};
pub(crate) use put::put;
pub(crate) use target::Target;

/// How long to wait for a transfer before the control stream is read again.
const WAIT_STEP: Duration = Duration::from_millis(1);
/// How often a wait for the server looks for a signal.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time that a single chunk may take. The engine's own deadline usually ends it sooner.
const CHUNK_DEADLINE: Duration = Duration::from_secs(60);

/// How long a failed transfer waits for the server's reason.
const REASON_WAIT: Duration = Duration::from_millis(500);

/// The result of a finished put or get. Both sides computed `hash` on their own, and the two are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) hash: Hash,
    pub(crate) elapsed: Duration,
    /// Bytes of it that were there already, from an interrupted run.
    pub(crate) resumed: u64,
}

/// A connection to a server: control stream, engine connection, and a ring on either side.
#[derive(Debug)]
pub(crate) struct Client {
    control: Control,
    connection: Arc<Connection>,
    ring: Arc<Ring>,
    slots: Vec<RemoteRange>,
    /// Requests so far.
    requests: Cell<u64>,
    /// Number of the next chunk to put, and to get. All earlier ones are credited between two uses.
    next_put: Cell<u64>,
    next_get: Cell<u64>,
    /// Held so that the engine outlives everything above.
    _engine: Arc<Engine>,
}

impl Client {
    /// Connects to `server` (`HOST:PORT`) and agrees on a ring of about `shape`.
    pub(crate) fn connect(server: &str, shape: Shape) -> Result<Self> {
        Self::connect_over(server, shape, None)
    }

    /// Connects over one path of the software fabric; `None` is the path that the engine chooses.
    pub(crate) fn connect_over(server: &str, shape: Shape, path: Option<PathKind>) -> Result<Self> {
        Opening::connect(server, path)?.allocate(shape)
    }

    /// Path and lanes of the engine connection.
    pub(crate) fn info(&self) -> ConnectionInfo {
        self.connection.info()
    }

    /// The engine connection, for what it says of itself.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A remark on stderr if the server gives a smaller ring than was asked for.
    fn remark_on_ring(&self, asked: Shape) {
        let agreed = self.ring.shape();
        if agreed != asked {
            output::remark(&format!(
                "{agreed} instead of {asked}, which is more than the server's --ring-limit"
            ));
        }
    }

    /// The server's next frame; an error once a signal has come.
    fn receive(&self) -> Result<Frame> {
        receive(&self.control)
    }

    /// The number of a new request.
    fn new_request(&self) -> u64 {
        let request = self.requests.get();
        self.requests.set(request + 1);
        request
    }

    /// Tells the server that this side hashes what it has; an error once a signal has come.
    fn working(&self) -> Result<()> {
        interrupt::check()?;
        Ok(self.control.send(&Frame::Working)?)
    }

    fn start(&self, opcode: Opcode, sequence: u64, length: u32) -> Result<Posted> {
        let iov = self.ring.iov(sequence, length, &self.slots)?;
        self.submit(opcode, iov, sequence, length)
    }

    /// Starts the transfer of the small file `sequence`.
    fn start_small(&self, opcode: Opcode, sequence: u64, length: u32) -> Result<Posted> {
        let iov = self.ring.small_iov(sequence, length, &self.slots)?;
        self.submit(opcode, iov, sequence, length)
    }

    fn submit(&self, opcode: Opcode, iov: Iov, sequence: u64, length: u32) -> Result<Posted> {
        let id = self
            .connection
            .submit(opcode, [iov].as_slice())
            .map_err(|error| self.better_reason(error.into()))?;
        Ok(Posted { id, sequence, length, deadline: Instant::now() + CHUNK_DEADLINE })
    }

    /// Why a transfer failed: what the server says, if it has ended the session, and `error` otherwise.
    fn better_reason(&self, error: CliError) -> CliError {
        self.control.refusal_within(REASON_WAIT).map_or(error, CliError::from)
    }

    /// True when `posted` is done; with `wait` it waits for that for [`WAIT_STEP`] at most.
    fn is_done(&self, posted: &Posted, wait: bool) -> Result<bool> {
        let id = posted.id;
        let status = if wait { self.connection.wait(id, WAIT_STEP) } else { self.connection.status(id) };
        let outcome = match status {
            _ if id == TransferId::COMPLETE => return Ok(true),
            Status::Ended(Outcome::Done) => return Ok(true),
            Status::Pending if Instant::now() < posted.deadline => return Ok(false),
            Status::Pending => "made no progress".to_owned(),
            Status::Ended(outcome) => outcome.to_string(),
            Status::Unknown => "has an id that the engine does not know any more".to_owned(),
        };
        Err(self.better_reason(Problem::Transfer { sequence: posted.sequence, outcome }.into()))
    }
}

/// A chunk with its submitted transfer.
#[derive(Clone, Copy, Debug)]
struct Posted {
    id: TransferId,
    sequence: u64,
    length: u32,
    deadline: Instant,
}

/// The server's next frame; an error once a signal has come.
fn receive(control: &Control) -> Result<Frame> {
    loop {
        interrupt::check()?;
        match control.receive_by(Instant::now() + CHECK_INTERVAL)? {
            Some(Frame::Working) | None => {}
            Some(frame) => return Ok(frame),
        }
    }
}

fn unexpected(frame: &Frame) -> CliError {
    CliError::protocol(format!("unexpected {frame:?}"))
}
