//! The responder's half of the hello.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;

use crate::admission::{self, Permit};
use crate::auth::{Session, random};
use crate::fabric::software::device_core::Core;
use crate::fabric::software::endpoint::{Endpoint, listener_of};
use crate::fabric::software::hello::{
    HELLO_SIZE, HelloAnswer, HelloResponder, OFFER_SIZE, Offer, Received, Reception, Refusal, SocketName,
};
use crate::fabric::software::identity::Identity;
use crate::fabric::software::keepalive;
use crate::fabric::software::socket::ReceiveBuffer;
use crate::fabric::software::table::Counterpart;
use crate::fabric::software::tcp::server::Server;
use crate::fabric::software::tokens::Asker;
use crate::fork::OwnSocket;
use crate::observe::report;

/// A client that has connected and not said yet what it wants.
#[derive(Debug)]
pub(super) struct Handshake {
    /// Before the socket: it ends first.
    permit: Permit,
    socket: OwnSocket<OwnedFd>,
    peer: SocketAddr,
    buffer: ReceiveBuffer,
    hello: HelloResponder,
    deadline: Instant,
}

/// What became of it.
pub(super) enum HandshakeStep {
    Waiting(Handshake),
    Refused(Handshake),
    Welcome(Server),
}

impl Handshake {
    pub(super) fn new(
        core: &Core,
        stream: OwnSocket<TcpStream>,
        peer: SocketAddr,
        // Behind the socket: of parameters the last is dropped first.
        permit: Permit,
    ) -> std::io::Result<Self> {
        let key = core.options.auth_key.clone();
        let nonce = key.as_ref().map(|_| random()).transpose()?.unwrap_or_default();
        stream.set_nonblocking(true)?;
        keepalive::apply(&stream)?;
        let buffer = ReceiveBuffer::new(HELLO_SIZE.max(OFFER_SIZE));
        let hello = HelloResponder::new(key, nonce);
        let socket = stream.map(OwnedFd::from);
        Ok(Self { permit, socket, peer, buffer, hello, deadline: next_words(core) })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on as far as what has arrived allows.
    pub(super) fn serve(mut self, core: &Core, tables: Option<SocketName>) -> HandshakeStep {
        if Instant::now() >= self.deadline {
            return self.refuse(core, "no hello within the time for it");
        }
        match self.buffer.fill(&self.socket) {
            Ok(0) => return HandshakeStep::Refused(self),
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(_) => return HandshakeStep::Refused(self),
        }
        while let Some(message) = self.buffer.take_exactly(self.hello.expects()) {
            match self.hello.receive(message) {
                // With a key the proof is another step, with a time of its own.
                Ok(Received::Reply(reply)) if self.send(&reply) => {
                    if core.options.auth_key.is_some() {
                        self.deadline = next_words(core);
                    }
                }
                Ok(Received::Reply(_)) => return HandshakeStep::Refused(self),
                Ok(Received::Offer(offer, session)) => {
                    return self.receive(core, &offer, session.as_ref(), tables);
                }
                Err(Refusal { error, reply }) => {
                    if let Some(reply) = reply {
                        self.send(&reply);
                    }
                    return self.refuse(core, &error.to_string());
                }
            }
        }
        HandshakeStep::Waiting(self)
    }

    /// Answers an offer.
    fn receive(
        self,
        core: &Core,
        offer: &Offer,
        session: Option<&Session>,
        tables: Option<SocketName>,
    ) -> HandshakeStep {
        let target = core.queue_pair(offer.target);
        let answer = answer(core, offer, target.as_deref(), tables, self.peer.ip());
        let sent = self.send(&answer.encode(session));
        match target {
            Some(endpoint) if sent && answer.reception == Reception::Welcome => {
                self.permit.release();
                let peer_record = core.wrong_keys.of(self.peer.ip(), Instant::now());
                HandshakeStep::Welcome(Server::new(self.socket, endpoint, offer.sender, peer_record))
            }
            _ => self.refuse(core, answer.reception.explain()),
        }
    }

    /// A hello is far smaller than a socket's buffer: one that does not go out at once never will.
    fn send(&self, bytes: &[u8]) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        retry_on_intr(|| rustix::net::send(&self.socket, bytes, flags)) == Ok(bytes.len())
    }

    fn refuse(self, core: &Core, reason: &str) -> HandshakeStep {
        report!(
            warn,
            ClientRefused,
            peer = self.peer,
            device = core.name(),
            "data connection refused: {reason}"
        );
        HandshakeStep::Refused(self)
    }
}

/// An offer that is not accepted is told why, and of this process no more than that.
fn answer(
    core: &Core,
    offer: &Offer,
    target: Option<&Endpoint>,
    tables: Option<SocketName>,
    peer: IpAddr,
) -> HelloAnswer {
    let reception = match target.map(|endpoint| endpoint.counterpart(&offer.sender)) {
        None => Reception::NoSuchQueuePair,
        Some(Counterpart::Ready | Counterpart::NotYet) => Reception::Welcome,
        Some(Counterpart::Gone) if target.is_some_and(Endpoint::is_error) => Reception::InError,
        Some(Counterpart::Gone) => Reception::ConnectedElsewhere,
    };
    let refused =
        HelloAnswer { reception, slot: 0, token: 0, identity: Identity::NONE, name: SocketName::NONE };
    let Some(endpoint) = target.filter(|_| reception == Reception::Welcome) else { return refused };
    let asker = Asker { ip: peer, listener: listener_of(&offer.sender) };
    let tables = tables.and_then(|name| Some((name, core.tokens.give(asker, Instant::now()).ok()?)));
    let (name, token) = tables.unwrap_or((SocketName::NONE, 0));
    HelloAnswer { slot: endpoint.slot as u32, token, identity: Identity::own(), name, ..refused }
}

/// By when a client is to go on: soon, where it must prove a key. Else it has the time that a handshake has, for over a slow link
/// that loses packets it may need that.
pub(super) fn next_words(core: &Core) -> Instant {
    let limit = match core.options.auth_key {
        Some(_) => admission::SILENCE_LIMIT,
        None => core.options.handshake_timeout.max(admission::SILENCE_LIMIT),
    };
    Instant::now() + limit
}
