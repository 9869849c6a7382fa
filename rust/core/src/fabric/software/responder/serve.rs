//! The data thread of a device: serves the TCP path of its queue pairs.
//!
//! It sleeps in epoll after a moment of polling, never blocks on a peer, and holds no lock while it works.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::arrivals::Arrivals;
use crate::events::Polling;
use crate::fabric::software::device_core::Core;
use crate::fabric::software::tcp::server::{Server, WaitsFor};

/// Token of the notifier; connections count from [`FIRST_CONNECTION`].
const WAKE: u64 = 0;
const FIRST_CONNECTION: u64 = 1;

/// While one connection alone has requests, its socket is asked for the next one directly, which takes half the time, and epoll
/// at every eighth look: what else has come waits for no more requests of that connection than that.
const EPOLL_EVERY: u32 = 8;
/// How often deadlines are looked at while there are any.
const TICK: Duration = Duration::from_millis(100);
const EVENTS: usize = 64;
/// How long it polls at most before it sleeps: longer than a peer takes from an answer to its next request.
const LONGEST_POLL: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(super) struct Loop {
    core: Arc<Core>,
    arrivals: Arc<Arrivals>,
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    next_token: u64,
    /// Connections of each queue pair.
    by_queue_pair: HashMap<u32, Vec<u64>>,
    /// Connections that wait for a time rather than for an event.
    timed: BTreeSet<u64>,
    /// Connections with work left.
    again: BTreeSet<u64>,
    polling: Polling,
    /// The connection that alone had a turn, and waits for its next request.
    only: Option<u64>,
    /// Looks at that connection's socket since epoll was last asked, in this wait and those before.
    direct_looks: u32,
}

/// What epoll says of a socket that its peer has closed or reset.
const CLOSED: epoll::EventFlags =
    epoll::EventFlags::RDHUP.union(epoll::EventFlags::HUP).union(epoll::EventFlags::ERR);

/// A connection, and what epoll watches it for.
#[derive(Debug)]
struct Connection {
    server: Box<Server>,
    watched: epoll::EventFlags,
}

