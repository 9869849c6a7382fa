//! The thread of a proxy.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use super::flow::Flow;
use super::random::Random;
use super::{Direction, Order, Rules};

/// What is forwarded to lies on this machine, or does not answer at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

pub(super) struct Forwarder {
    listeners: Vec<(TcpListener, SocketAddr)>,
    connections: Vec<Connection>,
    bell: Arc<OwnedFd>,
    orders: Receiver<(Order, Sender<()>)>,
    rules: [Rules; 2],
    refuses: bool,
    random: Random,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    flows: [Flow; 2],
}

impl Forwarder {
    pub(super) fn new(
        listeners: Vec<(TcpListener, SocketAddr)>,
        bell: Arc<OwnedFd>,
        orders: Receiver<(Order, Sender<()>)>,
        seed: u64,
    ) -> Self {
        let random = Random::new(seed);
        Self {
            listeners,
            connections: Vec::new(),
            bell,
            orders,
            rules: <[Rules; 2]>::default(),
            refuses: false,
            random,
        }
    }

    pub(super) fn run(mut self) {
        while self.obey() {
            self.accept();
            let (rules, random) = (&self.rules, &mut self.random);
            self.connections.retain_mut(|connection| connection.advance(rules, random));
            self.wait();
        }
    }

    /// False after the order to end.
    fn obey(&mut self) -> bool {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        while let Ok((order, done)) = self.orders.try_recv() {
            match order {
                Order::Rules(direction, rules) => self.rules[direction as usize] = rules,
                Order::Freeze(direction) => {
                    let flows = self.connections.iter_mut().map(|one| &mut one.flows[direction as usize]);
                    flows.for_each(|flow| flow.is_frozen = true);
                }
                Order::Heal => {
                    self.rules = <[Rules; 2]>::default();
                    let flows = self.connections.iter_mut().flat_map(|one| &mut one.flows);
                    flows.for_each(|flow| flow.is_frozen = false);
                    self.refuses = false;
                    self.reset(|connection| connection.flows.iter().any(|flow| flow.has_lost));
                }
                Order::Reset(None) => self.reset(|_| true),
                Order::Reset(Some(seed)) => {
                    let mut random = Random::new(seed);
                    self.reset(|_| random.below(2) == 0);
                }
                Order::Refuse(refuses) => self.refuses = refuses,
                Order::End => {
                    self.reset(|_| true);
                    self.listeners.clear();
                    let _ = done.send(());
                    return false;
                }
            }
            let _ = done.send(());
        }
        true
    }

    fn reset(&mut self, mut chosen: impl FnMut(&Connection) -> bool) {
        self.connections.retain(|connection| {
            let is_chosen = chosen(connection);
            if is_chosen {
                connection.reset();
            }
            !is_chosen
        });
    }

    fn accept(&mut self) {
        for (listener, to) in &self.listeners {
            while let Ok((client, _)) = listener.accept() {
                if self.refuses {
                    reset(&client);
                    continue;
                }
                match Connection::new(client, *to) {
                    Ok(connection) => self.connections.push(connection),
                    // What is refused behind the forwarder is closed by it.
                    Err(_refused) => {}
                }
            }
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let mut limit = Duration::from_secs(1);
        let mut watched = vec![PollFd::new(&self.bell, PollFlags::IN)];
        watched.extend(self.listeners.iter().map(|(listener, _)| PollFd::new(listener, PollFlags::IN)));
        for connection in &self.connections {
            for direction in Direction::BOTH {
                let (flow, rules) = (&connection.flows[direction as usize], &self.rules[direction as usize]);
                let (from, to) = connection.ends(direction);
                if flow.wants_to_read(rules) {
                    watched.push(PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN));
                }
                if flow.wants_to_write(rules) {
                    watched.push(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
                }
                limit = flow.waits_for_time(rules, now).map_or(limit, |time| time.min(limit));
            }
        }
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // Interrupted: the loop comes here again.
        let _ = poll(&mut watched, Some(&limit));
    }
}

impl Connection {
    fn new(client: TcpStream, to: SocketAddr) -> io::Result<Self> {
        let server = TcpStream::connect_timeout(&to, CONNECT_LIMIT)?;
        for socket in [&client, &server] {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
        }
        Ok(Self { client, server, flows: <[Flow; 2]>::default() })
    }

    fn ends(&self, direction: Direction) -> (&TcpStream, &TcpStream) {
        match direction {
            Direction::ToServer => (&self.client, &self.server),
            Direction::ToClient => (&self.server, &self.client),
        }
    }

    /// False once it has ended.
    fn advance(&mut self, rules: &[Rules; 2], random: &mut Random) -> bool {
        for direction in Direction::BOTH {
            let mut flow = std::mem::take(&mut self.flows[direction as usize]);
            let advanced = flow.advance(self.ends(direction), &rules[direction as usize], random);
            self.flows[direction as usize] = flow;
            if advanced.is_err() {
                self.reset();
                return false;
            }
        }
        !self.flows.iter().all(Flow::is_over)
    }

    fn reset(&self) {
        reset(&self.client);
        reset(&self.server);
    }
}

/// Has the kernel answer what is sent to this socket with a reset, once it is closed.
fn reset(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}
