//! The engine: lifecycle, memory registration, connect and accept, sessions.

mod acceptor;
mod allocate;
mod allocations;
mod breaker;
mod buffer;
mod closing;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod closing_tests;
mod connect;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod end_calls_tests;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod ended_ids_tests;
mod error;
mod ipc;
mod memory;
mod nic;
mod nic_rules;
mod open;
mod process_devices;
mod registration_time;
mod sessions;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod several_nics_tests;
mod slow_transfers;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod test_pair;
#[cfg(all(test, not(flagcx_p2p_loom)))]
mod transfer_ids_tests;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use acceptor::Acceptor;
pub use allocate::AllocateOptions;
use allocations::Allocations;
pub use allocations::free_kept;
pub use buffer::RegisteredBuffer;
use closing::{Closing, Turn};
pub use error::EngineError;
pub use memory::RegisterOptions;
use nic::{EngineNic, Need};
#[doc(hidden)]
pub use nic_rules::{choose_nic, operators_map};
pub use open::EngineOptions;
pub use process_devices::devices;
use sessions::Sessions;

use crate::config::Config;
use crate::connection::{Connection, Context, Ended};
use crate::control::resume::ResumeListener;
use crate::control::{Abort, ConnectedHosts, LocalAddress, Metadata, Openings};
use crate::endpoint::EndpointUse;
use crate::events::is_loop_thread;
use crate::fabric::Device;
use crate::fork::{Forked, OfProcess};
use crate::notify::{Message, Notification, Receiver};

/// An engine moves registered memory of this process to and from the memory of its peers, by one-sided READ and WRITE.
///
/// It owns its regions, its listeners, its connections and their transfers, and shares the NIC's worker threads with the
/// other engines of the process: dropping one never disturbs another. Every method may be called from any thread.
///
/// An engine belongs to the process that opened it. In a forked child every method refuses, answers that nothing is there,
/// or does nothing, and dropping it changes nothing for the parent and its peers. A child that is to transfer opens its own.
///
/// ```
/// use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome, Status};
/// use std::{sync::Arc, time::Duration};
///
/// // A program that runs on RDMA takes `Config::global()`: the environment. This runs anywhere.
/// let config = Arc::new(Config::from_source(&|name| match name {
///     "FLAGCX_P2P_FABRIC" => Some("software".to_owned()),
///     "FLAGCX_P2P_BIND" => Some("127.0.0.1".to_owned()),
///     _ => None,
/// }));
/// let server = Engine::open(config.clone(), EngineOptions::default())?;
/// let target = server.allocate(8192)?;
/// server.start_rpc_server()?;
///
/// // Another process, as a rule.
/// let client = Engine::open(config, EngineOptions::default())?;
/// let source = client.allocate(8192)?;
/// let peer = client.session(&format!("127.0.0.1:{}", server.rpc_port().ok_or("no listener")?))?;
/// assert!(source.write(0, b"hello"));
/// let remote = peer.describe_remote(target.address(), 8192).ok_or("the peer has no such memory")?;
/// let iov = Iov { local: source.address(), length: 8192, region: Some(source.region()), remote };
/// let id = peer.submit(Opcode::Write, &[iov])?;
/// assert_eq!(peer.wait(id, Duration::from_secs(30)), Status::Ended(Outcome::Done));
///
/// let mut bytes = [0; 5];
/// assert!(target.read(0, &mut bytes));
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// Without a device the engine reports metadata and nothing else.
    nic: EngineNic,
    /// Without a control listener, why.
    acceptor: Result<Arc<Acceptor>, String>,
    sessions: Sessions,
    allocations: Allocations,
    notifications: Option<Receiver>,
    /// Hosts of the connections, shared with the receiver.
    connected_hosts: ConnectedHosts,
    /// Where control channels are made anew, once there is a connection that may need it.
    resume_listener: Mutex<Option<Arc<ResumeListener>>>,
    /// With what connections to peers begin.
    openings: Openings,
    /// Every connection of this engine that is still alive, to be closed with it; `None` once it is closed.
    connections: Mutex<Option<Vec<Weak<Connection>>>>,
    /// Ends waits of connecting threads when the engine closes.
    abort: Abort,
    closing: Closing,
    /// Dropped last: what the engine does while it closes can be watched.
    _endpoint: Option<EndpointUse>,
}

