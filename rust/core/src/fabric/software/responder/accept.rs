//! Accepts data connections, does their handshake, and gives out the shared tables: a task of the event loop.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::arrivals::Arrivals;
use super::handshake::{Handshake, HandshakeStep, next_words};
use super::tables::{TableKeeper, TableListener};
use crate::admission::{self, Permit, Source};
use crate::events::{EventLoopHandle, SocketGroup, Wakeup, first};
use crate::fabric::software::device_core::Core;
use crate::fabric::software::tcp::server::{Server, WaitsFor};
use crate::fork::OwnSocket;
use crate::observe::report;
use crate::process::PeerProcess;

/// Tokens of the listeners; clients count from [`FIRST_CLIENT`].
const LISTENER: u64 = 0;
const TABLES: u64 = 1;
const FIRST_CLIENT: u64 = 2;

/// Connections accepted before the loop looks at anything else.
const ACCEPTED_PER_TURN: usize = 32;

/// The listeners of a device, and their clients that are not served by its data thread.
#[derive(Debug)]
pub(super) struct Acceptor {
    core: Arc<Core>,
    arrivals: Arc<Arrivals>,
    sockets: SocketGroup,
    listener: OwnSocket<TcpListener>,
    /// `None` when the host does not let us have one: then the cross-memory path is not offered.
    tables: Option<TableListener>,
    clients: HashMap<u64, Client>,
    /// The process of a client has ended.
    ended: Arc<Wakeup>,
    next_token: u64,
    /// The listeners are not watched until then.
    paused: Option<Instant>,
}

/// One client, by what it has said so far.
#[derive(Debug)]
enum Client {
    Handshaking(Handshake),
    Tables(TableKeeper),
}

impl Acceptor {
    pub(super) fn new(
        core: Arc<Core>,
        listener: OwnSocket<TcpListener>,
        arrivals: Arc<Arrivals>,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking(true)?;
        let sockets = SocketGroup::new()?;
        sockets.add(&listener, LISTENER)?;
        let tables = match TableListener::bind(&core) {
            _ if core.table_files().is_none() => None,
            Ok(tables) => {
                sockets.add(&tables, TABLES)?;
                Some(tables)
            }
            Err(errno) => {
                tracing::info!(device = core.name(), %errno, "no Unix socket: peers of this host will use TCP");
                None
            }
        };
        Ok(Self {
            core,
            arrivals,
            sockets,
            listener,
            tables,
            clients: HashMap::new(),
            ended: Arc::default(),
            next_token: FIRST_CLIENT,
            paused: None,
        })
    }

    /// Accepts until the task is stopped.
    pub(super) async fn run(mut self, handle: EventLoopHandle) {
        let mut watched = match self.sockets.watch(&handle) {
            Ok(watched) => watched,
            Err(error) => {
                tracing::error!(device = self.core.name(), %error, "cannot watch the data listener");
                return;
            }
        };
        let ended = Arc::clone(&self.ended);
        loop {
            let next_look = self.next_look();
            let news = first(watched.readable(), handle.sleep_until(next_look));
            let (news, process) = (
                async {
                    news.await;
                    false
                },
                async {
                    ended.wait().await;
                    true
                },
            );
            if first(news, process).await {
                self.drop_ended();
            }
            self.turn();
        }
    }

    /// Closes the clients of processes that have ended: a child of theirs may hold their sockets.
    fn drop_ended(&mut self) {
        let has_ended = |client: &Client| client.process().is_some_and(PeerProcess::has_ended);
        let ended: Vec<_> =
            self.clients.iter().filter(|(_, client)| has_ended(client)).map(|(token, _)| *token).collect();
        ended.into_iter().for_each(|token| self.serve(token));
    }

    fn next_look(&self) -> Option<Instant> {
        self.paused.into_iter().chain(self.clients.values().filter_map(Client::next_turn)).min()
    }

