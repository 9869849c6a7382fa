//! `bench serve`: memory for clients to measure with, and this side's share of a measurement.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use flagcx_p2p::Config;
use flagcx_p2p::internals::auth::AuthKey;

use super::options::ServeOptions;
use super::pool_size::available_memory;
use super::protocol::Stream;
use super::serving;
use crate::error::{CliError, Result};
use crate::listener::{self, ListenOptions, READY};
use crate::output::units;
use crate::settings;
use crate::signals;

/// Clients at the same time.
const MAX_CLIENTS: usize = 64;

/// What all clients share.
#[derive(Debug)]
pub(crate) struct BenchServer {
    listener: TcpListener,
    pub(super) listen: IpAddr,
    pub(super) config: Arc<Config>,
    /// The key that clients must know.
    pub(super) key: Option<AuthKey>,
    pool_limit: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    clients: usize,
    pools: u64,
}

/// The right of one client to be served, with the bytes of its pool; released when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    server: Arc<BenchServer>,
    pool: u64,
}

/// Runs `bench serve`: prints one line once it listens, then serves until a signal ends it.
pub(crate) fn serve(options: &ServeOptions) -> Result<()> {
    let (server, bound) = BenchServer::open(options)?;
    signals::on_each(|signal| signals::exit(signal))?;
    let pools = units::bytes(server.pool_limit);
    options.listen.ready(&format!("{READY}{bound} for benchmarks, pools of {pools} altogether"))?;
    server.run();
    Ok(())
}

/// Serves from a thread of this process, until the process ends; returns the address.
pub(crate) fn serve_here() -> Result<String> {
    let options = ServeOptions { listen: ListenOptions::here(), pool_limit: Some(u64::MAX) };
    let (server, bound) = BenchServer::open(&options)?;
    thread::Builder::new()
        .name("server".into())
        .spawn(move || server.run())
        .map_err(|error| CliError::other(error.to_string()))?;
    Ok(bound.to_string())
}

impl BenchServer {
    fn open(options: &ServeOptions) -> Result<(Arc<Self>, SocketAddr)> {
        let (listener, bound) = options.listen.bind()?;
        let listen = options.listen.ip;
        let config = settings::config(Some(listen))?;
        let key = settings::auth_key(&config)?;
        let pool_limit = options.pool_limit.unwrap_or_else(|| available_memory() / 2);
        let used = Mutex::default();
        Ok((Arc::new(Self { listener, listen, config, key, pool_limit, used }), bound))
    }

    fn run(self: &Arc<Self>) {
        loop {
            match self.listener.accept() {
                Ok((socket, peer)) => self.start(socket, peer),
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when a client leaves.
                    tracing::warn!(%error, "cannot accept a client");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn start(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        if !listener::is_allowed(&self.config, peer) {
            return;
        }
        let stream = match Stream::new(socket) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%peer, %error, "cannot serve a client"),
        };
        let Some(permit) = self.admit() else {
            let text = format!("{MAX_CLIENTS} clients are served already; try again later");
            tracing::warn!(%peer, "refused: {text}");
            // A client that has not proven the key gets no reason.
            if self.key.is_none() {
                stream.refuse(&text);
            }
            return;
        };
        let spawned =
            thread::Builder::new().name("bench".into()).spawn(move || serving::serve(permit, stream));
        if let Err(error) = spawned {
            tracing::warn!(%peer, %error, "cannot serve a client");
        }
    }

    fn admit(self: &Arc<Self>) -> Option<Permit> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        (used.clients < MAX_CLIENTS).then(|| {
            used.clients += 1;
            Permit { server: Arc::clone(self), pool: 0 }
        })
    }
}

impl Permit {
    pub(super) fn server(&self) -> &BenchServer {
        &self.server
    }

    /// Counts the bytes of this client's pool. An error if there would be more than the server may have.
    pub(super) fn reserve(&mut self, bytes: u64) -> Result<()> {
        let mut used = self.server.used.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.server.pool_limit.saturating_sub(used.pools);
        if bytes > left {
            return Err(CliError::other(format!(
                "a pool of {} is more than the {} that --pool-limit leaves; choose a smaller --pool or smaller transfers",
                units::bytes(bytes),
                units::bytes(left)
            )));
        }
        used.pools += bytes;
        self.pool += bytes;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.server.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.clients -= 1;
        used.pools -= self.pool;
    }
}