impl Loop {
    pub(super) fn new(core: Arc<Core>, arrivals: Arc<Arrivals>) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, core.responder.as_fd(), epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let longest_poll = if core.options.sleeps_at_once { Duration::ZERO } else { LONGEST_POLL };
        Ok(Self {
            core,
            arrivals,
            epoll,
            connections: HashMap::new(),
            next_token: FIRST_CONNECTION,
            by_queue_pair: HashMap::new(),
            timed: BTreeSet::new(),
            again: BTreeSet::new(),
            polling: Polling::new(longest_poll),
            only: None,
            direct_looks: 0,
        })
    }

    pub(super) fn run(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.core.responder.is_stopping() {
            if let Err(errno) = self.turn(&mut events) {
                tracing::error!(device = self.core.name(), %errno, "the data thread cannot wait for its peers");
                thread::sleep(TICK);
            }
        }
    }

    fn turn(&mut self, events: &mut Vec<epoll::Event>) -> Result<(), Errno> {
        if let Some(look) = self.core.silence() {
            thread::sleep(look.saturating_duration_since(Instant::now()));
        }
        let looked = match self.wait(events) {
            Err(Errno::INTR) => return Ok(()),
            answer => answer?,
        };
        if let Some(looked) = looked {
            for event in events.iter() {
                if let Some(connection) = self.connections.get_mut(&event.data.u64()) {
                    let has_closed = { event.flags }.intersects(CLOSED);
                    // Where room to answer is waited for, a peer that only sends no more does not show.
                    if has_closed || connection.watched.contains(epoll::EventFlags::RDHUP) {
                        connection.server.note_look(looked, has_closed);
                    }
                }
            }
        }
        // Each connection has one turn, whatever it is looked at for: one that always has news gets no more than others.
        let mut others = std::mem::take(&mut self.again);
        others.append(&mut self.timed);
        for event in events.iter() {
            match event.data.u64() {
                WAKE => self.woken(),
                token => {
                    others.remove(&token);
                    self.serve(token);
                }
            }
        }
        self.only = match events.as_slice() {
            [event] if others.is_empty() => Some(event.data.u64()),
            _ => None,
        };
        others.into_iter().for_each(|token| self.serve(token));
        Ok(())
    }

    /// Waits for events. `Some`: a time before they were looked for, if that was a moment ago.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Result<Option<Instant>, Errno> {
        let only = self.only.take().filter(|_| self.again.is_empty() && self.timed.is_empty());
        let direct_looks = &mut self.direct_looks;
        let look = |events: &mut Vec<epoll::Event>, direct_looks: &mut u32, longest: Option<Duration>| {
            let longest = longest.and_then(|time| Timespec::try_from(time).ok());
            *direct_looks = 0;
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(events), longest.as_ref())
        };
        let mut only = only.and_then(|token| Some((token, &mut self.connections.get_mut(&token)?.server)));
        only = only.filter(|(_, server)| server.waits_for_request());
        let mut looked = Some(Instant::now());
        if !self.again.is_empty() {
            return look(events, direct_looks, Some(Duration::ZERO)).map(|_| looked);
        }
        let mut wait = self.polling.begin();
        let mut answer = Ok(0);
        while answer == Ok(0) && wait.polls_on() {
            let now = Instant::now();
            if let Some((token, server)) = only.as_mut().filter(|_| *direct_looks + 1 < EPOLL_EVERY) {
                *direct_looks += 1;
                if server.looks_for_request(now) {
                    let data = epoll::EventData::new_u64(*token);
                    events.clear();
                    events.push(epoll::Event { flags: epoll::EventFlags::IN, data });
                    wait.end();
                    return Ok(None);
                }
                continue;
            }
            looked = Some(now);
            answer = look(events, direct_looks, Some(Duration::ZERO));
        }
        if answer == Ok(0) {
            looked = None;
            answer = look(events, direct_looks, (!self.timed.is_empty()).then_some(TICK));
        }
        wait.end();
        answer.map(|_| looked)
    }

    /// Something was handed over, or queue pairs have changed: what is served for them may want something else now.
    fn woken(&mut self) {
        self.core.responder.acknowledge();
        self.arrivals.take().into_iter().for_each(|server| self.add(Box::new(server)));
        for queue_pair in self.core.responder.take_changed() {
            let concerned = self.by_queue_pair.get(&queue_pair).cloned().unwrap_or_default();
            concerned.into_iter().for_each(|token| self.serve(token));
        }
    }

    fn add(&mut self, server: Box<Server>) {
        self.replace(&server);
        let token = self.next_token;
        self.next_token += 1;
        let data = epoll::EventData::new_u64(token);
        let watched = flags_for(WaitsFor::Read);
        if let Err(errno) = epoll::add(&self.epoll, server.socket(), data, watched) {
            tracing::warn!(device = self.core.name(), %errno, "cannot watch a connection");
            return;
        }
        self.by_queue_pair.entry(server.endpoint().qpn()).or_default().push(token);
        self.connections.insert(token, Connection { server, watched });
        self.serve(token);
    }

    /// Closes the connection that the same sender has to the same queue pair already: a queue pair connects once, by one
    /// connection, so that its initiator has given up the older one. Otherwise a client could open any number of them.
    fn replace(&mut self, newer: &Server) {
        let tokens = self.by_queue_pair.get(&newer.endpoint().qpn()).cloned().unwrap_or_default();
        for token in tokens {
            let older =
                self.connections.get(&token).is_some_and(|older| older.server.is_of_same_sender(newer));
            if let Some(older) = older.then(|| self.connections.remove(&token)).flatten() {
                self.forget(token, &older.server);
            }
        }
    }

    /// Gives a connection its turn.
    fn serve(&mut self, token: u64) {
        if self.core.silence().is_some() {
            self.again.insert(token);
            return;
        }
        let Some(mut connection) = self.connections.remove(&token) else { return };
        let server = &mut connection.server;
        let waits_for = server.serve(&self.core);
        if waits_for == WaitsFor::Close {
            return self.forget(token, server);
        }
        let flags = flags_for(waits_for);
        let data = epoll::EventData::new_u64(token);
        if connection.watched != flags && epoll::modify(&self.epoll, server.socket(), data, flags).is_err() {
            return self.forget(token, server);
        }
        connection.watched = flags;
        if waits_for == WaitsFor::Again {
            self.again.insert(token);
        } else if server.is_draining() || server.is_parked() {
            self.timed.insert(token);
        }
        self.connections.insert(token, connection);
    }

    fn forget(&mut self, token: u64, connection: &Server) {
        // Not by closing alone: a child that this process has forked may hold the same socket.
        let _ = epoll::delete(&self.epoll, connection.socket());
        if let Entry::Occupied(mut tokens) = self.by_queue_pair.entry(connection.endpoint().qpn()) {
            tokens.get_mut().retain(|other| *other != token);
            if tokens.get().is_empty() {
                tokens.remove();
            }
        }
    }
}

fn flags_for(waits_for: WaitsFor) -> epoll::EventFlags {
    match waits_for {
        WaitsFor::Read | WaitsFor::Again | WaitsFor::Close => {
            epoll::EventFlags::IN | epoll::EventFlags::RDHUP
        }
        WaitsFor::Write => epoll::EventFlags::OUT,
        // Nothing but the end of it, and that once: it cannot be acted on before our side is connected.
        WaitsFor::Parked => epoll::EventFlags::ET,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
