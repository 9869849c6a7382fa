//! A server's side of one client.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::{Connection, Engine, Opcode, RegisteredBuffer};

use super::case::MAX_BATCH;
use super::layout::Layout;
use super::measure;
use super::options::Limit;
use super::path::Path;
use super::pattern;
use super::protocol::{Frame, Load, MAX_SPANS, Ready, Stream, StreamError, unexpected};
use super::server::Permit;
use super::session::describe;
use super::worker::{LocalPool, RemotePool, Stop, Worker};
use crate::error::{CliError, Problem, Result, While};
use crate::output::units;
use crate::settings;

/// How long a client may take to open its session and to prove the key: 5 s, as at the engine's listeners; 2 s are too short on a busy
/// host.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without a request after which a client counts as lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How often the client's stream is looked at while this side transfers.
const POLL: Duration = Duration::from_millis(20);
/// Most transfers in flight per connection, and most connections, that a client may ask of the server: those of the command line.
const MAX_DEPTH: u16 = 1024;
const MAX_CONNECTIONS: u16 = 256;
/// The server's own transfers run until the client says stop.
const NO_LIMIT: Limit = Limit::Transfers(u64::MAX);

/// Serves a client until it closes its connection.
pub(super) fn serve(mut permit: Permit, mut stream: Stream) {
    let peer = stream.peer();
    let mut session = match open(&mut permit, &mut stream) {
        Ok(Some(session)) => session,
        Ok(None) => return,
        Err(error) => {
            if error.is_question() {
                tracing::info!(%peer, "{error}");
            } else {
                tracing::warn!(%peer, "{error}");
            }
            // A client that has not proven the key gets no reason.
            if permit.server().key.is_none()
                || matches!(error.problem(), Problem::Engine(_) | Problem::Fabric(_) | Problem::Other(_))
            {
                refuse(&mut stream, &error);
            }
            return;
        }
    };
    tracing::info!(%peer, pool = session.pool.len(), "client of a benchmark");
    if let Err(error) = session.serve(&mut stream) {
        tracing::warn!(%peer, "{error}");
        refuse(&mut stream, &error);
    }
}

/// Tells the client why its session ends; a client that has left does not read it.
fn refuse(stream: &mut Stream, error: &CliError) {
    let _ = stream.send(&Frame::refused(&error.to_string()));
}

/// An engine with a pool for one client.
struct Serving {
    /// To the client's engine, for both directions at once. Dropped first: they use the pool, and the pool the engine.
    connections: Vec<Arc<Connection>>,
    remote: RemotePool,
    pool: RegisteredBuffer,
    engine: Arc<Engine>,
}

/// Takes the first frame, and the proof where a key is set; allocates the pool. `None`: the client closed the connection.
fn open(permit: &mut Permit, stream: &mut Stream) -> Result<Option<Serving>> {
    let (nonce, path, length) = match stream.receive(OPEN_TIMEOUT) {
        Ok(Frame::Open { nonce, path, pool }) => (nonce, path, pool),
        Ok(other) => return Err(unexpected(&other).into()),
        Err(StreamError::Closed) => return Ok(None), // A port scan, or a health check.
        Err(error) => return Err(error.into()),
    };
    if let Some(key) = &permit.server().key {
        stream.verify(key, nonce, OPEN_TIMEOUT)?;
    }
    permit.reserve(length)?;
    let serving = Serving::open(permit, stream, path, length)?;
    let range = describe(&serving.engine, &serving.pool)?;
    stream.send(&Frame::Ready(Ready {
        metadata: serving.engine.metadata()?,
        address: range.address,
        rkey: range.rkey,
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
    }))?;
    Ok(Some(serving))
}

impl Serving {
    fn open(permit: &Permit, stream: &Stream, path: Path, length: u64) -> Result<Self> {
        let server = permit.server();
        let own = stream.local().ip();
        let options = path.engine_options(&server.config, own).doing(|| format!("open path {path}"))?;
        let engine = Engine::open(settings::config(Some(server.listen))?, options)
            .doing(|| "open the engine".into())?;
        engine.start_rpc_server().doing(|| "start the engine's listener".into())?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let pool = engine
            .allocate(length)
            .doing(|| format!("register {} for the pool", units::bytes(length as u64)))?;
        Ok(Self { connections: Vec::new(), remote: RemotePool { address: 0, rkey: 0 }, pool, engine })
    }

    fn serve(&mut self, stream: &mut Stream) -> Result<()> {
        loop {
            let request = match stream.receive(IDLE_TIMEOUT) {
                Err(StreamError::Closed) => return Ok(()),
                request => request?,
            };
            let answer = match request {
                Frame::Ping => Frame::Done,
                Frame::Usage => usage(),
                Frame::Fill { seed, start, length } => {
                    inside(pattern::fill(&self.pool, seed, start, length))?
                }
                Frame::Clear { start, length } => inside(pattern::clear(&self.pool, start, length))?,
                Frame::Compare { seed, layout, spans } => {
                    let layout = self.layout(layout)?;
                    Frame::Compared(pattern::compare(&self.pool, seed, &layout, &spans))
                }
                Frame::Connect { metadata, connections, address, rkey } => {
                    self.remote = RemotePool { address, rkey };
                    self.connect(stream, &metadata, connections)?;
                    Frame::Done
                }
                Frame::Start(load) => self.run(stream, &load)?,
                Frame::Raw { bytes } => {
                    drain(stream, bytes)?;
                    Frame::Done
                }
                other => return Err(unexpected(&other).into()),
            };
            stream.send(&answer)?;
        }
    }

