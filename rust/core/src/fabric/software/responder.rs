//! The device's thread: greets those who dial, serves the TCP path, gives out the shared tables.
//!
//! It sleeps in epoll, never blocks on a peer, and holds no lock while it works.

mod greeter;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::device::Core;
use super::link::is_alive;
use super::tcp::server::{Server, Wish};
use super::wake::WatchedProcess;
use crate::fabric::FabricError;
use greeter::{Greeted, Greeter};
use tables::{TableKeeper, TableListener};

/// Tokens of what is not a connection; connections count from [`FIRST_CONNECTION`].
const WAKE: u64 = 0;
const LISTENER: u64 = 1;
const TABLES: u64 = 2;
const FIRST_CONNECTION: u64 = 3;

/// How long a client may take to say hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);
/// How often deadlines are looked at while there are any.
const TICK: Duration = Duration::from_millis(100);
/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
/// Connections that have not said hello yet; more are closed at once.
const MAX_HELLOS: usize = 1024;
const EVENTS: usize = 64;

/// The handle on the thread. Dropping it ends the thread and closes its sockets.
#[derive(Debug)]
pub(super) struct Responder {
    core: Arc<Core>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Binds the data listener and starts to serve it.
    pub(super) fn start(core: &Arc<Core>) -> Result<Self, FabricError> {
        let (listener, address) = bind(core)?;
        let failed = |operation| {
            move |error: std::io::Error| {
                FabricError::call(operation, core.name(), error.raw_os_error().unwrap_or(libc::EIO))
            }
        };
        let mut server = Loop::new(Arc::clone(core), listener).map_err(failed("set up the responder"))?;
        let thread = thread::Builder::new()
            .name(format!("p2p-{}", core.name()))
            .spawn(move || server.run())
            .map_err(failed("start the responder's thread"))?;
        Ok(Self { core: Arc::clone(core), address, thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.core.responder.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(device = self.core.name(), "the responder's thread panicked");
        }
    }
}

fn bind(core: &Core) -> Result<(TcpListener, SocketAddr), FabricError> {
    let ip = core.ip();
    let (first, last) = core.options.ports.unwrap_or((0, 0));
    let mut failure = libc::EINVAL;
    for port in first..=last {
        match TcpListener::bind((ip, port)).and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((address, listener)) => return Ok((listener, address)),
            Err(error) => failure = error.raw_os_error().unwrap_or(libc::EIO),
        }
    }
    let what = format!("{} ({ip}, ports {first}..={last})", core.name());
    Err(FabricError::call("bind the data listener", what, failure))
}

/// Whether an address is in one of the networks; no networks mean that everyone may connect.
fn permits(allow: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    allow.is_empty() || allow.iter().any(|network| network.contains(&address))
}

/// One connection, by what it is at present.
#[derive(Debug)]
enum Connection {
    Hello(Greeter),
    Data(Server),
    Tables(TableKeeper),
    Process(WatchedProcess),
}

#[derive(Debug)]
struct Loop {
    core: Arc<Core>,
    epoll: OwnedFd,
    listener: TcpListener,
    /// `None` when the host does not let us have one: then the cross-memory path is not offered.
    tables: Option<TableListener>,
    connections: HashMap<u64, Connection>,
    next_token: u64,
    /// Connections that wait for a time rather than for an event.
    timed: BTreeSet<u64>,
    /// Connections with work left.
    again: BTreeSet<u64>,
}

