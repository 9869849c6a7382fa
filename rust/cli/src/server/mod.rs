//! The passive side: offers files of one directory, and memory for clients to move them through.

mod session;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use flagcx_p2p::auth::AuthKey;
use flagcx_p2p::config::Config;
use flagcx_p2p::engine::Engine;

use crate::error::{CliError, Result, While};
use crate::output;
use crate::settings;
use crate::store::Directory;
use crate::wire::Frame;
use crate::wire::control::Control;

/// Clients served at the same time. Each has a ring of its own.
const MAX_SESSIONS: usize = 16;

/// How the line begins that `serve` prints once it listens; the address follows.
pub(crate) const READY: &str = "listening on ";

/// `flagcx-p2p serve`.
#[derive(Clone, Debug)]
pub(crate) struct ServeOptions {
    /// Directory of the files.
    pub(crate) directory: PathBuf,
    /// Address to listen on.
    pub(crate) listen: IpAddr,
    /// TCP port of the control stream, 0 for any.
    pub(crate) port: u16,
    /// Most bytes of a client's ring.
    pub(crate) ring_limit: u64,
    /// End when standard input does: for a server that another process started.
    pub(crate) until_stdin_closes: bool,
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
    /// Running sessions. Written by the accept loop (up) and ending sessions (down), read by the accept loop only;
    /// it guards no other memory, so relaxed ordering is enough.
    sessions: AtomicUsize,
}

/// Runs `serve`: prints one line once it listens, then serves until it is killed.
pub(crate) fn serve(options: &ServeOptions) -> Result<()> {
    let (server, bound) = Server::open(options)?;
    output::line(&format!("{READY}{bound} serves {}", options.directory.display()));
    if options.until_stdin_closes {
        thread::Builder::new()
            .name("stdin".into())
            .spawn(|| {
                // Whatever ends the input ends the server.
                let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                std::process::exit(0)
            })
            .map_err(|error| CliError::other(error.to_string()))?;
    }
    server.run()
}

impl Server {
    /// Listens, without serving anyone yet; says where.
    pub(crate) fn open(options: &ServeOptions) -> Result<(Arc<Self>, SocketAddr)> {
        let directory = Directory::open(&options.directory).map_err(CliError::argument)?;
        let address = SocketAddr::new(options.listen, options.port);
        let listener = TcpListener::bind(address)
            .map_err(|error| CliError::other(format!("{error}; try another --port or --listen")))
            .doing(|| format!("listen on {address}"))?;
        let bound = listener.local_addr().map_err(|error| CliError::other(error.to_string()))?;
        let config = settings::config(Some(options.listen))?;
        let key = settings::auth_key(&config)?;
        let engine = Engine::open(Arc::clone(&config), settings::engine_options())
            .doing(|| "open the engine".into())?;
        engine.start_rpc_server().doing(|| "start the engine's listener".into())?;
        let metadata = engine.metadata()?;
        let (ring_limit, sessions) = (options.ring_limit, AtomicUsize::new(0));
        Ok((
            Arc::new(Self { listener, directory, engine, metadata, ring_limit, key, config, sessions }),
            bound,
        ))
    }

    /// Serves until the process ends.
    pub(crate) fn run(self: &Arc<Self>) -> ! {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => admit(self, stream, peer),
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when a session ends.
                    tracing::warn!(%error, "cannot accept a client");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }
}

fn admit(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr) {
    let ip = peer.ip().to_canonical();
    if !server.config.allow.is_empty() && !server.config.allow.iter().any(|net| net.contains(&ip)) {
        return tracing::warn!(%peer, "refused: not in FLAGCX_P2P_ALLOW");
    }
    let control = match Control::new(stream) {
        Ok(control) => control,
        Err(error) => return tracing::warn!(%peer, %error, "client lost"),
    };
    if server.sessions.load(Ordering::Relaxed) >= MAX_SESSIONS {
        let text = format!("{MAX_SESSIONS} clients are served already; try again later");
        // Best effort: the client sees a closed connection otherwise.
        let _ = control.send(&Frame::Refused { text });
        return;
    }
    server.sessions.fetch_add(1, Ordering::Relaxed);
    let shared = Arc::clone(server);
    let spawned = thread::Builder::new().name("session".into()).spawn(move || {
        session::run(&shared, control);
        shared.sessions.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = spawned {
        server.sessions.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%peer, %error, "cannot start a session");
    }
}
