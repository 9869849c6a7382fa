//! The device's end for peers that connect: the event loop accepts and greets them and gives out the shared tables; a
//! thread of the device's own serves the TCP path, so that bytes in bulk delay nothing of the control plane.

mod accept;
mod greeter;
mod serve;
mod tables;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::device::Core;
use crate::events::{EventLoop, Task};
use crate::fabric::FabricError;

/// The data listener at work. Dropping it closes the listener and every socket that came from it.
#[derive(Debug)]
pub(super) struct Responder {
    core: Arc<Core>,
    address: SocketAddr,
    accepting: Option<(Task, Arc<EventLoop>)>,
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
        let mut server = serve::Loop::new(Arc::clone(core)).map_err(failed("set up the data thread"))?;
        let acceptor =
            accept::Acceptor::new(Arc::clone(core), listener).map_err(failed("set up the data listener"))?;
        let events = EventLoop::acquire().map_err(failed("start the event loop"))?;
        let thread = thread::Builder::new()
            .name(format!("p2p-{}", core.name()))
            .spawn(move || server.run())
            .map_err(failed("start the data thread"))?;
        let accepting = events.spawn(|handle| acceptor.run(handle.clone()));
        Ok(Self {
            core: Arc::clone(core),
            address,
            accepting: Some((accepting, events)),
            thread: Some(thread),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        drop(self.accepting.take());
        self.core.responder.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(device = self.core.name(), "the data thread panicked");
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
