//! A forwarder of TCP connections that disturbs them on order, as a network or a box in the middle of one does.
//!
//! One thread serves all connections. Its orders take effect before the call that gives them returns; sizes of segments and
//! positions of flipped bits follow from a seed.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]
#![allow(
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod flow;
mod forwarder;
pub mod random;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use forwarder::Forwarder;
use rustix::event::{EventfdFlags, eventfd};

/// Of the bytes of a connection: those that its client sends, or those that its server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::ToServer, Self::ToClient];
}

/// What happens to the bytes of a direction. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Each byte arrives so much later.
    pub delay: Duration,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// No segment is longer; the lengths are random.
    pub segment: Option<usize>,
    /// Nothing is read and nothing is sent on: the sender's window closes, and no byte is lost.
    pub stalled: bool,
    /// Bytes and ends are taken and vanish: the receiver never sees them. The connection is reset by [`Proxy::heal`].
    pub losing: bool,
    /// One random bit of about every so many bytes is flipped.
    pub flip_every: Option<u64>,
}

enum Order {
    Rules(Direction, Rules),
    /// Stalls the connections that exist now.
    Freeze(Direction),
    Heal,
    /// Resets all connections, or about half of them, chosen by this seed.
    Reset(Option<u64>),
    /// New connections are reset at once.
    Refuse(bool),
    End,
}

/// Ends, with all of its connections, when dropped.
pub struct Proxy {
    orders: Sender<(Order, Sender<()>)>,
    /// Wakes the thread, which looks for orders then.
    bell: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Forwards what connects to the first address of a route to the second one.
    pub fn new(routes: impl IntoIterator<Item = (SocketAddr, SocketAddr)>, seed: u64) -> io::Result<Self> {
        let listeners = routes.into_iter().map(|(from, to)| {
            let listener = TcpListener::bind(from)?;
            listener.set_nonblocking(true)?;
            Ok((listener, to))
        });
        let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (orders, received) = channel();
        let forwarder = Forwarder::new(listeners, Arc::clone(&bell), received, seed);
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || forwarder.run())?;
        Ok(Self { orders, bell, thread: Some(thread) })
    }

    /// From now on the bytes of `direction`, of present and future connections, are treated by `rules`.
    pub fn set(&self, direction: Direction, rules: Rules) {
        self.order(Order::Rules(direction, rules));
    }

    /// Stalls `direction` of the connections that exist now, and of none that comes later.
    pub fn freeze(&self, direction: Direction) {
        self.order(Order::Freeze(direction));
    }

    /// Ends every disturbance. Connections that have lost bytes are reset, as by a box that does not know them any more.
    pub fn heal(&self) {
        self.order(Order::Heal);
    }

    /// Resets every connection, at both of its ends. What was on its way is lost.
    pub fn cut(&self) {
        self.order(Order::Reset(None));
    }

    /// Resets about half of the connections, chosen by `seed`.
    pub fn cut_some(&self, seed: u64) {
        self.order(Order::Reset(Some(seed)));
    }

    /// Whether new connections are reset at once. Others are not affected.
    pub fn refuse(&self, refuses: bool) {
        self.order(Order::Refuse(refuses));
    }

    fn order(&self, order: Order) {
        let (done, obeyed) = channel();
        self.orders.send((order, done)).unwrap();
        rustix::io::write(&self.bell, &1u64.to_ne_bytes()).unwrap();
        obeyed.recv().unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.order(Order::End);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
