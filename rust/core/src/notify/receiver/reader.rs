//! The receiver's task of the event loop: waits on all sockets at once and reads them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::decoder::Decoder;
use super::super::queue::Queue;
use super::ReceiverOptions;
use crate::admission;
use crate::auth::{Proof, random};
use crate::control::Listener;
use crate::control::wire::notification::LINK_SIZE;
use crate::events::{EventLoopHandle, SocketGroup, Wakeup, first};
use crate::observe::report;

mod ahead;
mod links;
mod peer;
mod room;
mod unread;

use links::Links;
use peer::{Disposition, Peer};
use unread::Unread;

/// Bytes read from one peer per turn.
const CHUNK: usize = 64 * 1024;
/// Bytes read from all peers before the task yields to others on the event loop. Four full reads are about a thousand
/// of the shortest messages; without this limit 64 senders would occupy the loop for 4 MiB each time.
const TURN: usize = 4 * CHUNK;

const LISTENER: u64 = 0;
const FIRST_PEER: u64 = 1;

pub(super) struct Reader {
    listener: Listener,
    options: ReceiverOptions,
    queue: Arc<Queue>,
    /// Woken when there is room in the queue again, or the process of a sender has ended.
    room: Arc<Wakeup>,
    sockets: SocketGroup,
    /// The listener is not polled before this time.
    paused: Option<Instant>,
    /// By the number under which the kernel reports their sockets; never reused.
    peers: HashMap<u64, Peer>,
    next_peer: u64,
    /// Bytes that are read ahead, of all peers.
    ahead: usize,
    /// Links of senders, of which the sockets are made anew.
    links: Links,
    chunk: Vec<u8>,
}

impl Reader {
    pub(super) fn new(
        listener: Listener,
        options: ReceiverOptions,
        queue: Arc<Queue>,
        room: Arc<Wakeup>,
    ) -> io::Result<Self> {
        let sockets = SocketGroup::new()?;
        sockets.add(&listener, LISTENER)?;
        Ok(Self {
            listener,
            options,
            queue,
            room,
            sockets,
            paused: None,
            peers: HashMap::new(),
            next_peer: FIRST_PEER,
            ahead: 0,
            links: Links::default(),
            chunk: vec![0; CHUNK],
        })
    }

    /// Reads until the task is stopped.
    pub(super) async fn run(mut self, handle: EventLoopHandle) {
        let mut watched = match self.sockets.watch(&handle) {
            Ok(watched) => watched,
            Err(error) => {
                tracing::error!(
                    "cannot receive notifications: the event loop cannot watch the sockets: {error}"
                );
                return;
            }
        };
        let room = Arc::clone(&self.room);
        loop {
            let overdue = self.drop_overdue().map(|left| Instant::now() + left);
            let look = handle.sleep_until(overdue.into_iter().chain(self.paused).min());
            let ready = async {
                watched.readable().await;
                false
            };
            let other = async {
                first(look, room.wait()).await;
                true
            };
            // Full queues are checked after each timeout as well, which is cheap and rare.
            if first(ready, other).await {
                self.resume(&handle).await;
            }
            self.turn(&handle).await;
        }
    }

    async fn turn(&mut self, handle: &EventLoopHandle) {
        if self.paused.is_some_and(|until| Instant::now() >= until) {
            let again = self.sockets.add(&self.listener, LISTENER);
            self.paused = again
                .err()
                .map(|error| Instant::now() + admission::pause_after(self.listener.local(), &error));
        }
        let mut taken = 0;
        for number in self.sockets.ready() {
            if taken >= TURN {
                taken = 0;
                handle.give_way().await;
            }
            match number {
                LISTENER => self.accept(),
                number => taken += self.serve(number),
            }
        }
        self.drop_ended();
    }

    /// Removes senders after the end of their processes, once all of their data is read: children that they have
    /// forked may hold their sockets open.
    fn drop_ended(&mut self) {
        let over = |peer: &Peer| {
            let has_ended = peer.process.as_ref().is_some_and(|process| process.has_ended());
            has_ended && peer.held_back.is_none() && peer.stream.is_quiet()
        };
        let over: Vec<_> =
            self.peers.iter().filter(|(_, peer)| over(peer)).map(|(number, _)| *number).collect();
        for number in over {
            self.remove(number);
        }
    }

    fn accept(&mut self) {
        let stream = match self.listener.try_accept() {
            Ok(Some(stream)) => stream,
            Ok(None) => return,
            Err(error) => {
                let pause = admission::pause_after(self.listener.local(), &error);
                if self.sockets.remove(&self.listener).is_ok() {
                    self.paused = Some(Instant::now() + pause);
                }
                return;
            }
        };
        // A host without power closes no socket: only the kernel's probes detect its end.
        if let Err(error) = stream.set_keepalive(self.options.keepalive) {
            tracing::debug!("cannot set keepalive on the socket to {}: {error}", stream.peer());
        }
        let number = self.next_peer;
        self.next_peer += 1;
        let added = random().and_then(|nonce| {
            self.sockets.add(&stream, number)?;
            Ok(Decoder::new(nonce))
        });
        match added {
            Ok(decoder) => {
                let now = Instant::now();
                let peer = Peer {
                    stream,
                    decoder,
                    bytes: Unread::default(),
                    held_back: None,
                    watched: true,
                    ahead: 0,
                    ended: false,
                    proven: false,
                    owned: false,
                    process: None,
                    link: None,
                    since: now,
                    last_received: now,
                };
                self.peers.insert(number, peer);
            }
            Err(error) => {
                let peer = stream.peer();
                report!(warn, ClientRefused, peer = peer, "notification socket from {peer}: {error}");
            }
        }
    }

