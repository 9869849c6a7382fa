//! TCP connections to `HOST:PORT`.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::{self, RefusalPolicy};

/// Longest wait, with the look-up of the name and over all its addresses.
const LIMIT: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name has no address, or is none.
    #[error("{0}")]
    Resolve(String),
    /// No address answers.
    #[error("cannot connect: {0}")]
    Connect(String),
}

/// Connects to the first address of the name that answers.
pub(crate) fn connect(address: &str) -> Result<TcpStream, DialError> {
    let deadline = Instant::now() + LIMIT;
    let unknown = |error: String| DialError::Resolve(error);
    let (host, port) = control::split_session(address).map_err(|error| unknown(error.to_string()))?;
    let addresses =
        control::resolve(host, port, deadline, None).map_err(|error| unknown(error.to_string()))?;
    let connected = control::connect_any(&addresses, deadline, RefusalPolicy::Once, None);
    let (_, stream) = connected.map_err(|error| DialError::Connect(error.to_string()))?;
    stream.into_blocking().map_err(|error| DialError::Connect(error.to_string()))
}