    fn turn(&mut self) {
        let now = Instant::now();
        self.resume(now);
        for number in self.sockets.ready() {
            match number {
                LISTENER => self.accept(),
                TABLES => self.accept_tables(),
                token => self.serve(token),
            }
        }
        let overdue: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| client.next_turn().is_some_and(|turn| now >= turn))
            .map(|(token, _)| *token)
            .collect();
        overdue.into_iter().for_each(|token| self.serve(token));
    }

    /// Accepts no more for a moment. What waits stays in the backlog and the listeners readable, so without the pause the
    /// loop would spin.
    fn pause(&mut self, listener: &str, error: &std::io::Error) {
        let _ = self.sockets.remove(&self.listener);
        let _ = self.tables.as_ref().map(|tables| self.sockets.remove(tables));
        let device = self.core.name();
        let pause = admission::pause_after(format_args!("the {listener} of {device}"), error);
        self.paused = Some(Instant::now() + pause);
    }

    fn resume(&mut self, now: Instant) {
        if self.paused.is_none_or(|until| now < until) {
            return;
        }
        let listener = self.sockets.add(&self.listener, LISTENER);
        let tables = self.tables.as_ref().map_or(Ok(()), |tables| self.sockets.add(tables, TABLES));
        self.paused = None;
        if let Err(error) = listener.and(tables) {
            self.pause("data listener", &error);
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED_PER_TURN {
            let accepted = admission::enter(self.listener.as_fd())
                .and_then(|permit| self.listener.accept().map(|(stream, peer)| (permit, stream, peer)));
            match accepted {
                Ok((_, _, peer)) if !permits(&self.core.options.allow, peer.ip()) => {
                    report!(
                        info,
                        ClientRefused,
                        peer = peer,
                        device = self.core.name(),
                        "connection refused: not in FLAGCX_P2P_ALLOW"
                    );
                }
                Ok((permit, stream, peer)) => self.begin_handshake(permit, OwnSocket::new(stream), peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if admission::concerns_one_client(&error) => {}
                Err(error) => return self.pause("data listener", &error),
            }
        }
    }

    fn begin_handshake(&mut self, permit: Permit, stream: OwnSocket<TcpStream>, peer: SocketAddr) {
        permit.describe(Source::of(peer.ip()), stream.as_fd());
        match Handshake::new(&self.core, stream, peer, permit) {
            Ok(handshake) => self.add(Client::Handshaking(handshake)),
            Err(errno) => {
                tracing::warn!(device = self.core.name(), %peer, %errno, "cannot begin the handshake of a data connection")
            }
        }
    }

    fn accept_tables(&mut self) {
        for _ in 0..ACCEPTED_PER_TURN {
            let Some(tables) = &self.tables else { return };
            let accepted = admission::enter(tables.as_fd()).and_then(|permit| {
                tables.accept(permit, next_words(&self.core)).map_err(std::io::Error::from)
            });
            match accepted {
                Ok(None) => {}
                Ok(Some(keeper)) => self.add(Client::Tables(keeper)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => return self.pause("listener of the shared tables", &error),
            }
        }
    }

    fn add(&mut self, client: Client) {
        let token = self.next_token;
        self.next_token += 1;
        if let Err(error) = self.sockets.add(client.socket(), token) {
            tracing::warn!(device = self.core.name(), %error, "cannot watch a data connection");
            self.forget(client);
            return;
        }
        if let Some(process) = client.process() {
            process.watch(&self.ended);
        }
        self.clients.insert(token, client);
        self.serve(token);
    }

    /// Gives a client its turn.
    fn serve(&mut self, token: u64) {
        match self.clients.remove(&token) {
            None => {}
            Some(Client::Tables(mut keeper)) => match keeper.serve(&self.core) {
                WaitsFor::Close => self.forget(Client::Tables(keeper)),
                _ => drop(self.clients.insert(token, Client::Tables(keeper))),
            },
            Some(Client::Handshaking(handshake)) => {
                let name = self.tables.as_ref().map(TableListener::name);
                match handshake.serve(&self.core, name) {
                    HandshakeStep::Waiting(handshake) => {
                        self.clients.insert(token, Client::Handshaking(handshake));
                    }
                    HandshakeStep::Refused(handshake) => self.forget(Client::Handshaking(handshake)),
                    HandshakeStep::Welcome(server) => self.hand_over(server),
                }
            }
        }
    }

    /// Gives a connection to the data thread after its handshake.
    fn hand_over(&self, server: Server) {
        // Fails only for a socket that is not watched.
        let _ = self.sockets.remove(server.socket());
        self.arrivals.add(&self.core, server);
    }

    fn forget(&self, client: Client) {
        // Not by closing alone: a child that this process has forked may hold the same socket.
        let _ = self.sockets.remove(client.socket());
        if let Client::Tables(keeper) = client {
            keeper.close(&self.core);
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        for (_, client) in std::mem::take(&mut self.clients) {
            self.forget(client);
        }
    }
}

impl Client {
    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Handshaking(handshake) => handshake.socket(),
            Self::Tables(keeper) => keeper.socket(),
        }
    }

    /// Its process, where its end is watched.
    fn process(&self) -> Option<&PeerProcess> {
        match self {
            Self::Tables(keeper) => keeper.process(),
            Self::Handshaking(_) => None,
        }
    }

    /// When it is to be served although it has said nothing more.
    fn next_turn(&self) -> Option<Instant> {
        match self {
            Self::Handshaking(handshake) => Some(handshake.deadline()),
            Self::Tables(keeper) => keeper.next_turn(),
        }
    }
}

/// Whether an address is in one of the networks; no networks mean that every address may connect.
fn permits(allow: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    allow.is_empty() || allow.iter().any(|network| network.contains(&address))
}