    fn connect(&mut self, stream: &Stream, metadata: &str, connections: u16) -> Result<()> {
        if connections > MAX_CONNECTIONS {
            return Err(CliError::protocol(format!("{connections} connections, at most {MAX_CONNECTIONS}")));
        }
        let peer = settings::PeerAddress::parse(metadata, stream.peer().ip())?;
        self.connections = (0..connections)
            .map(|_| self.engine.connect(&peer.host, peer.port, peer.gpu, false))
            .collect::<Result<Vec<_>, _>>()
            .doing(|| format!("connect to the client's engine at {}:{}", peer.host, peer.port))?;
        Ok(())
    }

    /// A layout that is inside the pool.
    fn layout(&self, spec: super::layout::LayoutSpec) -> Result<Layout> {
        let end = spec.start.checked_add(spec.length).filter(|end| *end <= self.pool.len() as u64);
        let layout = end.and_then(|_| Layout::new(spec));
        layout.ok_or_else(|| CliError::protocol("a layout outside the pool"))
    }

    /// Transfers until the client says stop.
    fn run(&mut self, stream: &mut Stream, load: &Load) -> Result<Frame> {
        let layout = Arc::new(self.layout(load.layout)?);
        let threads = usize::from(load.threads);
        let allowed = (1..=MAX_SPANS).contains(&threads)
            && (1..=MAX_BATCH).contains(&load.batch)
            && (1..=MAX_DEPTH).contains(&load.depth);
        if self.connections.is_empty() || !allowed {
            return Err(CliError::protocol("no connections to measure with, or numbers beyond their limits"));
        }
        let mut workers = workers(
            &self.connections,
            &Share {
                layout,
                local: LocalPool { address: self.pool.address(), region: self.pool.region() },
                remote: self.remote,
                opcode: if load.write { Opcode::Write } else { Opcode::Read },
                batch: load.batch,
                depth: load.depth,
                threads,
            },
        );
        stream.send(&Frame::Done)?;
        let tally =
            measure::run(&mut workers, NO_LIMIT, Duration::from_millis(1), &mut |stop: &Stop| match stream
                .poll(POLL)?
            {
                None => Ok(()),
                Some(Frame::Ping) => Ok(stream.send(&Frame::Done)?),
                Some(Frame::Stop) => {
                    stop.finish();
                    Ok(())
                }
                Some(other) => Err(unexpected(&other).into()),
            })?;
        Ok(Frame::Ran {
            transfers: tally.transfers,
            micros: u64::try_from(tally.elapsed.as_micros()).unwrap_or(u64::MAX),
            spans: workers.iter().map(Worker::span).collect(),
        })
    }
}

/// What the threads of one end share.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) layout: Arc<Layout>,
    pub(super) local: LocalPool,
    pub(super) remote: RemotePool,
    pub(super) opcode: Opcode,
    pub(super) batch: u32,
    pub(super) depth: u16,
    pub(super) threads: usize,
}

/// Divides connections and pieces among threads. With fewer connections than threads, several threads use one.
pub(super) fn workers(connections: &[Arc<Connection>], share: &Share) -> Vec<Worker> {
    (0..share.threads)
        .map(|thread| {
            let own = |index: usize| {
                index % share.threads == thread
                    || (thread >= connections.len() && index == thread % connections.len())
            };
            let mine = connections.iter().enumerate().filter(|(index, _)| own(*index));
            Worker {
                connections: mine.map(|(_, connection)| Arc::clone(connection)).collect(),
                opcode: share.opcode,
                layout: Arc::clone(&share.layout),
                local: share.local,
                remote: share.remote,
                batch: share.batch,
                depth: share.depth,
                first: share.layout.pieces() / share.threads as u64 * thread as u64,
                moved: 0,
            }
        })
        .collect()
}

fn inside(done: bool) -> Result<Frame> {
    if done { Ok(Frame::Done) } else { Err(CliError::protocol("bytes outside the pool")) }
}

fn usage() -> Frame {
    Frame::UsageIs { micros: u64::try_from(settings::processor_time().as_micros()).unwrap_or(u64::MAX) }
}

/// Reads so many bytes and drops them.
fn drain(stream: &mut Stream, mut bytes: u64) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while bytes > 0 {
        let part = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        let read = stream.socket().read(buffer.get_mut(..part).unwrap_or_default());
        match read.map_err(|error| StreamError::Io(error.to_string()))? {
            0 => return Err(StreamError::Closed.into()),
            read => bytes -= read as u64,
        }
    }
    Ok(())
}
