//! The initiator's half of the hello.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::hello::{ANSWER_SIZE, DataHello, HELLO_SIZE, HelloAnswer, HelloError, Offer};
use super::keepalive;
use crate::auth::{AuthError, AuthKey, Initiator, Nonces, PROOF_SIZE, Purpose, Session, random};
use crate::events::{Waiter, tcp};
use crate::fork::OwnSocket;

/// Why the peer could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{attempt}: {source}")]
    Io { attempt: &'static str, source: io::Error },
    #[error(transparent)]
    Hello(#[from] HelloError),
}

impl DialError {
    /// Whether the other end has closed in the middle of the handshake. A listener that is short of places does, and one that has
    /// heard nothing for its limit: a link that loses the first two packets of a connection delays the third try by 3 s.
    pub(super) fn is_displaced(&self) -> bool {
        let closed = |source: &io::Error| {
            matches!(source.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof)
        };
        matches!(self, Self::Io { source, .. } if closed(source))
    }
}

/// The first attempt: later ones have found the process.
pub(super) const CONNECTING: &str = "connecting";

/// How often a data listener is asked that closes handshakes, and how long after the first time; four times as long after each
/// further one. A listener with a `FLAGCX_P2P_ALLOW` that has not our address closes too, which cannot be told apart: it is asked as often,
/// and the connect fails 210 ms later than it could.
const TRIES: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// [`dial`], and again where the other end closes in the middle of it, within one deadline.
pub(super) async fn dial_patiently(
    listener: SocketAddr,
    offer: &Offer,
    key: Option<&AuthKey>,
    deadline: Instant,
    waiter: &Waiter,
) -> Result<(OwnSocket<TcpStream>, HelloAnswer), DialError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match dial(listener, offer, key, deadline, waiter).await {
            Err(error) if error.is_displaced() && Instant::now() + pause < deadline => {
                waiter.pause(pause).await.map_err(io("waiting to connect again"))?;
            }
            other => return other,
        }
        pause *= 4;
    }
    dial(listener, offer, key, deadline, waiter).await
}

/// Connects to a data listener and makes `offer`, after both sides have proven the key if there is one. The stream comes
/// back non-blocking.
pub(super) async fn dial(
    listener: SocketAddr,
    offer: &Offer,
    key: Option<&AuthKey>,
    deadline: Instant,
    waiter: &Waiter,
) -> Result<(OwnSocket<TcpStream>, HelloAnswer), DialError> {
    let stream = tcp::connect(None, listener, deadline, waiter).await.map_err(timed_out);
    let stream = stream.map_err(io(CONNECTING))?;
    SockRef::from(&*stream).set_out_of_band_inline(true).map_err(io("setting socket options"))?;
    keepalive::apply(&stream).map_err(io("setting socket options"))?;
    let exchange = Exchange { stream: &stream, deadline, waiter };

    let nonce =
        key.map(|_| random()).transpose().map_err(io("choosing a random number"))?.unwrap_or_default();
    let hello = DataHello { nonce, keyed: key.is_some() };
    exchange.send(&hello.encode()).await.map_err(io("sending the hello"))?;
    let hello = exchange.receive::<HELLO_SIZE>().await.map_err(io("waiting for its hello"))?;
    let hello = DataHello::decode(&hello)?;
    hello.check_keyed(key.is_some()).map_err(HelloError::Auth)?;
    let nonces = Nonces { initiator: nonce, responder: hello.nonce };
    let session = match key {
        Some(key) => Some(prove(&exchange, key, nonces).await?),
        None => None,
    };

    exchange.send(&offer.encode(session.as_ref())).await.map_err(io("sending the offer"))?;
    let answer = exchange.receive::<ANSWER_SIZE>().await.map_err(io("waiting for its answer"))?;
    let answer = HelloAnswer::decode(&answer, session.as_ref())?;
    Ok((stream, answer))
}

/// Proves the key, and verifies that the responder knows it too.
async fn prove(exchange: &Exchange<'_>, key: &AuthKey, nonces: Nonces) -> Result<Session, DialError> {
    let (initiator, proof) = Initiator::prove(key, Purpose::DATA, nonces);
    exchange.send(&proof).await.map_err(io("sending our proof"))?;
    let proof = exchange.receive::<PROOF_SIZE>().await.map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => HelloError::Auth(AuthError::Refused).into(),
        _ => io("waiting for its proof")(error),
    })?;
    Ok(initiator.verify(&proof).map_err(HelloError::Auth)?)
}

fn io(attempt: &'static str) -> impl Fn(io::Error) -> DialError {
    move |source| DialError::Io { attempt, source }
}

/// A stream on which everything together must be done by a deadline.
struct Exchange<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
    waiter: &'a Waiter,
}

impl Exchange<'_> {
    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        tcp::write_all(self.stream, bytes, self.deadline, self.waiter).await.map_err(timed_out)
    }

    async fn receive<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        tcp::read_exact(self.stream, &mut bytes, self.deadline, self.waiter).await.map_err(timed_out)?;
        Ok(bytes)
    }
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::TimedOut => io::Error::new(ErrorKind::TimedOut, "no answer within the deadline"),
        _ => error,
    }
}
