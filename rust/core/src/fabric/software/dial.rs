//! The initiator's half of the hello.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::hello::{ANSWER_SIZE, Answer, GREETING_SIZE, Greeting, HelloError, Offer};
use super::keepalive;
use crate::auth::{AuthError, AuthKey, Initiator, Nonces, PROOF_SIZE, Purpose, Session, random};

/// Why nobody could be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{attempt}: {source}")]
    Io { attempt: &'static str, source: io::Error },
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// Connects to a data listener and makes `offer`, after both sides have proven the key if there is one. The stream comes
/// back non-blocking.
pub(super) fn dial(
    listener: SocketAddr,
    offer: &Offer,
    key: Option<&AuthKey>,
    deadline: Instant,
) -> Result<(TcpStream, Answer), DialError> {
    let stream = TcpStream::connect_timeout(&listener, left(deadline)).map_err(io("connecting"))?;
    keepalive::apply(&stream).map_err(io("setting socket options"))?;
    let mut bounded = Bounded { stream: &stream, deadline };

    let nonce =
        key.map(|_| random()).transpose().map_err(io("choosing a random number"))?.unwrap_or_default();
    let greeting = Greeting { nonce, keyed: key.is_some() };
    bounded.write_all(&greeting.encode()).map_err(io("sending the greeting"))?;
    let mut bytes = [0; GREETING_SIZE];
    bounded.read_exact(&mut bytes).map_err(io("waiting for its greeting"))?;
    let greeting = Greeting::decode(&bytes)?;
    greeting.check_keyed(key.is_some()).map_err(HelloError::Auth)?;
    let nonces = Nonces { initiator: nonce, responder: greeting.nonce };
    let session = key.map(|key| prove(&mut bounded, key, nonces)).transpose()?;

    bounded.write_all(&offer.encode(session.as_ref())).map_err(io("sending the offer"))?;
    let mut bytes = [0; ANSWER_SIZE];
    bounded.read_exact(&mut bytes).map_err(io("waiting for its answer"))?;
    let answer = Answer::decode(&bytes, session.as_ref())?;
    stream.set_nonblocking(true).map_err(io("setting socket options"))?;
    Ok((stream, answer))
}

/// Proves the key, and verifies that the responder knows it too.
fn prove(bounded: &mut Bounded<'_>, key: &AuthKey, nonces: Nonces) -> Result<Session, DialError> {
    let (initiator, proof) = Initiator::prove(key, Purpose::DATA, nonces);
    bounded.write_all(&proof).map_err(io("sending our proof"))?;
    let mut proof = [0; PROOF_SIZE];
    bounded.read_exact(&mut proof).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => HelloError::Auth(AuthError::Refused).into(),
        _ => io("waiting for its proof")(error),
    })?;
    Ok(initiator.verify(&proof).map_err(HelloError::Auth)?)
}

fn io(attempt: &'static str) -> impl Fn(io::Error) -> DialError {
    move |source| DialError::Io { attempt, source }
}

/// A stream on which everything together must be done by a deadline.
struct Bounded<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Bounded<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(left(self.deadline)))?;
        self.stream.read(bytes).map_err(timed_out)
    }
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(left(self.deadline)))?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Time left; a deadline that has passed leaves as little as the system takes.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The system says "would block" of a read that took too long.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer within the deadline"),
        _ => error,
    }
}
