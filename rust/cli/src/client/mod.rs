//! The active side: connects to a server and moves every byte itself, one-sidedly.

#[cfg(test)]
mod damage_tests;
mod get;
mod put;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::{
    Connection, ConnectionInfo, Engine, Opcode, Outcome, PathKind, RemoteRange, Status, TransferId,
};

use crate::error::{CliError, Problem, Result, While};
use crate::output::{self, units};
use crate::ring::{Ring, Shape};
use crate::settings;
use crate::store;
use crate::wire::control::Control;
use crate::wire::{Frame, Hash, authenticate};

pub(crate) use get::Target;

/// How long to wait for a transfer before the control stream is read again.
const WAIT_STEP: Duration = Duration::from_millis(1);
/// Longest time that a single chunk may take. The engine's own deadline usually ends it sooner.
const CHUNK_DEADLINE: Duration = Duration::from_secs(60);

/// `flagcx-p2p put`.
#[derive(Clone, Debug)]
pub(crate) struct PutOptions {
    /// File to send.
    pub(crate) file: PathBuf,
    /// `HOST:PORT` of the server.
    pub(crate) server: String,
    /// Name to store it under; the file's own by default.
    pub(crate) name: Option<String>,
    /// Replace an existing file.
    pub(crate) force: bool,
    /// Ring to ask for.
    pub(crate) shape: Shape,
}

/// `flagcx-p2p get`.
#[derive(Clone, Debug)]
pub(crate) struct GetOptions {
    /// Name of the file on the server.
    pub(crate) name: String,
    /// `HOST:PORT` of the server.
    pub(crate) server: String,
    /// Where to store it; under its own name here by default.
    pub(crate) output: Option<PathBuf>,
    /// Replace an existing file.
    pub(crate) force: bool,
    /// Ring to ask for.
    pub(crate) shape: Shape,
}

/// The result of a finished put or get. Both sides computed `hash` on their own, and the two are equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) hash: Hash,
    pub(crate) elapsed: Duration,
}

/// Runs `put`.
pub(crate) fn put(options: &PutOptions) -> Result<()> {
    let name = put::name_of(options)?;
    // Before the server gets a request.
    let content = store::open_local(&options.file).map_err(CliError::argument)?;
    run("put", &name, "to", &options.server, options.shape, |client| {
        client.put(content, &name, options.force)
    })
}

/// Runs `get`.
pub(crate) fn get(options: &GetOptions) -> Result<()> {
    let target = Target::new(&options.name, options.output.as_deref(), options.force)?;
    run("get", &options.name, "from", &options.server, options.shape, |client| {
        client.get(&options.name, &target)
    })
}

fn run(
    verb: &str,
    name: &str,
    preposition: &str,
    server: &str,
    shape: Shape,
    step: impl FnOnce(&Client) -> Result<Moved>,
) -> Result<()> {
    let doing = || format!("{verb} {name} {preposition} {server}");
    let client = Client::connect(server, shape).doing(doing)?;
    let agreed = client.ring.shape();
    if agreed != shape {
        output::remark(&format!(
            "{verb} {name}: {agreed} instead of {shape}, which is more than the server's --ring-limit"
        ));
    }
    let moved = step(&client).doing(doing)?;
    output::line(&format!(
        "{verb} {name}: {} in {:.2} s, {}, path {}, verified blake3 {}",
        units::bytes(moved.bytes),
        moved.elapsed.as_secs_f64(),
        units::rate(moved.bytes, moved.elapsed),
        client.info().path,
        units::hex(&moved.hash)
    ));
    Ok(())
}

/// A connection to a server: control stream, engine connection, and a ring on either side.
#[derive(Debug)]
pub(crate) struct Client {
    control: Control,
    connection: Arc<Connection>,
    ring: Arc<Ring>,
    slots: Vec<RemoteRange>,
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
        let control = Control::connect(server)?;
        let config = settings::config(Some(control.local().ip()))?;
        let nonce = authenticate::nonce()?;
        control.send(&Frame::Open { chunk: shape.chunk, slots: shape.slots, nonce })?;
        let key = settings::auth_key(&config)?;
        let Frame::Ring { metadata, chunk, slots } = authenticate::initiate(key.as_ref(), &control, nonce)?
        else {
            return Err(CliError::protocol("expected Ring as the first frame"));
        };
        let agreed = Shape { chunk, slots: u16::try_from(slots.len()).unwrap_or(0) };
        if agreed != agreed.fitted(u64::from(u32::MAX)) {
            return Err(CliError::protocol(format!("malformed ring: {agreed}")));
        }
        let options = match path {
            Some(path) => settings::engine_options_over(path, &config, control.local().ip())?,
            None => settings::engine_options(),
        };
        let engine = Engine::open(config, options).doing(|| "open the engine".into())?;
        let ring = Ring::allocate(&engine, agreed)?;
        let peer = settings::PeerAddress::parse(&metadata, control.peer().ip())?;
        let connection =
            engine.connect(&peer.host, peer.port, peer.gpu, false).doing(|| "connect the engines".into())?;
        let slots = slots.into_iter().map(RemoteRange::from).collect();
        Ok(Self { control, connection, ring, slots, _engine: engine })
    }

    /// Path and lanes of the engine connection.
    pub(crate) fn info(&self) -> ConnectionInfo {
        self.connection.info()
    }

    /// The engine connection, for what it says of itself.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn start(&self, opcode: Opcode, sequence: u64, length: u32) -> Result<Posted> {
        let iov = self.ring.iov(sequence, length, &self.slots)?;
        let id = self.connection.submit(opcode, [iov].as_slice())?;
        Ok(Posted { id, sequence, length, deadline: Instant::now() + CHUNK_DEADLINE })
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
        Err(Problem::Transfer { sequence: posted.sequence, outcome }.into())
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

fn unexpected(frame: &Frame) -> CliError {
    CliError::protocol(format!("unexpected {frame:?}"))
}
