//! The initiating side: an engine with a pool, and its connections to a server.

use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::{Connection, Engine, Opcode, PathKind, RegisteredBuffer};

use super::layout::{Layout, LayoutSpec};
use super::options::Limit;
use super::path::Path;
use super::pattern;
use super::protocol::{Frame, Ready, Stream, StreamError, nonce, unexpected};
use super::serving::{Share, workers};
use super::worker::{LocalPool, RemotePool, Stop};
use crate::error::{CliError, Result, While};
use crate::output::units;
use crate::settings;

/// How long a server that measures may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a transfer that maps pages.
const MAP_STEP: u32 = 1 << 20;

/// One client of a server.
#[derive(Debug)]
pub(crate) struct Session {
    /// Dropped first: the connections use the pool, and the pool the engine.
    pub(crate) connections: Vec<Arc<Connection>>,
    pub(crate) stream: Stream,
    pub(crate) pool: RegisteredBuffer,
    pub(crate) remote: RemotePool,
    pub(crate) server: Ready,
    pub(crate) engine: Arc<Engine>,
}

/// How to open sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionOptions {
    pub(crate) path: Path,
    pub(crate) pool: u64,
    pub(crate) connections: u16,
    /// The server connects to this side, too.
    pub(crate) bidirectional: bool,
}

impl Session {
    /// Connects to `HOST:PORT`, allocates a pool at both ends, and connects the engines.
    pub(crate) fn open(address: &str, options: &SessionOptions) -> Result<Self> {
        let mut stream = Stream::connect(address)?;
        let own = stream.local().ip();
        let config = settings::config(Some(own))?;
        // First, so that what this side lacks is told by this side.
        let engine_options = options.path.engine_options(&config, own)?;
        let nonce = nonce()?;
        stream.send(&Frame::Open { nonce, path: options.path, pool: options.pool })?;
        let key = settings::auth_key(&config)?;
        let Frame::Ready(server) = stream.prove(key.as_ref(), nonce)? else {
            return Err(CliError::protocol("expected Ready as the first frame"));
        };
        let engine = Engine::open(config, engine_options).doing(|| "open the engine".into())?;
        let length = usize::try_from(options.pool).unwrap_or(usize::MAX);
        let pool = engine
            .allocate(length)
            .doing(|| format!("register {} for the pool", units::bytes(options.pool)))?;
        let reached = stream.peer().ip();
        let peer = settings::PeerAddress::parse(&server.metadata, reached)?;
        let connections = (0..options.connections)
            .map(|_| engine.connect(&peer.host, peer.port, peer.gpu, false))
            .collect::<Result<Vec<_>, _>>()
            .doing(|| peer.connecting(reached))?;
        let remote = RemotePool { address: server.address, rkey: server.rkey };
        let mut session = Self { connections, stream, pool, remote, server, engine };
        if session.path_of(Opcode::Write) == PathKind::Shared.to_string() {
            session.map_all()?;
        }
        if options.bidirectional {
            session.connect_back(options.connections)?;
        }
        Ok(session)
    }

    /// Moves the whole pool once, so that no page of the server's memory is mapped here for the first time while the clock
    /// runs: a transfer of 4 KiB takes three times as long then.
    fn map_all(&self) -> Result<()> {
        let length = self.pool.len() as u64;
        let piece = u32::try_from(length).map_or(MAP_STEP, |length| length.min(MAP_STEP));
        let layout = Layout::new(LayoutSpec { seed: 0, start: 0, length, piece, contiguous: true });
        let layout = Arc::new(layout.ok_or_else(|| CliError::other("the pool is empty"))?);
        let pieces = layout.pieces();
        let share = Share {
            layout,
            local: self.local(),
            remote: self.remote,
            opcode: Opcode::Write,
            batch: 1,
            depth: 1,
            threads: 1,
        };
        for mut worker in workers(&self.connections, &share) {
            worker.run(Limit::Transfers(pieces), &Stop::default())?;
        }
        Ok(())
    }

    /// Lets the server connect to this side.
    fn connect_back(&mut self, connections: u16) -> Result<()> {
        self.engine.start_rpc_server().doing(|| "start the engine's listener".into())?;
        let range = describe(&self.engine, &self.pool)?;
        let connect = Frame::Connect {
            metadata: self.engine.metadata()?,
            connections,
            address: range.address,
            rkey: range.rkey,
        };
        self.stream.order(&connect).doing(|| "let the server connect to this side".into())
    }

    /// This side's pool.
    pub(crate) fn local(&self) -> LocalPool {
        LocalPool { address: self.pool.address(), region: self.pool.region() }
    }

    /// The path that transfers of this kind take.
    pub(crate) fn path_of(&self, opcode: Opcode) -> String {
        let paths = self.connections.first().map(|connection| connection.info().paths);
        paths.map_or_else(String::new, |paths| match opcode {
            Opcode::Write => paths.write.to_string(),
            Opcode::Read => paths.read.to_string(),
        })
    }

    /// Processor time that the server's process has used so far.
    pub(crate) fn server_usage(&mut self) -> Result<Duration> {
        match self.stream.ask(&Frame::Usage)? {
            Frame::UsageIs { micros } => Ok(Duration::from_micros(micros)),
            other => Err(unexpected(&other).into()),
        }
    }

    /// Whether the server still answers.
    pub(crate) fn ping(&mut self) -> Result<(), StreamError> {
        self.stream.send(&Frame::Ping)?;
        self.stream.done(PING_TIMEOUT)
    }

    /// Writes the pattern to a part of one end's pool, and zeros to that of the other.
    pub(crate) fn prepare(
        &mut self,
        server_is_source: bool,
        seed: u64,
        start: u64,
        length: u64,
    ) -> Result<()> {
        let there = if server_is_source {
            Frame::Fill { seed, start, length }
        } else {
            Frame::Clear { start, length }
        };
        self.stream.send(&there)?;
        let here = if server_is_source {
            pattern::clear(&self.pool, start, length)
        } else {
            pattern::fill(&self.pool, seed, start, length)
        };
        self.stream.done(super::protocol::ANSWER_TIMEOUT)?;
        if here { Ok(()) } else { Err(CliError::other("the pool is smaller than what it is used for")) }
    }

    /// Ends all transfers, whatever became of the peer.
    pub(crate) fn abandon(&self) {
        self.connections.iter().for_each(|connection| connection.close());
    }
}

/// A descriptor of the pool's first byte, for its address and key: of the whole pool there may be none, see
/// [`Engine::describe`].
pub(crate) fn describe(engine: &Engine, pool: &RegisteredBuffer) -> Result<flagcx_p2p::RemoteRange> {
    Ok(engine.describe(pool.region(), pool.address(), 1)?)
}
