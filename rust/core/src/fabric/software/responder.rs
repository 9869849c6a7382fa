//! The device's end for peers that connect: the event loop accepts, does the handshake and gives out the shared tables; a
//! thread of the device's own serves the TCP path, so that bytes in bulk delay nothing of the control plane.

mod accept;
mod arrivals;
mod handshake;
mod serve;
mod tables;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::denial;
use super::device_core::Core;
use crate::events::{EventLoop, Task};
use crate::fabric::FabricError;
use crate::fork::OwnSocket;
use crate::ports::listen_on_first_free;

/// The data listener at work. Dropping it closes the listener and every socket that came from it.
#[derive(Debug)]
pub(super) struct DataThread {
    core: Arc<Core>,
    port: u16,
    accepting: Option<(Task, Arc<EventLoop>)>,
    thread: Option<JoinHandle<()>>,
}

impl DataThread {
    /// Binds the data listener and starts to serve it.
    pub(super) fn start(core: &Arc<Core>) -> Result<Self, FabricError> {
        let (listener, port) = bind(core)?;
        let failed = |operation| move |error: std::io::Error| denial::failure(operation, core.name(), &error);
        let arrivals = Arc::new(arrivals::Arrivals::default());
        let mut server = serve::Loop::new(Arc::clone(core), Arc::clone(&arrivals))
            .map_err(failed("set up the data thread"))?;
        let acceptor = accept::Acceptor::new(Arc::clone(core), listener, arrivals)
            .map_err(failed("set up the data listener"))?;
        let events = EventLoop::acquire().map_err(failed("start the event loop"))?;
        let shown = Arc::clone(core);
        let thread = thread::Builder::new()
            .name(format!("p2p-{}", core.name()))
            .spawn(move || {
                let _life = shown.show_life();
                server.run();
            })
            .map_err(failed("start the data thread"))?;
        let accepting = events.spawn(|handle| acceptor.run(handle.clone()));
        Ok(Self { core: Arc::clone(core), port, accepting: Some((accepting, events)), thread: Some(thread) })
    }

    /// Port of the data listener.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for DataThread {
    fn drop(&mut self) {
        drop(self.accepting.take());
        self.core.responder.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(device = self.core.name(), "the data thread panicked");
        }
    }
}

fn bind(core: &Core) -> Result<(OwnSocket<TcpListener>, u16), FabricError> {
    let (ip, ports) = (core.bind(), core.options.ports);
    let listen = |address: SocketAddr| {
        TcpListener::bind(address).and_then(|listener| Ok((listener.local_addr()?.port(), listener)))
    };
    match listen_on_first_free(ip, ports, listen) {
        Ok((port, listener)) => Ok((OwnSocket::new(listener), port)),
        Err(error) => {
            let what = format!("{} ({ip})", core.name());
            let failed = |errno| FabricError::call("bind the data listener", what, errno);
            Err(match error.raw_os_error() {
                Some(errno) => failed(errno),
                None => failed(libc::EADDRINUSE).with_hint(&error.to_string()),
            })
        }
    }
}
