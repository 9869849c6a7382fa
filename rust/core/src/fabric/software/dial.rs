//! The initiator's half of the hello.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::hello::{ANSWER_SIZE, Answer, GREETING_SIZE, Greeting, HelloError, Offer};
use super::keepalive;
use crate::auth::{AuthError, AuthKey, Initiator, Nonces, PROOF_SIZE, Purpose, Session, random};
use crate::events::{Interest, Waiter};

/// Why the peer could not be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{attempt}: {source}")]
    Io { attempt: &'static str, source: io::Error },
    #[error(transparent)]
    Hello(#[from] HelloError),
}

/// The first attempt: later ones have found the process.
pub(super) const CONNECTING: &str = "connecting";

/// Connects to a data listener and makes `offer`, after both sides have proven the key if there is one. The stream comes
/// back non-blocking.
pub(super) async fn dial(
    listener: SocketAddr,
    offer: &Offer,
    key: Option<&AuthKey>,
    deadline: Instant,
    waiter: &Waiter,
) -> Result<(TcpStream, Answer), DialError> {
    let stream = connect(listener, deadline, waiter).await.map_err(io(CONNECTING))?;
    keepalive::apply(&stream).map_err(io("setting socket options"))?;
    let exchange = Exchange { stream: &stream, deadline, waiter };

    let nonce =
        key.map(|_| random()).transpose().map_err(io("choosing a random number"))?.unwrap_or_default();
    let greeting = Greeting { nonce, keyed: key.is_some() };
    exchange.send(&greeting.encode()).await.map_err(io("sending the greeting"))?;
    let greeting = exchange.receive::<GREETING_SIZE>().await.map_err(io("waiting for its greeting"))?;
    let greeting = Greeting::decode(&greeting)?;
    greeting.check_keyed(key.is_some()).map_err(HelloError::Auth)?;
    let nonces = Nonces { initiator: nonce, responder: greeting.nonce };
    let session = match key {
        Some(key) => Some(prove(&exchange, key, nonces).await?),
        None => None,
    };

    exchange.send(&offer.encode(session.as_ref())).await.map_err(io("sending the offer"))?;
    let answer = exchange.receive::<ANSWER_SIZE>().await.map_err(io("waiting for its answer"))?;
    let answer = Answer::decode(&answer, session.as_ref())?;
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

async fn connect(listener: SocketAddr, deadline: Instant, waiter: &Waiter) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(listener), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&listener.into()) {
        Ok(()) => return Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    loop {
        waiter.ready(socket.as_fd(), Interest::Write, Some(deadline)).await.map_err(timed_out)?;
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(socket.into()),
        }
    }
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
        let (mut rest, mut stream) = (bytes, self.stream);
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) => self.wait(error, Interest::Write).await?,
            }
        }
        Ok(())
    }

    async fn receive<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        let (mut missing, mut stream) = (bytes.as_mut_slice(), self.stream);
        while !missing.is_empty() {
            match stream.read(missing) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => missing = missing.get_mut(count..).unwrap_or_default(),
                Err(error) => self.wait(error, Interest::Read).await?,
            }
        }
        Ok(bytes)
    }

    async fn wait(&self, error: io::Error, interest: Interest) -> io::Result<()> {
        match error.kind() {
            ErrorKind::WouldBlock => {
                let ready = self.waiter.ready(self.stream.as_fd(), interest, Some(self.deadline)).await;
                ready.map_err(timed_out)
            }
            ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::TimedOut => io::Error::new(ErrorKind::TimedOut, "no answer within the deadline"),
        _ => error,
    }
}
