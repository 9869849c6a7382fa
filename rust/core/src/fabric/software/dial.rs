//! The initiator's half of the hello.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::hello::{ANSWER_SIZE, Answer, GREETING_SIZE, Greeting, HelloError, Nonces, Offer};
use super::identity::random;
use super::keepalive;

/// Why nobody could be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{attempt}: {source}")]
    Io { attempt: &'static str, source: io::Error },
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// Connects to a data listener and makes `offer`. The stream comes back non-blocking.
pub(super) fn dial(
    listener: SocketAddr,
    offer: &Offer,
    key: Option<&[u8]>,
    deadline: Instant,
) -> Result<(TcpStream, Answer), DialError> {
    let io = |attempt| move |source| DialError::Io { attempt, source };
    let stream = TcpStream::connect_timeout(&listener, left(deadline)).map_err(io("connecting"))?;
    keepalive::apply(&stream).map_err(io("setting socket options"))?;
    let mut bounded = Bounded { stream: &stream, deadline };

    let nonce = random();
    let greeting = Greeting::of_initiator(nonce, key);
    bounded.write_all(&greeting.encode()).map_err(io("sending the greeting"))?;
    let mut bytes = [0; GREETING_SIZE];
    bounded.read_exact(&mut bytes).map_err(io("waiting for its greeting"))?;
    let greeting = Greeting::decode(&bytes)?;
    let nonces = Nonces { initiator: nonce, responder: greeting.nonce };
    greeting.verify(&nonces, key)?;

    bounded.write_all(&offer.encode(&nonces, key)).map_err(io("sending the offer"))?;
    let mut bytes = [0; ANSWER_SIZE];
    bounded.read_exact(&mut bytes).map_err(io("waiting for its answer"))?;
    let answer = Answer::decode(&bytes, &nonces, key)?;
    stream.set_nonblocking(true).map_err(io("setting socket options"))?;
    Ok((stream, answer))
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
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer within the deadline"),
        _ => error,
    }
}
