//! The receiver's task of the event loop: waits on all sockets at once and reads them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Notification;
use super::super::decoder::{DecodedEvent, Decoder};
use super::super::queue::Queue;
use super::ReceiverOptions;
use crate::admission;
use crate::auth::{Proof, random};
use crate::control::{Listener, Stream};
use crate::events::{EventLoopHandle, SocketGroup, Wakeup, first};
use crate::observe::report;
use crate::process::PeerProcess;

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
    chunk: Vec<u8>,
}

struct Peer {
    stream: Stream,
    decoder: Decoder,
    /// Bytes of an incomplete message, or of one that waits for room in the queue.
    bytes: Vec<u8>,
    /// A message that the full queue refused. Meanwhile the socket is not watched.
    held_back: Option<Notification>,
    /// The peer has closed its end.
    ended: bool,
    /// It has proven the key.
    proven: bool,
    /// It has announced its process, as the peers of connections do.
    owned: bool,
    /// Its process, if it runs on this host.
    process: Option<Arc<PeerProcess>>,
    /// Since when its first bytes or its proof are awaited.
    since: Instant,
    /// When it last sent data.
    last_received: Instant,
}

/// What to do with a peer after its input was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposition {
    Stays,
    Waits,
    /// It has just been admitted: it stays if the limit permits, and then gets our proof.
    Admitted(Option<Proof>),
    Goes,
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
                    bytes: Vec::new(),
                    held_back: None,
                    ended: false,
                    proven: false,
                    owned: false,
                    process: None,
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
            Ok(Some(0)) => peer.ended = true,
            Ok(Some(count)) => {
                read = count;
                peer.bytes.extend_from_slice(self.chunk.get(..count).unwrap_or_default());
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
        let was_waiting = peer.held_back.is_some();
        let mut disposition = peer.process_input(&self.options, &self.queue, &self.room);
        if let Disposition::Admitted(proof) = disposition {
            disposition = self.admit(number, proof);
        }
        let Some(peer) = self.peers.get_mut(&number) else { return };
        let registered = match (was_waiting, disposition) {
            (_, Disposition::Goes | Disposition::Admitted(_)) => {
                self.remove(number);
                return;
            }
            (false, Disposition::Waits) => self.sockets.remove(&peer.stream),
            (true, Disposition::Stays) => self.sockets.add(&peer.stream, number),
            (true, Disposition::Waits) | (false, Disposition::Stays) => Ok(()),
        };
        if let Err(error) = registered {
            let peer = peer.stream.peer();
            report!(warn, ClientRefused, peer = peer, "notification socket from {peer}: {error}");
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Peer> {
        let peer = self.peers.remove(&number)?;
        // Fails for a peer that waits for room in the queue and is not watched.
        let _ = self.sockets.remove(&peer.stream);
        Some(peer)
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

    /// Removes silent senders until at most `limit` unauthenticated ones are left, the new one included; false if
    /// that is not possible. A connection that has ended may leave several too many.
    fn fits(&mut self, newcomer: u64, limit: usize) -> bool {
        while self.unauthenticated().len() > limit {
            if !self.make_room(newcomer) {
                return false;
            }
        }
        true
    }

    /// The senders that count against the limit: unauthenticated ones without a connection. A socket does not name
    /// its connection, so for each connection of a host one of its sockets is exempt; sockets that have announced
    /// their process, as those of peers do, are exempt first.
    fn unauthenticated(&self) -> Vec<u64> {
        let mut by_host: HashMap<_, Vec<_>> = HashMap::new();
        for (&number, peer) in
            self.peers.iter().filter(|(_, peer)| peer.decoder.is_admitted() && !peer.proven)
        {
            by_host.entry(peer.stream.peer().ip()).or_default().push((!peer.owned, number));
        }
        let beyond = by_host.into_iter().flat_map(|(host, mut senders)| {
            senders.sort_unstable();
            senders.into_iter().skip(self.options.connected_hosts.count(host)).map(|(_, number)| number)
        });
        beyond.collect()
    }

    /// Closes the socket of the sender without a connection that has been silent longest; false when there is none.
    ///
    /// Never a peer's: senders get no acknowledgement, so a displaced peer would lose the messages that it sends
    /// before it notices. A socket of a host with connections is closed only if it has not announced its process, no
    /// socket of another host can be closed, and the new sender is of the same host: then one of the two belongs to
    /// no connection, and the new one is a peer's.
    fn make_room(&mut self, newcomer: u64) -> bool {
        let limit = self.options.hello_timeout;
        let Some(host) = self.peers.get(&newcomer).map(|peer| peer.stream.peer().ip()) else { return false };
        let connected = |host| self.options.connected_hosts.count(host) > 0;
        let candidates = self.unauthenticated().into_iter().filter_map(|number| {
            let peer = self.peers.get(&number).filter(|peer| number != newcomer && peer.is_drained(limit))?;
            let of_connected_host = connected(peer.stream.peer().ip());
            (!of_connected_host || (!peer.owned && connected(host))).then_some((
                of_connected_host,
                peer.last_received,
                number,
            ))
        });
        let silent = candidates.min().map(|(_, _, number)| number);
        let Some(gone) = silent.and_then(|number| self.remove(number)) else { return false };
        tracing::info!(
            "notification sender {} displaced by another one: it has no connection and is silent",
            gone.stream.peer()
        );
        true
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

impl Peer {
    /// Whether it is admitted and has no undelivered data. An incomplete message counts as data until `limit`.
    fn is_drained(&self, limit: Duration) -> bool {
        self.decoder.is_admitted()
            && self.held_back.is_none()
            && self.stream.is_quiet()
            && (self.bytes.is_empty() || self.last_received.elapsed() >= limit)
    }

    fn process_input(&mut self, options: &ReceiverOptions, queue: &Queue, room: &Arc<Wakeup>) -> Disposition {
        if let Some(arrival) = self.held_back.take()
            && let Err(arrival) = queue.try_push(arrival)
        {
            self.held_back = Some(arrival);
            return Disposition::Waits;
        }
        let mut used = 0;
        let disposition = loop {
            let rest = self.bytes.get(used..).unwrap_or_default();
            let arrival = match self.decoder.next(rest, &options.policy) {
                Ok(None) if self.ended => break Disposition::Goes,
                Ok(None) => break Disposition::Stays,
                Ok(Some((event, size))) => {
                    used += size;
                    match event {
                        DecodedEvent::Message(message) => Notification::Fixed(message),
                        DecodedEvent::Large(message) => Notification::Exact(message),
                        DecodedEvent::Admitted(proof) => break Disposition::Admitted(proof),
                        DecodedEvent::Greeted => continue,
                        DecodedEvent::Owner(identity) => {
                            self.owned = true;
                            self.process = PeerProcess::of_identity(identity);
                            if let Some(process) = &self.process {
                                process.watch(room);
                            }
                            continue;
                        }
                        DecodedEvent::Challenge(nonce) => match self.send(&nonce) {
                            // The proof is another step with its own time limit.
                            true => {
                                self.since = Instant::now();
                                continue;
                            }
                            false => break Disposition::Goes,
                        },
                    }
                }
                Err(error) => {
                    let peer = self.stream.peer();
                    report!(
                        warn,
                        ClientRefused,
                        peer = peer,
                        "notification socket from {peer} closed: {error}"
                    );
                    break Disposition::Goes;
                }
            };
            if let Err(arrival) = queue.try_push(arrival) {
                self.held_back = Some(arrival);
                break Disposition::Waits;
            }
        };
        self.bytes.drain(..used);
        if self.bytes.is_empty() {
            // The buffer of a large message must not stay allocated for the rest of the connection.
            self.bytes.shrink_to(CHUNK);
        }
        disposition
    }

    /// Sends a message of the exchange of proofs. This side sends nothing else, so it fits into the socket's buffer.
    fn send(&self, bytes: &[u8]) -> bool {
        matches!(self.stream.try_write(bytes), Ok(Some(count)) if count == bytes.len())
    }
}

#[cfg(test)]
mod tests;