    /// Reads once from a readable peer; returns the number of bytes.
    fn serve(&mut self, number: u64) -> usize {
        // An earlier event of this round may have removed the peer.
        let Some(peer) = self.peers.get_mut(&number) else { return 0 };
        let mut read = 0;
        match peer.stream.try_read(&mut self.chunk) {
            Ok(None) => return 0,
            Ok(Some(0)) => {
                peer.ended = true;
                // A sender that ends waits for that: all that it has sent is read.
                if peer.link.is_some() {
                    peer.stream.shutdown_write();
                }
            }
            Ok(Some(count)) => {
                read = count;
                peer.bytes.push(self.chunk.get(..count).unwrap_or_default());
                peer.last_received = Instant::now();
            }
            Err(error) => {
                tracing::debug!("notification socket from {}: {error}", peer.stream.peer());
                peer.ended = true;
            }
        }
        self.process_input(number);
        read
    }

    /// Delivers the messages read, and keeps, admits or removes the peer.
    fn process_input(&mut self, number: u64) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let mut disposition = peer.process_input(&self.options, &self.queue, &self.room);
        if let Disposition::Admitted(proof) = disposition {
            disposition = self.admit(number, proof);
        }
        if let Disposition::Linked { name, again } = disposition {
            disposition = self.link(number, name, again);
        }
        let Some(peer) = self.peers.get_mut(&number) else { return };
        peer.tell();
        if !matches!(disposition, Disposition::Stays | Disposition::Waits) {
            self.remove(number);
            return;
        }
        let watches = self.watches(number);
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let registered = match (std::mem::replace(&mut peer.watched, watches), watches) {
            (true, false) => self.sockets.remove(&peer.stream),
            (false, true) => self.sockets.add(&peer.stream, number),
            _ => Ok(()),
        };
        if let Err(error) = registered {
            let peer = peer.stream.peer();
            report!(warn, ClientRefused, peer = peer, "notification socket from {peer}: {error}");
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Peer> {
        let peer = self.peers.remove(&number)?;
        if let Some(link) = peer.link {
            let Self { links, options, .. } = self;
            options.connected_hosts.with_links(|is_of_connection| links.left(number, link, is_of_connection));
        }
        self.ahead = self.ahead.saturating_sub(peer.ahead);
        // Fails for a peer that waits for room in the queue and is not watched.
        let _ = self.sockets.remove(&peer.stream);
        Some(peer)
    }

    /// A peer has named its link. The former socket of that is dropped, with what has arrived and is not delivered: it is sent again.
    fn link(&mut self, number: u64, name: [u8; LINK_SIZE], again: bool) -> Disposition {
        if let Some(former) = self.links.socket_of(&name) {
            self.remove(former);
        }
        let link = self.links.join(number, name, again);
        let Some(peer) = self.peers.get_mut(&number) else { return Disposition::Goes };
        let Some(link) = link else {
            let peer = peer.stream.peer();
            report!(
                info,
                ClientRefused,
                peer = peer,
                "notification socket from {peer} closed: its link is not known here"
            );
            return Disposition::Goes;
        };
        peer.link = Some(link);
        if !peer.send(&link.delivered.to_le_bytes()) {
            return Disposition::Goes;
        }
        peer.process_input(&self.options, &self.queue, &self.room)
    }

    /// Applies the limit to a peer that has just been admitted, and processes its further input.
    fn admit(&mut self, number: u64, proof: Option<Proof>) -> Disposition {
        let limit = self.options.max_peers;
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.proven = proof.is_some();
        }
        let has_place = proof.is_some() || self.fits(number, limit);
        let Some(peer) = self.peers.get_mut(&number) else { return Disposition::Goes };
        if has_place {
            peer.stream.release_permit();
            if proof.is_some_and(|proof| !peer.send(&proof)) {
                return Disposition::Goes;
            }
            return peer.process_input(&self.options, &self.queue, &self.room);
        }
        let peer = peer.stream.peer();
        report!(
            warn,
            ClientRefused,
            peer = peer,
            "notification sender {peer} refused: {limit} unauthenticated senders are connected (raise FLAGCX_P2P_NOTIF_MAX_PEERS)"
        );
        Disposition::Goes
    }

    /// Delivers held messages after room in the queue became free.
    async fn resume(&mut self, handle: &EventLoopHandle) {
        let waiting: Vec<u64> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.held_back.is_some())
            .map(|(number, _)| *number)
            .collect();
        let mut taken = 0;
        for number in waiting {
            if taken >= TURN {
                taken = 0;
                handle.give_way().await;
            }
            let held = self.held(number);
            self.process_input(number);
            taken += held.saturating_sub(self.held(number));
        }
    }

    /// Undelivered bytes of a peer.
    fn held(&self, number: u64) -> usize {
        self.peers.get(&number).map_or(0, |peer| peer.bytes.len())
    }

    /// Drops clients that take too long for their first messages; returns when the next one is due.
    fn drop_overdue(&mut self) -> Option<Duration> {
        let limit = self.options.first_words();
        let overdue: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.decoder.is_admitted() && peer.since.elapsed() >= limit)
            .map(|(number, _)| *number)
            .collect();
        for number in overdue {
            self.remove(number);
        }
        let unproven = self.peers.values().filter(|peer| !peer.decoder.is_admitted());
        // A millisecond more, so that the next check is not too early.
        unproven.map(|peer| limit.saturating_sub(peer.since.elapsed()) + Duration::from_millis(1)).min()
    }
}

#[cfg(test)]
mod tests;
