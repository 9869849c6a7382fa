//! The engine: lifecycle, memory registration, connect and accept, sessions.

mod acceptor;
mod breaker;
mod buffer;
mod connect;
mod error;
mod ipc;
mod memory;
mod open;
mod sessions;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod transfer_ids_tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use acceptor::Acceptor;
pub use buffer::RegisteredBuffer;
pub use error::EngineError;
pub use memory::RegisterOptions;
pub use open::{EngineOptions, devices};
use sessions::Sessions;

use crate::config::Config;
use crate::connection::{Connection, Context};
use crate::control::{Abort, ConnectedHosts, LocalAddress, Metadata, Openings};
use crate::fabric::Device;
use crate::fork::{Forked, OfProcess};
use crate::notify::{Message, Notification, Receiver};

/// An engine. Owns its regions, listeners, sessions and transfers: dropping it never disturbs another engine. Every
/// method may be called from any thread.
///
/// It is of the process that opened it. In a forked child every method refuses, answers that nothing is there, or does
/// nothing, and to drop it changes nothing for the parent and its peers: a child that wants to transfer opens one of its own.
#[derive(Debug)]
pub struct Engine(OfProcess<Inner>);

/// What an engine is made of.
#[doc(hidden)]
#[derive(Debug)]
pub struct Inner {
    config: Arc<Config>,
    gpu_index: i32,
    address: LocalAddress,
    /// Random per engine: a peer recognises a restarted engine by another one.
    incarnation: u64,
    /// Without a device, why: the engine then reports metadata and nothing else.
    context: Result<Arc<Context>, String>,
    /// Without a control listener, why.
    acceptor: Result<Arc<Acceptor>, String>,
    sessions: Sessions,
    notifications: Option<Receiver>,
    /// Hosts of the connections, shared with the receiver.
    connected_hosts: ConnectedHosts,
    /// With what connections to peers begin.
    openings: Openings,
    /// Every connection of this engine that is still alive, to be closed with it; `None` once it is closed.
    connections: Mutex<Option<Vec<Weak<Connection>>>>,
    /// Ends waits of connecting threads when the engine closes.
    abort: Abort,
}

/// Who was accepted.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The connection, symmetric to the peer's.
    pub connection: Arc<Connection>,
    /// The peer's address.
    pub ip: IpAddr,
    /// The peer's GPU index.
    pub gpu_index: i32,
}

impl Engine {
    /// `ip:port?gpu?notifPort`: what peers need to connect.
    pub fn metadata(&self) -> Result<String, EngineError> {
        let port = self.acceptor()?.local().port();
        let told = self.address.advertised.and_then(|advertised| advertised.port).unwrap_or(port);
        let control = SocketAddr::new(self.address(), told);
        Ok(Metadata { control, gpu_index: self.gpu_index.max(0), notify_port: self.notify_port() }
            .to_string())
    }

    /// Port of the control listener on this host, `None` without one. Peers are told that of `FLAGCX_P2P_ADVERTISE`.
    pub fn rpc_port(&self) -> Option<u16> {
        self.acceptor().ok().map(|acceptor| acceptor.local().port())
    }

    /// The address that peers are told.
    pub fn address(&self) -> IpAddr {
        self.address.told()
    }

    /// Where listeners are bound, what peers are told, and why.
    pub fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// The device in use, `None` without one.
    pub fn device(&self) -> Option<&Arc<dyn Device>> {
        self.context().ok().map(|context| context.pool.device())
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Takes the notifications of 512 bytes of this engine in the order of their arrival; those of any size keep their places.
    pub fn take_notifications(&self) -> Vec<Message> {
        self.receiver().map_or_else(Vec::new, Receiver::take)
    }

    /// Takes all notifications of this engine, of 512 bytes and of any size, in the order of their arrival.
    pub fn take_all_notifications(&self) -> Vec<Notification> {
        self.receiver().map_or_else(Vec::new, Receiver::take_all)
    }

    /// Stops listeners, closes every connection, ends every transfer and registration. Idempotent; also done on drop. In a
    /// forked child it does nothing.
    ///
    /// Takes the transfer time-out (else 30 s) and 4 s at most, however many connections and regions there are and whatever
    /// peers do. Memory that a stopped process of this host may still write then is named in one line of the log.
    pub fn close(&self) {
        if self.here().is_err() {
            return;
        }
        let begun = Instant::now();
        self.abort.abort();
        if let Ok(acceptor) = &self.acceptor {
            acceptor.stop();
        }
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connections: Vec<_> = connections.iter().flatten().filter_map(Weak::upgrade).collect();
        Connection::close_all(&connections);
        self.sessions.clear();
        drop(self.acceptor.as_ref().ok().map(|acceptor| acceptor.take_kept()));
        self.deregister_all(begun);
    }

    /// Refuses in a child of the process that opened the engine.
    pub fn here(&self) -> Result<(), Forked> {
        OfProcess::here(&self.0).map(drop)
    }

    fn receiver(&self) -> Option<&Receiver> {
        self.here().ok()?;
        self.notifications.as_ref()
    }

    fn context(&self) -> Result<&Arc<Context>, EngineError> {
        self.here()?;
        self.context
            .as_ref()
            .map_err(|reason| EngineError::Unavailable(format!("this engine has no device: {reason}")))
    }

    /// Notes a new connection, to be closed with the engine; false when the engine is closed already.
    fn remember(&self, connection: &Arc<Connection>) -> bool {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connections) = connections.as_mut() else { return false };
        connections.retain(|connection| connection.strong_count() > 0);
        connections.push(Arc::downgrade(connection));
        true
    }

    fn notify_port(&self) -> u16 {
        self.notifications.as_ref().map_or(0, Receiver::port)
    }
}

impl Deref for Engine {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}
