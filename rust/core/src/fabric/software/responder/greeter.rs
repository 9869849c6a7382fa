//! The responder's half of the hello.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::fabric::software::device::Core;
use crate::fabric::software::endpoint::Endpoint;
use crate::fabric::software::hello::{
    Answer, GREETING_SIZE, Greeting, HelloError, Nonces, OFFER_SIZE, Offer, Reception, SocketName,
};
use crate::fabric::software::identity::{Identity, random};
use crate::fabric::software::keepalive;
use crate::fabric::software::socket::ReceiveBuffer;
use crate::fabric::software::table::Counterpart;
use crate::fabric::software::tcp::server::Server;

/// A client that has connected and not said yet what it wants.
#[derive(Debug)]
pub(super) struct Greeter {
    socket: OwnedFd,
    peer: SocketAddr,
    buffer: ReceiveBuffer,
    /// Set once greetings are exchanged.
    nonces: Option<Nonces>,
    deadline: Instant,
}

/// What became of it.
pub(super) enum Greeted {
    Waiting(Greeter),
    Refused(Greeter),
    Welcome(Server),
}

impl Greeter {
    pub(super) fn new(stream: TcpStream, peer: SocketAddr, deadline: Instant) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        keepalive::apply(&stream)?;
        let buffer = ReceiveBuffer::new(GREETING_SIZE.max(OFFER_SIZE));
        Ok(Self { socket: stream.into(), peer, buffer, nonces: None, deadline })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on as far as what has arrived allows.
    pub(super) fn serve(mut self, core: &Core, tables: Option<SocketName>) -> Greeted {
        if Instant::now() >= self.deadline {
            return self.refuse(core, "no hello within the time for it");
        }
        match self.buffer.fill(&self.socket) {
            Ok(0) => return Greeted::Refused(self),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Greeted::Refused(self),
        }
        let key = core.options.auth_key.as_deref();
        let Some(nonces) = self.nonces else { return self.take_greeting(core, key) };
        let Some(bytes) = self.buffer.take::<OFFER_SIZE>() else { return Greeted::Waiting(self) };
        let offer = match Offer::decode(&bytes, &nonces, key) {
            Ok(offer) => offer,
            Err(error) => return self.refuse(core, &error.to_string()),
        };
        let target = core.queue_pair(offer.target);
        let answer = answer(core, &offer, target.as_deref(), tables);
        let sent = self.send(&answer.encode(&nonces, key));
        match target {
            Some(endpoint) if sent && answer.reception == Reception::Welcome => {
                Greeted::Welcome(Server::new(self.socket, endpoint, offer.sender))
            }
            _ => self.refuse(core, answer.reception.explain()),
        }
    }

    fn take_greeting(mut self, core: &Core, key: Option<&[u8]>) -> Greeted {
        let Some(bytes) = self.buffer.take::<GREETING_SIZE>() else { return Greeted::Waiting(self) };
        let greeting = match Greeting::decode(&bytes) {
            Ok(greeting) => greeting,
            // An answer tells a peer of another version what this side speaks.
            Err(error @ HelloError::Version(_)) => {
                self.send(&Greeting::of_initiator(random(), key).encode());
                return self.refuse(core, &error.to_string());
            }
            Err(error) => return self.refuse(core, &error.to_string()),
        };
        let nonces = Nonces { initiator: greeting.nonce, responder: random() };
        let sent = self.send(&Greeting::of_responder(&nonces, key).encode());
        if let Err(error) = greeting.check_keyed(key) {
            return self.refuse(core, &error.to_string());
        }
        self.nonces = Some(nonces);
        if sent { Greeted::Waiting(self) } else { Greeted::Refused(self) }
    }

    /// A hello is far smaller than a socket's buffer: one that does not go out at once never will.
    fn send(&self, bytes: &[u8]) -> bool {
        rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) == Ok(bytes.len())
    }

    fn refuse(self, core: &Core, reason: &str) -> Greeted {
        tracing::warn!(device = core.name(), peer = %self.peer, "data connection refused: {reason}");
        Greeted::Refused(self)
    }
}

fn answer(core: &Core, offer: &Offer, target: Option<&Endpoint>, tables: Option<SocketName>) -> Answer {
    let reception = match target.map(|endpoint| endpoint.counterpart(&offer.sender)) {
        None => Reception::NoSuchQueuePair,
        Some(Counterpart::Ready | Counterpart::NotYet) => Reception::Welcome,
        Some(Counterpart::Gone) if target.is_some_and(Endpoint::is_error) => Reception::InError,
        Some(Counterpart::Gone) => Reception::ConnectedElsewhere,
    };
    Answer {
        reception,
        slot: target.map_or(0, |endpoint| endpoint.slot as u32),
        token: core.token(),
        identity: Identity::own(),
        name: tables.unwrap_or(SocketName::NONE),
    }
}
