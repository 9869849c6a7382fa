//! An engine's receiver: a listener, and one thread that reads all of its peers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::decoder::SenderPolicy;
use super::queue::{Limits, Queue};
use super::{LargeMessage, Message};
use crate::config::{Config, ConfigError};
use crate::control::{Abort, AllowList, ConnectedHosts, Listener};

mod reader;

/// How to open a receiver.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// Where to listen.
    pub bind: IpAddr,
    /// Ports to choose from, inclusive; `None` lets the kernel choose.
    pub ports: Option<(u16, u16)>,
    /// Networks that may connect.
    pub allow: AllowList,
    /// Who may send, and how much.
    pub policy: SenderPolicy,
    /// Peers that may send at the same time.
    pub max_peers: usize,
    /// Messages that may wait to be fetched.
    pub queue: usize,
    /// How long a client may take to say who it is.
    pub hello_timeout: Duration,
    /// Idle time after which the kernel checks whether a sender's host still lives.
    pub keepalive: Option<Duration>,
    /// Hosts whose senders keep their places, however long they are silent.
    pub connected_hosts: ConnectedHosts,
    /// Names the engine towards senders of the same process.
    pub incarnation: u64,
}

impl ReceiverOptions {
    /// As the configuration says, and no connected hosts; reads the key file.
    pub fn from_config(config: &Config, bind: IpAddr, incarnation: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let key = config.auth_key()?;
        Ok(Self {
            bind,
            ports: config.port_range,
            allow: AllowList::new(&config.allow),
            policy: SenderPolicy {
                key,
                allow_original: config.auth_allow_original,
                max_bytes: config.notif_max_bytes,
            },
            max_peers: config.notif_max_peers,
            queue: config.notif_queue,
            hello_timeout: config.handshake_timeout,
            keepalive: config.keepalive,
            connected_hosts: ConnectedHosts::default(),
            incarnation,
        })
    }
}

/// Receives the notifications of one engine. Dropping it closes its sockets and ends its thread; messages that have
/// not been fetched go to the next [`super::take_all`].
#[derive(Debug)]
pub struct Receiver {
    local: SocketAddr,
    queue: Arc<Queue>,
    abort: Abort,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Listens, and starts the thread.
    pub fn open(options: ReceiverOptions) -> io::Result<Self> {
        let abort = Abort::new()?;
        let listener =
            Listener::bind(options.bind, options.ports, &abort)?.with_allow_list(options.allow.clone());
        let local = listener.local();
        let wake_up = WakeUp::new()?;
        let limits = Limits {
            messages: options.queue,
            // A queue full of the largest messages would be far more than anyone meant to allow.
            large_bytes: options.policy.max_bytes.saturating_mul(4),
        };
        let queue = Queue::open(options.incarnation, limits, wake_up.clone());
        let started = reader::Reader::new(listener, options, queue.clone(), wake_up, abort.clone()).and_then(
            |mut reader| {
                std::thread::Builder::new().name("fcx-notify".to_owned()).spawn(move || reader.run())
            },
        );
        match started {
            Ok(thread) => Ok(Self { local, queue, abort, thread: Some(thread) }),
            Err(error) => {
                queue.close();
                Err(error)
            }
        }
    }

    /// The port that peers connect to.
    pub fn port(&self) -> u16 {
        self.local.port()
    }

    /// Takes the messages of this engine, in the order in which they arrived.
    pub fn take(&self) -> Vec<Message> {
        self.queue.take().into_iter().map(|(_, message)| message).collect()
    }

    /// Takes the large messages of this engine, in the order in which they arrived.
    pub fn take_large(&self) -> Vec<LargeMessage> {
        self.queue.take_large().into_iter().map(|(_, message)| message).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.abort.abort();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.queue.close();
    }
}

/// Wakes the receiver's thread.
#[derive(Clone, Debug)]
pub(super) struct WakeUp(Arc<OwnedFd>);

impl WakeUp {
    fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub(super) fn wake(&self) {
        // The only failure is a full counter, and then the thread is being woken already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    fn acknowledge(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }
}

impl AsFd for WakeUp {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
