//! Frames on a TCP socket, one request and its answer at a time.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use flagcx_p2p::internals::auth::{AuthError, AuthKey, Initiator, Nonce, Nonces, Purpose, Responder, random};

use super::Frame;
use super::codec::{self, FrameError, HEADER};
use crate::dial::{self, DialError};
use crate::framing::Lost;

/// Longest wait for the answer to a request: a pool of many gigabytes is compared within it.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a refused client may take to read the reason.
const LINGER: Duration = Duration::from_millis(100);
/// Makes these proofs invalid for the engine's own exchanges, and the other way round.
const PURPOSE: Purpose = Purpose::new("benchmark");

/// Why a control stream ended.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Resolve(DialError),
    #[error("{0}; is `flagcx-p2p bench serve` running there?")]
    Connect(DialError),
    #[error("the peer closed the connection (it ended or was killed)")]
    Closed,
    #[error("no answer from the peer in time: its process is stopped, or the network between is down")]
    Timeout,
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("protocol error of the peer: {0}")]
    Protocol(String),
    #[error("{0}")]
    Io(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// One end of a control stream.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Stream {
    /// Connects to `HOST:PORT`.
    pub(crate) fn connect(address: &str) -> Result<Self, StreamError> {
        let stream = dial::connect(address).map_err(|error| match error {
            DialError::Resolve(_) => StreamError::Resolve(error),
            DialError::Connect(_) => StreamError::Connect(error),
        })?;
        Self::new(stream).map_err(|error| StreamError::Io(error.to_string()))
    }

    /// Takes over a connected socket.
    pub(crate) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
        Ok(Self { socket, peer, local })
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address: it names the interface that leads to the peer.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The socket, for bytes without frames.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &Frame) -> Result<(), StreamError> {
        let bytes = codec::encode(frame)?;
        self.socket.write_all(&bytes).map_err(|error| from_io(&error))
    }

    /// Sends the reason why nothing else will be answered, and closes. What the client has sent is read, so that the reason
    /// is not lost with it.
    pub(crate) fn refuse(mut self, text: &str) {
        // Best effort: the client may be gone.
        let told = self.send(&Frame::refused(text)).is_ok() && self.socket.shutdown(Shutdown::Write).is_ok();
        if told && self.wait_within(LINGER).is_ok() {
            let _ = self.socket.read(&mut [0; 256]);
        }
    }

    /// The next frame, within `timeout`. A refusal is an error.
    pub(crate) fn receive(&mut self, timeout: Duration) -> Result<Frame, StreamError> {
        self.wait_within(timeout)?;
        let mut header = [0; HEADER];
        self.socket.read_exact(&mut header).map_err(|error| from_io(&error))?;
        let mut payload = vec![0; codec::decode_header(header)?];
        self.socket.read_exact(&mut payload).map_err(|error| from_io(&error))?;
        match codec::decode_payload(&payload)? {
            Frame::Refused { text } => Err(StreamError::Refused(text)),
            frame => Ok(frame),
        }
    }

    /// The next frame if its first byte comes within `timeout`.
    pub(crate) fn poll(&mut self, timeout: Duration) -> Result<Option<Frame>, StreamError> {
        self.wait_within(timeout)?;
        match self.socket.peek(&mut [0]) {
            Ok(0) => Err(StreamError::Closed),
            Ok(_) => self.receive(ANSWER_TIMEOUT).map(Some),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(from_io(&error)),
        }
    }

    /// Sends a request and takes its answer.
    pub(crate) fn ask(&mut self, request: &Frame) -> Result<Frame, StreamError> {
        self.send(request)?;
        self.receive(ANSWER_TIMEOUT)
    }

    /// Sends a request that has no result.
    pub(crate) fn order(&mut self, request: &Frame) -> Result<(), StreamError> {
        self.send(request)?;
        self.done(ANSWER_TIMEOUT)
    }

    /// Takes the answer of a request that has no result.
    pub(crate) fn done(&mut self, timeout: Duration) -> Result<(), StreamError> {
        match self.receive(timeout)? {
            Frame::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The client's proof that it knows the key, before anything else is told; takes the server's answer to `Open`.
    pub(crate) fn prove(&mut self, key: Option<&AuthKey>, client: Nonce) -> Result<Frame, StreamError> {
        let server = match (self.receive(ANSWER_TIMEOUT)?, key) {
            (Frame::Challenge { nonce }, Some(_)) => nonce,
            (Frame::Challenge { .. }, None) => return Err(AuthError::KeyRequired.into()),
            (_, Some(_)) => return Err(AuthError::KeyMissing.into()),
            (frame, None) => return Ok(frame),
        };
        let key = key.ok_or(AuthError::KeyRequired)?;
        let (initiator, proof) =
            Initiator::prove(key, PURPOSE, Nonces { initiator: client, responder: server });
        self.send(&Frame::Proof { proof })?;
        let answer = self.receive(ANSWER_TIMEOUT).map_err(|error| match error {
            StreamError::Closed => AuthError::Refused.into(),
            error => error,
        })?;
        let Frame::Proof { proof } = answer else { return Err(unexpected(&answer)) };
        initiator.verify(&proof)?;
        self.receive(ANSWER_TIMEOUT)
    }

    /// The server's side of [`Stream::prove`], within `timeout` each.
    pub(crate) fn verify(
        &mut self,
        key: &AuthKey,
        client: Nonce,
        timeout: Duration,
    ) -> Result<(), StreamError> {
        let server = nonce()?;
        self.send(&Frame::Challenge { nonce: server })?;
        let answer = self.receive(timeout)?;
        let Frame::Proof { proof } = answer else { return Err(unexpected(&answer)) };
        let nonces = Nonces { initiator: client, responder: server };
        let (_session, proof) = Responder::new(key, PURPOSE, nonces).verify(&proof)?;
        self.send(&Frame::Proof { proof })
    }

    fn wait_within(&self, timeout: Duration) -> Result<(), StreamError> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        self.socket.set_read_timeout(timeout).map_err(|error| from_io(&error))
    }
}

/// A fresh random number.
pub(crate) fn nonce() -> Result<Nonce, StreamError> {
    random().map_err(|error| StreamError::Io(error.to_string()))
}

/// An error for a frame that does not belong here.
pub(crate) fn unexpected(frame: &Frame) -> StreamError {
    let text = format!("{frame:?}");
    StreamError::Protocol(format!("unexpected {}", text.split([' ', '(']).next().unwrap_or_default()))
}

fn from_io(error: &io::Error) -> StreamError {
    match Lost::from(error) {
        Lost::Closed => StreamError::Closed,
        Lost::Timeout => StreamError::Timeout,
        Lost::Other(text) => StreamError::Io(text),
    }
}