/// A peer that has connected to this engine.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The connection to it. Both ends may start transfers.
    pub connection: Arc<Connection>,
    /// The address that it came from.
    pub ip: IpAddr,
    /// The GPU index that it reports; -1 if it reports none.
    pub gpu_index: i32,
}

impl Engine {
    /// The text by which peers of FlagCX's own programs find this engine: `ip:port?gpu?notifPort`.
    ///
    /// The part before the first `?` is what [`Engine::session`] of a peer takes.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the engine has no control listener, [`EngineError::Closed`] once it is closed.
    pub fn metadata(&self) -> Result<String, EngineError> {
        self.require_open("tell its address")?;
        let port = self.acceptor()?.local().port();
        let told = self.address.advertised.and_then(|advertised| advertised.port).unwrap_or(port);
        let control = SocketAddr::new(self.address(), told);
        Ok(Metadata { control, gpu_index: self.gpu_index.max(0), notify_port: self.notify_port() }
            .to_string())
    }

    /// The port of the control listener on this host; `None` without one, and in a forked child.
    ///
    /// Peers that reach this host by a translated address take the port of `FLAGCX_P2P_ADVERTISE` instead.
    pub fn rpc_port(&self) -> Option<u16> {
        self.acceptor().ok().map(|acceptor| acceptor.local().port())
    }

    /// The address that peers are told: that of `FLAGCX_P2P_ADVERTISE`, else the one that the listeners are bound to.
    pub fn address(&self) -> IpAddr {
        self.address.told()
    }

    /// Where listeners are bound, what peers are told, and why.
    #[doc(hidden)]
    pub fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// The device in use, `None` without one, and as long as it is not chosen.
    #[doc(hidden)]
    pub fn device(&self) -> Option<&Arc<dyn Device>> {
        self.chosen().ok().flatten().map(|context| context.pool.device())
    }

    /// Random per engine, as peers see it in [`crate::PeerInfo::incarnation`].
    #[doc(hidden)]
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The configuration that the engine was opened with.
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Takes the notifications of 512 bytes of this engine in the order of their arrival; those of any size keep their places.
    #[doc(hidden)]
    pub fn take_notifications(&self) -> Vec<Message> {
        self.receiver().map_or_else(Vec::new, Receiver::take)
    }

    /// Takes the notifications that have arrived from the peers of this engine, in the order of their arrival.
    ///
    /// Never waits; empty if there are none, if the engine has no notification listener, and in a forked child. At most
    /// `FLAGCX_P2P_NOTIF_QUEUE` wait to be taken: peers are read no further until some are.
    pub fn take_all_notifications(&self) -> Vec<Notification> {
        self.receiver().map_or_else(Vec::new, Receiver::take_all)
    }

    /// Takes the oldest of the notifications that have arrived, as [`Engine::take_all_notifications`] takes all.
    #[doc(hidden)]
    pub fn take_first_notification(&self) -> Option<Notification> {
        self.receiver().and_then(Receiver::take_first)
    }

    /// Has the first listener called after each arrival of a notification, by the thread that brings it: it must not block, and
    /// what it captures lives as long as the engine. False if there is one already, or no notification listener.
    #[doc(hidden)]
    pub fn on_notification(&self, listener: impl Fn() + Send + Sync + 'static) -> bool {
        self.receiver().is_some_and(|receiver| receiver.listen(listener))
    }

