//! One sender of notifications: what it has sent, and how far it has authenticated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::unread::Unread;
use crate::auth::Proof;
use crate::control::Stream;
use crate::control::wire::notification::{COUNT_SIZE, LINK_SIZE};
use crate::events::Wakeup;
use crate::notify::Notification;
use crate::notify::decoder::{DecodedEvent, Decoder};
use crate::notify::queue::Queue;
use crate::notify::receiver::ReceiverOptions;
use crate::observe::report;
use crate::process::PeerProcess;

/// A sender, from its first byte on.
pub(super) struct Peer {
    pub(super) stream: Stream,
    pub(super) decoder: Decoder,
    /// Bytes of an incomplete message, or of one that waits for room in the queue.
    pub(super) bytes: Unread,
    /// A message that the full queue refused. Meanwhile the socket is not watched, but for what is read ahead: see `ahead`.
    pub(super) held_back: Option<Notification>,
    /// The socket is watched.
    pub(super) watched: bool,
    /// So many of `bytes` are counted as read ahead.
    pub(super) ahead: usize,
    /// The peer has closed its end.
    pub(super) ended: bool,
    /// It has proven the key.
    pub(super) proven: bool,
    /// It has announced its process, as the peers of connections do.
    pub(super) owned: bool,
    /// Its process, if it runs on this host.
    pub(super) process: Option<Arc<PeerProcess>>,
    /// The link that it is of.
    pub(super) link: Option<PeerLink>,
    /// Since when its first bytes or its proof are awaited.
    pub(super) since: Instant,
    /// When it last sent data.
    pub(super) last_received: Instant,
}

/// A peer's part in a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerLink {
    pub(super) name: [u8; LINK_SIZE],
    /// Messages of the link that have been delivered.
    pub(super) delivered: u64,
    /// How many of them the sender has been told of.
    pub(super) told: u64,
    /// It cannot be told of more over this socket.
    pub(super) mute: bool,
}

/// What to do with a peer after its input was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    Stays,
    Waits,
    /// It has just been admitted: it stays if the limit permits, and then gets our proof.
    Admitted(Option<Proof>),
    /// It has named its link: it stays if that is known, or new.
    Linked {
        name: [u8; LINK_SIZE],
        again: bool,
    },
    Goes,
}

impl Peer {
    /// Whether it is admitted and has no undelivered data. An incomplete message counts as data until `limit`.
    pub(super) fn is_drained(&self, limit: Duration) -> bool {
        self.decoder.is_admitted()
            && self.held_back.is_none()
            && self.stream.is_quiet()
            && (self.bytes.is_empty() || self.last_received.elapsed() >= limit)
    }

    /// Delivers the messages read so far, and says what is to become of the peer.
    pub(super) fn process_input(
        &mut self,
        options: &ReceiverOptions,
        queue: &Queue,
        room: &Arc<Wakeup>,
    ) -> Disposition {
        if let Some(arrival) = self.held_back.take() {
            if let Err(arrival) = queue.try_push(arrival) {
                self.held_back = Some(arrival);
                return Disposition::Waits;
            }
            self.note_delivered();
        }
        let mut used = 0;
        let disposition = loop {
            let rest = self.bytes.rest().get(used..).unwrap_or_default();
            let arrival = match self.decoder.next(rest, &options.policy) {
                Ok(None) if self.ended => break Disposition::Goes,
                Ok(None) => break Disposition::Stays,
                Ok(Some((event, size))) => {
                    used += size;
                    match event {
                        DecodedEvent::Message(message) => Notification::Fixed(message),
                        DecodedEvent::Large(message) => Notification::Exact(message),
                        DecodedEvent::Admitted(proof) => break Disposition::Admitted(proof),
                        DecodedEvent::Link { name, again } => break Disposition::Linked { name, again },
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
            self.note_delivered();
        };
        self.bytes.take(used);
        disposition
    }

    fn note_delivered(&mut self) {
        if let Some(link) = &mut self.link {
            link.delivered += 1;
        }
    }

    /// Tells the sender of a link how many messages have been delivered, if it does not know. What it has sent is read whether it can be
    /// told or not: a sender that has closed its end has no other way to deliver that.
    pub(super) fn tell(&mut self) {
        let Some(link) = self.link.filter(|link| link.told != link.delivered && !link.mute) else { return };
        if self.stream.is_closed() {
            self.link = Some(PeerLink { mute: true, ..link });
            return;
        }
        match self.stream.try_write(&link.delivered.to_le_bytes()) {
            // The sender reads seldom: it is told later.
            Ok(None) => {}
            Ok(Some(COUNT_SIZE)) => self.link = Some(PeerLink { told: link.delivered, ..link }),
            // Part of a number cannot be followed by anything else: the sender makes its socket anew.
            Ok(Some(_)) | Err(_) => {
                self.stream.shutdown_write();
                self.link = Some(PeerLink { mute: true, ..link });
            }
        }
    }

    /// Sends a message of the exchange of proofs. This side sends nothing else, so it fits into the socket's buffer.
    pub(super) fn send(&self, bytes: &[u8]) -> bool {
        matches!(self.stream.try_write(bytes), Ok(Some(count)) if count == bytes.len())
    }
}
