//! The device's data listener.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use super::device::Core;
use crate::fabric::FabricError;

/// The listener.
#[derive(Debug)]
pub(super) struct Responder {
    _listener: TcpListener,
    address: SocketAddr,
}

impl Responder {
    pub(super) fn start(core: &Arc<Core>) -> Result<Self, FabricError> {
        let ip = core.ip();
        let (first, last) = core.options.ports.unwrap_or((0, 0));
        let mut failure = None;
        for port in first..=last {
            match TcpListener::bind((ip, port)).and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => return Ok(Self { _listener: listener, address }),
                Err(error) => failure = error.raw_os_error(),
            }
        }
        let what = format!("{} ({ip}, ports {first}..={last})", core.name());
        Err(FabricError::call("bind the data listener", what, failure.unwrap_or(libc::EINVAL)))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}
