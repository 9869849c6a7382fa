//! Skeleton.
#![allow(missing_docs, reason = "skeleton")]
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// Ends every wait of the streams and listeners that carry it, from any thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Abort(Arc<()>);
impl Abort {
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(())))
    }
    /// For good: later waits end at once. Idempotent.
    pub fn abort(&self) {}
    pub fn is_aborted(&self) -> bool {
        false
    }
}

/// A TCP stream whose every wait has a deadline. Also `AsFd`.
#[derive(Debug)]
pub struct Stream(());
impl Stream {
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }
    pub fn local(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }
    pub fn read_exact_by(&self, _buffer: &mut [u8], _deadline: Instant) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub fn write_all_by(&self, _bytes: &[u8], _deadline: Instant) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Ends both directions: waits of other threads end too.
    pub fn shutdown(&self) {}
}

/// Connects; a refused port is tried again with back-off until `deadline`.
pub fn connect(_target: SocketAddr, _deadline: Instant, _abort: Option<&Abort>) -> io::Result<Stream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(());
impl Listener {
    /// Binds to a port of `ports` (inclusive), or to one that the kernel chooses. Waits of `accept_by` end with
    /// `abort`; accepted streams inherit it.
    pub fn bind(_address: IpAddr, _ports: Option<(u16, u16)>, _abort: &Abort) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
    pub fn local(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }
    /// `None` waits without limit. `ErrorKind::ConnectionAborted` after [`Abort::abort`], `TimedOut` at the deadline.
    pub fn accept_by(&self, _deadline: Option<Instant>) -> io::Result<Stream> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
