//! The passive side: offers files of one directory, and memory for clients to move them through.

mod admission;
mod list;
mod receive;
mod report;
mod send;
mod session;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::auth::AuthKey;
use flagcx_p2p::{Config, Engine, EngineOptions};
use serde_json::json;

use crate::error::{CliError, Result, While};
use crate::listener::{self, ListenOptions, READY};
use crate::names::{self, PublishOptions};
use crate::output;
use crate::settings;
use crate::signals;
use crate::store::Directory;
use crate::wire::control::Control;

use admission::{Admission, Permit, Phase};

/// How long aborted sessions may take to clean up.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// How often old partial files are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// `flagcx-p2p serve`.
#[derive(Clone, Debug)]
pub(crate) struct ServeOptions {
    /// Directory of the files.
    pub(crate) directory: PathBuf,
    /// Where the control stream listens.
    pub(crate) listen: ListenOptions,
    /// Most bytes of a client's ring.
    pub(crate) ring_limit: u64,
    /// Longest time without a request, or without progress of one.
    pub(crate) idle_limit: Duration,
    /// How long transfers may go on after a signal to end.
    pub(crate) drain_limit: Duration,
    /// Clients served at the same time, at most.
    pub(crate) max_clients: u16,
    /// The name that clients may find it by.
    pub(crate) publish: PublishOptions,
    /// Lines of JSON.
    pub(crate) json: bool,
}

/// What all sessions share.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    directory: Directory,
    engine: Arc<Engine>,
    metadata: String,
    ring_limit: u64,
    /// The key that clients must know.
    key: Option<AuthKey>,
    /// `FLAGCX_P2P_ALLOW` is in here.
    config: Arc<Config>,
    idle_limit: Duration,
    drain_limit: Duration,
    admission: Arc<Admission>,
    /// Lines of JSON.
    json: bool,
}

/// Runs `serve`: prints one line once it listens, then serves until a signal ends it.
pub(crate) fn serve(options: &ServeOptions) -> Result<()> {
    let (server, bound) = Server::open(options)?;
    // Here at once; below, where there may be very many folders, beside serving.
    server.directory.remove_old_partials();
    start_sweep(&server)?;
    let draining = Arc::clone(&server);
    let mut ending = false;
    signals::on_each(move |signal| {
        if std::mem::replace(&mut ending, true) {
            signals::exit(signal);
        }
        draining.drain(signals::name(signal));
    })?;
    let published = names::publish(&options.publish, &server.engine, bound)?;
    options.listen.ready(&ready_line(options, bound, published.as_ref().map(ToString::to_string)))?;
    server.run();
    // Clients that come now are refused: they are not to find it any more.
    drop(published);
    server.finish();
    Ok(())
}

impl Server {
    /// Listens, without accepting clients yet; returns the address.
    pub(crate) fn open(options: &ServeOptions) -> Result<(Arc<Self>, SocketAddr)> {
        let directory = Directory::open(&options.directory).map_err(CliError::argument)?;
        let (listener, bound) = options.listen.bind()?;
        let config = settings::config(Some(options.listen.ip))?;
        let key = settings::auth_key(&config)?;
        let engine =
            Engine::open(Arc::clone(&config), EngineOptions::default()).doing(|| "open the engine".into())?;
        engine.start_rpc_server().doing(|| "start the engine's listener".into())?;
        let metadata = engine.metadata()?;
        let server = Self {
            listener,
            directory,
            engine,
            metadata,
            ring_limit: options.ring_limit,
            key,
            config,
            idle_limit: options.idle_limit,
            drain_limit: options.drain_limit,
            admission: Admission::new(usize::from(options.max_clients)),
            json: options.json,
        };
        Ok((Arc::new(server), bound))
    }

    /// Serves until [`Server::drain`].
    pub(crate) fn run(self: &Arc<Self>) {
        while let Some(permit) = self.admission.acquire() {
            match self.listener.accept() {
                Ok((stream, peer)) => start_session(self, stream, peer, permit),
                Err(_) if self.admission.phase() != Phase::Serving => return,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when a session ends.
                    tracing::warn!(%error, "cannot accept a client");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// Stops accepting clients, and lets [`Server::run`] return.
    fn drain(&self, signal: &str) {
        let sessions = self.admission.enter(Phase::Draining);
        // Ends an accept that waits.
        if let Err(error) = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both) {
            tracing::warn!(%error, "cannot stop listening");
        }
        let seconds = self.drain_limit.as_secs();
        output::remark(&format!(
            "{signal}: ending; {sessions} sessions may finish their request within {seconds} s, a second signal ends them at once"
        ));
    }

    /// Waits for running requests, for a bounded time, then aborts them.
    fn finish(&self) {
        if self.admission.wait_empty(Instant::now() + self.drain_limit) {
            return;
        }
        let aborted = self.admission.enter(Phase::Aborting);
        tracing::warn!(
            "aborted {aborted} sessions that did not finish within --drain-limit; raise it for longer transfers"
        );
        // So that no temporary file stays.
        self.admission.wait_empty(Instant::now() + CLEAN_UP);
    }
}

/// The line that says that clients may come.
fn ready_line(options: &ServeOptions, bound: SocketAddr, published: Option<String>) -> String {
    let directory = options.directory.display();
    if options.json {
        let (address, directory) = (bound.to_string(), directory.to_string());
        let line = json!({ "event": "listening", "address": address, "directory": directory, "published": published });
        return line.to_string();
    }
    let also = published.map_or_else(String::new, |published| format!(", published {published}"));
    format!("{READY}{bound} serves {directory}{also}")
}

/// Removes what ended transfers have left, now and every hour.
fn start_sweep(server: &Arc<Server>) -> Result<()> {
    let directory = server.directory.clone();
    let sweep = move || {
        loop {
            directory.remove_stale();
            thread::sleep(SWEEP_INTERVAL);
        }
    };
    thread::Builder::new()
        .name("sweep".into())
        .spawn(sweep)
        .map(|_| ())
        .map_err(|error| CliError::other(error.to_string()))
        .doing(|| "start a thread".into())
}

fn start_session(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr, mut permit: Permit) {
    if !listener::is_allowed(&server.config, peer) {
        return;
    }
    let control = match Control::new(stream) {
        Ok(control) => control,
        Err(error) => return tracing::warn!(%peer, %error, "cannot serve a client"),
    };
    let shared = Arc::clone(server);
    let spawned = thread::Builder::new().name("session".into()).spawn(move || {
        session::run(&shared, control, &mut permit);
    });
    if let Err(error) = spawned {
        tracing::warn!(%peer, %error, "cannot start a session");
    }
}

/// Serves from a thread of this process, until the process ends; returns the address.
#[cfg(test)]
pub(crate) fn serve_here(directory: PathBuf) -> Result<String> {
    let options = ServeOptions {
        directory,
        listen: ListenOptions::here(),
        ring_limit: u64::from(u32::MAX),
        idle_limit: Duration::from_secs(3600),
        drain_limit: Duration::ZERO,
        max_clients: 16,
        publish: PublishOptions::default(),
        json: false,
    };
    let (server, bound) = Server::open(&options)?;
    thread::Builder::new()
        .name("server".into())
        .spawn(move || server.run())
        .map_err(|error| CliError::other(error.to_string()))?;
    Ok(bound.to_string())
}