impl Loop {
    fn new(core: Arc<Core>, listener: TcpListener) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let read = epoll::EventFlags::IN;
        epoll::add(&epoll, core.responder.as_fd(), epoll::EventData::new_u64(WAKE), read)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), read)?;
        let tables = match TableListener::bind(&core) {
            Ok(tables) => {
                epoll::add(&epoll, tables.as_fd(), epoll::EventData::new_u64(TABLES), read)?;
                Some(tables)
            }
            Err(errno) => {
                tracing::info!(device = core.name(), %errno, "no Unix socket: peers of this host will use TCP");
                None
            }
        };
        Ok(Self {
            core,
            epoll,
            listener,
            tables,
            connections: HashMap::new(),
            next_token: FIRST_CONNECTION,
            timed: BTreeSet::new(),
            again: BTreeSet::new(),
        })
    }

    fn run(&mut self) {
        while !self.core.responder.is_stopping() {
            if let Err(errno) = self.turn() {
                tracing::error!(device = self.core.name(), %errno, "the responder cannot wait for its peers");
                thread::sleep(TICK);
            }
        }
        for (_, connection) in self.connections.drain() {
            connection.closing(&self.core);
        }
    }

    fn turn(&mut self) -> Result<(), Errno> {
        let mut room = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let events = match epoll::wait(&self.epoll, &mut room, self.timeout().as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let again = std::mem::take(&mut self.again);
        for event in events {
            match event.data.u64() {
                WAKE => self.woken(),
                LISTENER => self.accept(),
                TABLES => self.accept_tables(),
                token => self.serve(token),
            }
        }
        again.into_iter().for_each(|token| self.serve(token));
        std::mem::take(&mut self.timed).into_iter().for_each(|token| self.serve(token));
        Ok(())
    }

    fn timeout(&self) -> Option<Timespec> {
        let wait = |time: Duration| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        if !self.again.is_empty() {
            Some(wait(Duration::ZERO))
        } else if !self.timed.is_empty() {
            Some(wait(TICK))
        } else {
            None
        }
    }

    /// A queue pair was connected, or went to ERROR: its connections may want something else now.
    fn woken(&mut self) {
        self.core.responder.acknowledge();
        for process in self.core.responder.take_processes() {
            self.add(Connection::Process(process));
        }
        let concerned: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_concerned())
            .map(|(token, _)| *token)
            .collect();
        concerned.into_iter().for_each(|token| self.serve(token));
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((_, peer)) if !permits(&self.core.options.allow, peer.ip()) => {
                    tracing::info!(device = self.core.name(), %peer, "connection refused: not in FLAGCX_P2P_ALLOW");
                }
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Most likely no descriptors are left. The connection stays in the backlog, and the listener
                    // readable: without the pause this would spin.
                    tracing::warn!(device = self.core.name(), %error, "cannot accept a data connection");
                    thread::sleep(ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        let hellos = self.connections.values().filter(|other| matches!(other, Connection::Hello(_))).count();
        if hellos >= MAX_HELLOS {
            tracing::warn!(device = self.core.name(), %peer, "too many connections without a hello");
            return;
        }
        match Greeter::new(&self.core, stream, peer, Instant::now() + HELLO_PATIENCE) {
            Ok(greeter) => self.add(Connection::Hello(greeter)),
            Err(errno) => tracing::warn!(device = self.core.name(), %peer, %errno, "cannot greet"),
        }
    }

    fn accept_tables(&mut self) {
        while let Some(keeper) = self.tables.as_ref().and_then(TableListener::accept) {
            self.add(Connection::Tables(keeper));
        }
    }

    fn add(&mut self, connection: Connection) {
        let token = self.next_token;
        self.next_token += 1;
        let data = epoll::EventData::new_u64(token);
        let read = epoll::EventFlags::IN;
        let watched = epoll::add(&self.epoll, connection.socket(), data, read).and_then(|()| {
            connection.second().map_or(Ok(()), |second| epoll::add(&self.epoll, second, data, read))
        });
        if let Err(errno) = watched {
            tracing::warn!(device = self.core.name(), %errno, "cannot watch a connection");
            return;
        }
        self.connections.insert(token, connection);
        self.serve(token);
    }

    /// Gives a connection its turn.
    fn serve(&mut self, token: u64) {
        let Some(connection) = self.connections.remove(&token) else { return };
        let (connection, wish) = match connection {
            Connection::Hello(greeter) => self.greet(greeter),
            Connection::Data(mut server) => {
                let wish = server.serve(&self.core);
                (Connection::Data(server), wish)
            }
            Connection::Tables(mut keeper) => {
                let wish = keeper.serve(&self.core);
                (Connection::Tables(keeper), wish)
            }
            Connection::Process(process) => {
                let wish = process.serve();
                (Connection::Process(process), wish)
            }
        };
        self.settle(token, connection, wish);
    }

    fn greet(&self, greeter: Greeter) -> (Connection, Wish) {
        let name = self.tables.as_ref().map(TableListener::name);
        match greeter.serve(&self.core, name) {
            Greeted::Waiting(greeter) => (Connection::Hello(greeter), Wish::Read),
            Greeted::Refused(greeter) => (Connection::Hello(greeter), Wish::Close),
            Greeted::Welcome(mut server) => {
                let wish = server.serve(&self.core);
                (Connection::Data(server), wish)
            }
        }
    }

    fn settle(&mut self, token: u64, connection: Connection, wish: Wish) {
        let flags = match wish {
            Wish::Read | Wish::Again => epoll::EventFlags::IN,
            Wish::Write => epoll::EventFlags::OUT,
            // Nothing but the end of it, and that once: it cannot be acted on before our side is connected.
            Wish::Parked => epoll::EventFlags::ET,
            Wish::Close => return connection.closing(&self.core),
        };
        let data = epoll::EventData::new_u64(token);
        if epoll::modify(&self.epoll, connection.socket(), data, flags).is_err() {
            return connection.closing(&self.core);
        }
        if wish == Wish::Again {
            self.again.insert(token);
        } else if connection.has_deadline() {
            self.timed.insert(token);
        }
        self.connections.insert(token, connection);
    }
}

impl WatchedProcess {
    fn serve(&self) -> Wish {
        if self.endpoint.is_error() {
            return Wish::Close;
        }
        if is_alive(self.process.as_fd()) {
            return Wish::Read;
        }
        self.endpoint.set_peer_gone();
        Wish::Close
    }
}

impl Connection {
    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Hello(greeter) => greeter.socket(),
            Self::Data(server) => server.socket(),
            Self::Tables(keeper) => keeper.socket(),
            Self::Process(process) => process.process.as_fd(),
        }
    }

    /// Another descriptor to look at it for.
    fn second(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Tables(keeper) => keeper.process(),
            _ => None,
        }
    }

    /// Whether a change of a queue pair may matter to it.
    fn is_concerned(&self) -> bool {
        match self {
            Self::Data(server) => server.is_parked() || server.endpoint().is_error(),
            Self::Process(process) => process.endpoint.is_error(),
            Self::Hello(_) | Self::Tables(_) => false,
        }
    }

    fn has_deadline(&self) -> bool {
        match self {
            Self::Hello(_) => true,
            Self::Data(server) => server.is_draining() || server.is_parked(),
            Self::Tables(keeper) => keeper.is_asking(),
            Self::Process(_) => false,
        }
    }

    fn closing(self, core: &Core) {
        if let Self::Tables(keeper) = self {
            keeper.close(core);
        }
    }
}
