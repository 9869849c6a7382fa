//! What both servers have in common: where they listen, the line that says so, which clients they accept, and that they end with the
//! process that has started them.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;

use flagcx_p2p::Config;

use crate::error::{CliError, Result, While};
use crate::output;

/// The start of the line that a server prints once it listens; the address follows.
pub(crate) const READY: &str = "listening on ";

/// Where to listen, and until when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenOptions {
    pub(crate) ip: IpAddr,
    /// 0 for any free one.
    pub(crate) port: u16,
    /// End when standard input does: for a server that another process started.
    pub(crate) until_stdin_closes: bool,
}

impl ListenOptions {
    /// On a free port of loopback, in this process.
    pub(crate) fn here() -> Self {
        Self { ip: IpAddr::from([127, 0, 0, 1]), port: 0, until_stdin_closes: false }
    }

    /// Listens; returns the address too.
    pub(crate) fn bind(&self) -> Result<(TcpListener, SocketAddr)> {
        let address = SocketAddr::new(self.ip, self.port);
        let listener = TcpListener::bind(address)
            .map_err(|error| CliError::other(format!("{error}; try another --port or --listen")))
            .doing(|| format!("listen on {address}"))?;
        let bound = listener.local_addr().map_err(|error| CliError::other(error.to_string()))?;
        Ok((listener, bound))
    }

    /// Says by this line that clients may come.
    pub(crate) fn ready(&self, line: &str) -> Result<()> {
        output::line(line);
        // Without this line the port stays unknown.
        output::check()?;
        if self.until_stdin_closes {
            thread::Builder::new()
                .name("stdin".into())
                .spawn(|| {
                    // Whatever ends the input ends the server.
                    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
                    std::process::exit(0)
                })
                .map_err(|error| CliError::other(error.to_string()))?;
        }
        Ok(())
    }
}

/// Whether a client may come from this address; one that may not is logged.
pub(crate) fn is_allowed(config: &Config, peer: SocketAddr) -> bool {
    let ip = peer.ip().to_canonical();
    let allowed = config.allow.is_empty() || config.allow.iter().any(|net| net.contains(&ip));
    if !allowed {
        tracing::warn!(%peer, "refused: not in FLAGCX_P2P_ALLOW");
    }
    allowed
}
