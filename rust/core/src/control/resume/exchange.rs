//! What the two ends say on a socket that is to be a channel again.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::offer::TOKEN_SIZE;
use super::ways::{FormerEnds, Way};
use crate::auth::{
    AuthError, AuthKey, Initiator, NONCE_SIZE, Nonce, Nonces, PROOF_SIZE, Proof, Purpose, Responder, random,
};
use crate::control::Stream;
use crate::control::socket::connect_over;
use crate::control::wire::{PREAMBLE_SIZE, SocketKind};
use crate::events::Waiter;

/// Bytes of a request: preamble, name, generation, random number.
pub(super) const REQUEST_SIZE: usize = PREAMBLE_SIZE + 16 + NONCE_SIZE;
const COUNT_SIZE: usize = 8;
/// In the place of the number of received frames: the connection has ended at that end.
pub const ENDED: u64 = u64::MAX;

/// Why a socket does not become a channel.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The socket failed; most of all: nothing is there.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The other end does not know the connection, or its key or token is another one: it closes the socket without a reason.
    #[error("it does not know the connection any more, or its pre-shared key differs")]
    Refused,
    /// The peer has proven that it is the one, and says that the connection has ended there.
    #[error("it has ended the connection")]
    Ended,
    /// The other end has not proven that it is the peer.
    #[error("what answers there is not the peer: {0}")]
    NotThePeer(AuthError),
    /// The request is no request.
    #[error("{0}")]
    Malformed(String),
}

/// The secret of a connection's channel.
#[derive(Clone, Debug)]
pub(super) struct Secret(AuthKey);

impl Secret {
    /// `psk` is the key that both ends have proven in the handshake, if there is one.
    pub(super) fn new(psk: Option<&AuthKey>, token: &[u8; TOKEN_SIZE]) -> Self {
        Self(match psk {
            Some(key) => key.derive(&[b"resume", token]),
            None => AuthKey::new(token),
        })
    }

    /// The key for one request.
    fn of_request(&self, name: u64, generation: u64) -> AuthKey {
        self.0.derive(&[&name.to_le_bytes(), &generation.to_le_bytes()])
    }
}

/// A channel that the other end has taken up.
#[derive(Debug)]
pub struct Resumed {
    /// The socket.
    pub stream: Stream,
    /// How many frames the other end has received.
    pub received: u64,
}

/// A follower's listener that has answered a request, of which nothing is proven yet. It waits for that for seconds.
#[derive(Debug)]
pub struct Asked {
    stream: Stream,
    name: u64,
    generation: u64,
    nonces: Nonces,
}

/// Asks the follower over `way` for the connection `name`: whether the way leads to it.
pub async fn ask(
    way: &Way,
    (name, generation): (u64, u64),
    deadline: Instant,
    waiter: &Waiter,
) -> Result<Asked, ResumeError> {
    let stream = connect_over(way.source.as_ref(), way.target, deadline, waiter).await?;
    let ours: Nonce = random()?;
    let mut request = SocketKind::Resume.encode().to_vec();
    request.extend(name.to_le_bytes());
    request.extend(generation.to_le_bytes());
    request.extend(ours);
    stream.write_all(&request, deadline, waiter).await?;
    let mut theirs = [0; NONCE_SIZE];
    stream.read_exact(&mut theirs, deadline, waiter).await.map_err(closed)?;
    Ok(Asked { stream, name, generation, nonces: Nonces { initiator: ours, responder: theirs } })
}

impl Asked {
    /// Whether it is between the same two addresses as the channel.
    pub fn is_between(&self, ends: FormerEnds) -> bool {
        (self.stream.local().ip(), self.stream.peer().ip()) == (ends.own, ends.peer)
    }