    /// Opens a queue for transfers that have ended, for a program with an event loop of its own; see
    /// [`Connection::try_submit_to`]. There may be several, such as one for each loop.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the process has no descriptor left, [`EngineError::Forked`] in a forked child.
    pub fn ended(&self) -> Result<Ended, EngineError> {
        self.here()?;
        Ended::open().map_err(|error| {
            EngineError::Unavailable(format!("cannot open an eventfd: {error}; see `ulimit -n`"))
        })
    }

    /// Closes the engine: stops listeners, closes every connection, ends every transfer and every registration.
    ///
    /// Done once, however often it is called, and by the drop of the engine; a second thread that calls it waits until the first
    /// has done it. From a callback of the engine, which that thread may wait for, such a call returns at once. In a forked child
    /// it does nothing. Whatever would begin something afterwards, a registration or a connection, is refused as
    /// [`EngineError::Closed`] or [`RegistryError::Closed`](crate::RegistryError::Closed).
    ///
    /// Takes at most the transfer time-out (else 30 s) and 4 s more, however many connections and regions there are and
    /// whatever peers do. Memory that a stopped process of this host may still write then is named in one line of the log.
    pub fn close(&self) {
        if self.here().is_err() {
            return;
        }
        let _closer = match self.closing.begin(Instant::now() + self.patience()) {
            Turn::Own(closer) => closer,
            Turn::Nested => return,
            Turn::Late => {
                if !self.is_own_thread() {
                    tracing::warn!(
                        "another thread that closes this engine has not ended in time: its memory may be in use"
                    );
                }
                return;
            }
        };
        let begun = Instant::now();
        self.abort.abort();
        if let Ok(acceptor) = &self.acceptor {
            acceptor.stop();
        }
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connections: Vec<_> = connections.iter().flatten().filter_map(Weak::upgrade).collect();
        Connection::close_all(&connections);
        self.sessions.clear();
        drop(self.resume_listener.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.acceptor.as_ref().ok().map(|acceptor| acceptor.take_kept()));
        self.deregister_all(begun);
        self.free_all();
    }

    /// How long a thread waits for another one that closes the engine: a little longer than that may take. Not at all on the
    /// engine's own threads, which that may wait for.
    fn patience(&self) -> Duration {
        if self.is_own_thread() {
            return Duration::ZERO;
        }
        let limit = self.config.xfer_timeout.unwrap_or(Duration::from_secs(30));
        limit.saturating_add(CLOSE_MARGIN).min(LONGEST_PATIENCE)
    }

    fn is_own_thread(&self) -> bool {
        let context = self.chosen().ok().flatten();
        is_loop_thread()
            || context.is_some_and(|context| context.opened_nics().any(|nic| nic.pool.has_current_thread()))
    }

    /// Refuses in a child of the process that opened the engine.
    #[doc(hidden)]
    pub fn here(&self) -> Result<(), Forked> {
        OfProcess::here(&self.0).map(drop)
    }

    /// Refuses once the engine is closed, and in a forked child.
    fn require_open(&self, attempted: &'static str) -> Result<(), EngineError> {
        self.here()?;
        let is_open = self.connections.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_open { Ok(()) } else { Err(EngineError::Closed { attempted }) }
    }

    fn receiver(&self) -> Option<&Receiver> {
        self.here().ok()?;
        self.notifications.as_ref()
    }

    /// What peers need of the engine: its device is chosen now, if it was not before.
    fn context(&self) -> Result<&Arc<Context>, EngineError> {
        self.context_for(Need::Peer)
    }

    fn context_for(&self, need: Need) -> Result<&Arc<Context>, EngineError> {
        self.here()?;
        self.nic.context(&self.config, need)
    }

    /// `None` as long as no device is chosen: there is no region, and no connection.
    fn chosen(&self) -> Result<Option<&Arc<Context>>, EngineError> {
        self.here()?;
        self.nic.chosen()
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

/// What closing may take beyond the transfer time-out, and some time for a slow machine.
const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// What a clock can be advanced by; years.
const LONGEST_PATIENCE: Duration = Duration::from_secs(1 << 30);
