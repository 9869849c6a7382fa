//! An engine's receiver: a listener, and one task of the event loop that reads all of its peers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::decoder::SenderPolicy;
use super::queue::{ArrivalListener, Limits, Queue};
use super::{Message, Notification};
use crate::admission;
use crate::config::{Config, ConfigError};
use crate::control::{Abort, AllowList, ConnectedHosts, Listener};
use crate::events::{EventLoop, Task, Wakeup};

mod reader;

/// How to open a receiver.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// Where to listen.
    pub bind: IpAddr,
    /// Interfaces of this host that answer what arrives through them, whatever the kernel's routes.
    pub interfaces: Vec<String>,
    /// Ports to choose from, inclusive; `None` lets the kernel choose.
    pub ports: Option<(u16, u16)>,
    /// Networks that may connect.
    pub allow: AllowList,
    /// Which senders are accepted, and how much they may send.
    pub policy: SenderPolicy,
    /// Peers that may send at the same time.
    pub max_peers: usize,
    /// Messages that may wait to be fetched.
    pub queue: usize,
    /// How long a client may take for its first bytes, where no key is set, and for the rest of a message that has
    /// begun. With a key, each step of the proof has 5 s at most.
    pub hello_timeout: Duration,
    /// Idle time after which the kernel probes whether a sender's host is up.
    pub keepalive: Option<Duration>,
    /// Hosts with connections: their senders are not displaced, however long they are silent.
    pub connected_hosts: ConnectedHosts,
    /// Names the engine towards senders of the same process.
    pub incarnation: u64,
}

impl ReceiverOptions {
    /// How long a client may be silent before it is admitted.
    fn first_words(&self) -> Duration {
        match self.policy.key {
            Some(_) if !self.policy.allow_original => self.hello_timeout.min(admission::SILENCE_LIMIT),
            _ => self.hello_timeout,
        }
    }

    /// The options of a configuration, with no connected hosts; reads the key file.
    pub fn from_config(config: &Config, bind: IpAddr, incarnation: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let key = config.auth_key()?;
        Ok(Self {
            bind,
            interfaces: Vec::new(),
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

/// Receives the notifications of one engine. Dropping it closes its sockets; messages of 512
/// bytes that have not been fetched go to the next [`super::take_all`], others are freed.
#[derive(Debug)]
pub struct Receiver {
    local: SocketAddr,
    queue: Arc<Queue>,
    task: Option<(Task, Arc<EventLoop>)>,
}

impl Receiver {
    /// Listens, and starts to read.
    pub fn open(options: ReceiverOptions) -> io::Result<Self> {
        let abort = Abort::new()?;
        let listener =
            Listener::bind(options.bind, options.ports, &abort)?.with_allow_list(options.allow.clone());
        let listener = match options.interfaces.as_slice() {
            [] => listener,
            interfaces => listener.with_interfaces(interfaces.iter().map(String::as_str)),
        };
        let local = listener.local();
        let (room, events) = (Arc::new(Wakeup::default()), EventLoop::acquire()?);
        let limits = Limits {
            messages: options.queue,
            // A queue full of the largest messages would exceed any sensible amount of memory.
            exact_bytes: options.policy.max_bytes.saturating_mul(4),
        };
        let queue = Queue::open(options.incarnation, limits, Arc::clone(&room));
        match reader::Reader::new(listener, options, Arc::clone(&queue), room) {
            Ok(reader) => {
                let task = events.spawn(|handle| reader.run(handle.clone()));
                Ok(Self { local, queue, task: Some((task, events)) })
            }
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

    /// Takes the messages of 512 bytes of this engine, in the order in which they arrived.
    pub fn take(&self) -> Vec<Message> {
        self.queue.take_fixed().into_iter().map(|(_, message)| message).collect()
    }

    /// Takes the oldest message of this engine, if there is one.
    pub fn take_first(&self) -> Option<Notification> {
        self.queue.take_first()
    }

    /// Has the first listener called after each arrival from now on, by the thread that brings it: it must not block. False if
    /// there is one already.
    pub fn listen(&self, listener: impl Fn() + Send + Sync + 'static) -> bool {
        self.queue.listen(ArrivalListener(Box::new(listener)))
    }

    /// Takes all messages of this engine, of 512 bytes and of any size, in the order in which they arrived.
    pub fn take_all(&self) -> Vec<Notification> {
        self.queue.take()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Nothing enters the queue any more once its task has been dropped.
        drop(self.task.take());
        self.queue.close();
    }
}