    /// Has the follower take up the connection. `received`: how many frames this end has, or [`ENDED`] to say that; a follower that
    /// knows it then answers [`ResumeError::Ended`] too.
    pub async fn resume(
        self,
        (psk, token): (Option<&AuthKey>, &[u8; TOKEN_SIZE]),
        received: u64,
        (deadline, keepalive): (Instant, Option<Duration>),
        waiter: &Waiter,
    ) -> Result<Resumed, ResumeError> {
        let Self { mut stream, name, generation, nonces } = self;
        let key = Secret::new(psk, token).of_request(name, generation);
        let (initiator, proof) = Initiator::prove(&key, Purpose::RESUME, nonces);
        stream.write_all(&[&proof[..], &received.to_le_bytes()].concat(), deadline, waiter).await?;
        let mut proof: Proof = [0; PROOF_SIZE];
        stream.read_exact(&mut proof, deadline, waiter).await.map_err(closed)?;
        initiator.verify(&proof).map_err(ResumeError::NotThePeer)?;
        let mut count = [0; COUNT_SIZE];
        stream.read_exact(&mut count, deadline, waiter).await?;
        let received = u64::from_le_bytes(count);
        if received == ENDED {
            return Err(ResumeError::Ended);
        }
        keep(&mut stream, keepalive);
        Ok(Resumed { stream, received })
    }
}

/// [`ask`], and [`Asked::resume`].
pub async fn resume(
    way: &Way,
    request: (u64, u64),
    secret: (Option<&AuthKey>, &[u8; TOKEN_SIZE]),
    received: u64,
    (deadline, keepalive): (Instant, Option<Duration>),
    waiter: &Waiter,
) -> Result<Resumed, ResumeError> {
    let asked = ask(way, request, deadline, waiter).await?;
    asked.resume(secret, received, (deadline, keepalive), waiter).await
}

/// A request that has arrived at a [`ResumeListener`](super::ResumeListener).
#[derive(Debug)]
pub(super) struct ResumeRequest {
    pub(super) name: u64,
    pub(super) generation: u64,
    nonce: Nonce,
}

impl ResumeRequest {
    pub(super) async fn receive(
        stream: &Stream,
        deadline: Instant,
        waiter: &Waiter,
    ) -> Result<Self, ResumeError> {
        let mut bytes = [0; REQUEST_SIZE];
        stream.read_exact(&mut bytes, deadline, waiter).await?;
        Self::decode(&bytes)
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Result<Self, ResumeError> {
        let malformed = |what: String| ResumeError::Malformed(what);
        match SocketKind::decode(bytes).map_err(|error| malformed(error.to_string()))? {
            Ok(SocketKind::Resume) => {}
            other => return Err(malformed(format!("a socket of kind {other:?}"))),
        }
        let short = || malformed("too short".to_owned());
        let rest = bytes.get(PREAMBLE_SIZE..).ok_or_else(short)?;
        let (name, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (generation, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let nonce = rest.first_chunk().ok_or_else(short)?;
        Ok(Self {
            name: u64::from_le_bytes(*name),
            generation: u64::from_le_bytes(*generation),
            nonce: *nonce,
        })
    }

    /// Has the leader prove that it is the one. Returns how many frames it has received, and our proof, which is to be sent as the
    /// first bytes once the former socket is out of use.
    pub(super) async fn verify(
        &self,
        stream: &Stream,
        secret: &Secret,
        deadline: Instant,
        waiter: &Waiter,
    ) -> Result<(u64, Proof), ResumeError> {
        let ours: Nonce = random()?;
        stream.write_all(&ours, deadline, waiter).await?;
        let mut proof: Proof = [0; PROOF_SIZE];
        stream.read_exact(&mut proof, deadline, waiter).await?;
        let key = secret.of_request(self.name, self.generation);
        let nonces = Nonces { initiator: self.nonce, responder: ours };
        let (_, ours) =
            Responder::new(&key, Purpose::RESUME, nonces).verify(&proof).map_err(ResumeError::NotThePeer)?;
        let mut count = [0; COUNT_SIZE];
        stream.read_exact(&mut count, deadline, waiter).await?;
        Ok((u64::from_le_bytes(count), ours))
    }
}

/// Answers a leader that is told that the connection has ended here, or has told so itself.
pub(super) async fn answer_ended(
    stream: &Stream,
    proof: &Proof,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<()> {
    stream.write_all(&[&proof[..], &ENDED.to_le_bytes()].concat(), deadline, waiter).await
}

/// Prepares a socket for the life of the connection.
pub(super) fn keep(stream: &mut Stream, keepalive: Option<Duration>) {
    stream.release_permit();
    stream.set_abort(None);
    if let Err(error) = stream.set_keepalive(keepalive) {
        tracing::debug!("cannot set keepalive on the socket to {}: {error}", stream.peer());
    }
}

fn closed(error: io::Error) -> ResumeError {
    match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => ResumeError::Refused,
        _ => ResumeError::Socket(error),
    }
}
