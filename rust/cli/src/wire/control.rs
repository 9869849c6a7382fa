//! A control stream on a TCP socket: frames in order, and a bound on silence.
//!
//! Two threads serve it: one reads frames into a bounded queue, one sends [`Frame::KeepAlive`] at intervals. A peer that is
//! killed, stopped or not reachable any more is therefore noticed within [`PEER_TIMEOUT`], whatever this side is busy with.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::auth::AuthError;

use super::Frame;
use super::codec::{self, FrameError, HEADER};
use crate::dial::{self, DialError};
use crate::framing::Lost;

/// Time without a frame after which a peer counts as lost.
pub(crate) const PEER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to open its session and to prove the key, whatever else it sends meanwhile.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two keep-alive frames.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// How long an ending side waits for the peer to read its last frames.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that one call of the kernel reads, at most: of many frames about small files.
const READ_AHEAD: usize = 16 << 10;
/// Frames read ahead; beyond that TCP holds the peer back.
const QUEUE: usize = 2 * super::MAX_SLOTS;

/// Why a control stream ended.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error(transparent)]
    Resolve(DialError),
    #[error("{0}; is `flagcx-p2p serve` running there?")]
    Connect(DialError),
    #[error("the peer closed the connection (it ended or was killed)")]
    Closed,
    #[error("no frame from the peer for {} s: its process is stopped, or the network between is down", PEER_TIMEOUT.as_secs())]
    PeerTimeout,
    #[error("the client did not open its session, and prove the pre-shared key where one is set, within {} s", OPEN_TIMEOUT.as_secs())]
    NotOpened,
    #[error("no request, or no progress of one, for {} s", .0.as_secs())]
    Idle(Duration),
    #[error("the server is ending")]
    Ending,
    #[error("{0}")]
    Io(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error("the peer refused: {0}")]
    Refused(String),
    #[error("protocol error of the peer: {0}")]
    Protocol(String),
}

/// One end of a control stream.
#[derive(Debug)]
pub(crate) struct Control {
    writer: Arc<Mutex<TcpStream>>,
    frames: Receiver<Result<Frame, ControlError>>,
    /// Dropped to end the keep-alive thread.
    stop: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Control {
    /// Connects to `HOST:PORT`.
    pub(crate) fn connect(address: &str) -> Result<Self, ControlError> {
        let stream = dial::connect(address).map_err(|error| match error {
            DialError::Resolve(_) => ControlError::Resolve(error),
            DialError::Connect(_) => ControlError::Connect(error),
        })?;
        Self::new(stream).map_err(|error| ControlError::Io(error.to_string()))
    }

    /// Takes over a connected socket.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PEER_TIMEOUT))?;
        stream.set_write_timeout(Some(PEER_TIMEOUT))?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        let reader = stream.try_clone()?;
        let writer = Arc::new(Mutex::new(stream));
        let (sender, frames) = mpsc::sync_channel(QUEUE);
        let (stop, stopped) = mpsc::channel();
        let keep_alive = Arc::clone(&writer);
        let threads = vec![
            thread::Builder::new().name("control-read".into()).spawn(move || read_frames(reader, &sender))?,
            thread::Builder::new()
                .name("control-alive".into())
                .spawn(move || send_keep_alives(&keep_alive, &stopped))?,
        ];
        Ok(Self { writer, frames, stop: Some(stop), threads, peer, local })
    }

    /// The peer's address.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This side's address: it names the interface that leads to the peer.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a frame; waits at most [`PEER_TIMEOUT`] for room.
    pub(crate) fn send(&self, frame: &Frame) -> Result<(), ControlError> {
        send(&self.writer, frame).map_err(|error| self.refusal().unwrap_or(error))
    }

    /// Sends frames with one call of the kernel.
    pub(crate) fn send_all(&self, frames: &[Frame]) -> Result<(), ControlError> {
        send_all(&self.writer, frames).map_err(|error| self.refusal().unwrap_or(error))
    }

    /// Ends the stream so that the peer still reads what was sent last: closing with unread input would reset it.
    pub(crate) fn finish(self) {
        let stream = self.writer.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Write);
        let until = Instant::now() + LINGER;
        let left = || until.saturating_duration_since(Instant::now());
        while stream.is_ok() && !left().is_zero() && matches!(self.frames.recv_timeout(left()), Ok(Ok(_))) {}
    }

    /// The next frame. Fails once the peer has sent nothing for [`PEER_TIMEOUT`].
    pub(crate) fn receive(&self) -> Result<Frame, ControlError> {
        self.frames.recv().unwrap_or(Err(ControlError::Closed)).and_then(accepted)
    }

    /// The next frame, if it comes before `deadline`, which keep-alive frames do not extend. `None`: it has not come.
    pub(crate) fn receive_by(&self, deadline: Instant) -> Result<Option<Frame>, ControlError> {
        match self.frames.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(frame) => frame.and_then(accepted).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ControlError::Closed),
        }
    }

    /// The refusal that the peer has sent, if one comes within `limit`: frames before it are dropped.
    pub(crate) fn refusal_within(&self, limit: Duration) -> Option<ControlError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.receive_by(deadline) {
                Ok(Some(_)) => {}
                Err(refused @ ControlError::Refused(_)) => return Some(refused),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next frame if there is one now.
    pub(crate) fn try_receive(&self) -> Result<Option<Frame>, ControlError> {
        match self.frames.try_recv() {
            Ok(frame) => frame.and_then(accepted).map(Some),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ControlError::Closed),
        }
    }

    /// The refusal that the peer sent before it closed, if it did: a better reason than "closed".
    fn refusal(&self) -> Option<ControlError> {
        self.frames.iter().find_map(|frame| match frame {
            Ok(Frame::Refused { text }) => Some(ControlError::Refused(text)),
            _ => None,
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        let stream = self.writer.lock().unwrap_or_else(PoisonError::into_inner).shutdown(Shutdown::Both);
        if let Err(error) = stream {
            tracing::debug!(%error, "control stream was closed already");
        }
        // A reader that waits for room in the queue ends when the queue is dropped.
        let (_, none) = mpsc::channel();
        drop(std::mem::replace(&mut self.frames, none));
        for thread in self.threads.drain(..) {
            // A panic of a thread was printed by its hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

/// A refusal is an error where another frame is expected.
fn accepted(frame: Frame) -> Result<Frame, ControlError> {
    match frame {
        Frame::Refused { text } => Err(ControlError::Refused(text)),
        frame => Ok(frame),
    }
}

fn send(writer: &Mutex<TcpStream>, frame: &Frame) -> Result<(), ControlError> {
    send_all(writer, std::slice::from_ref(frame))
}

fn send_all(writer: &Mutex<TcpStream>, frames: &[Frame]) -> Result<(), ControlError> {
    let bytes = frames.iter().map(codec::encode).collect::<Result<Vec<_>, _>>()?.concat();
    let mut stream = writer.lock().unwrap_or_else(PoisonError::into_inner);
    stream.write_all(&bytes).map_err(|error| from_io(&error))
}

fn send_keep_alives(writer: &Mutex<TcpStream>, stopped: &Receiver<()>) {
    while stopped.recv_timeout(KEEP_ALIVE_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        if send(writer, &Frame::KeepAlive).is_err() {
            return;
        }
    }
}

fn read_frames(stream: TcpStream, frames: &SyncSender<Result<Frame, ControlError>>) {
    let mut stream = BufReader::with_capacity(READ_AHEAD, stream);
    loop {
        let frame = read_frame(&mut stream);
        let ended = frame.is_err();
        if matches!(frame, Ok(Frame::KeepAlive)) {
            continue;
        }
        if frames.send(frame).is_err() || ended {
            return;
        }
    }
}

fn read_frame(stream: &mut impl Read) -> Result<Frame, ControlError> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).map_err(|error| from_io(&error))?;
    let mut payload = vec![0; codec::decode_header(header)?];
    stream.read_exact(&mut payload).map_err(|error| from_io(&error))?;
    Ok(codec::decode_payload(&payload)?)
}

fn from_io(error: &io::Error) -> ControlError {
    match Lost::from(error) {
        Lost::Closed => ControlError::Closed,
        Lost::Timeout => ControlError::PeerTimeout,
        Lost::Other(text) => ControlError::Io(text),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn pair() -> (Control, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let control = Control::connect(&listener.local_addr().unwrap().to_string()).unwrap();
        (control, listener.accept().unwrap().0)
    }

    #[test]
    fn frames_arrive_in_order_without_keep_alives() {
        let (control, mut peer) = pair();
        for frame in
            [Frame::KeepAlive, Frame::Credit { sequence: 1 }, Frame::KeepAlive, Frame::Credit { sequence: 2 }]
        {
            peer.write_all(&codec::encode(&frame).unwrap()).unwrap();
        }
        assert_eq!(control.receive().unwrap(), Frame::Credit { sequence: 1 });
        assert_eq!(control.receive().unwrap(), Frame::Credit { sequence: 2 });
        assert!(control.try_receive().unwrap().is_none());
    }

    #[test]
    fn a_closed_peer_and_another_program_are_different_errors() {
        let (control, peer) = pair();
        drop(peer);
        assert!(matches!(control.receive(), Err(ControlError::Closed)));
        let (control, mut peer) = pair();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n").unwrap();
        assert!(matches!(control.receive(), Err(ControlError::Frame(FrameError::NotOurs))));
    }

    #[test]
    fn a_refusal_is_an_error_with_its_text() {
        let (control, mut peer) = pair();
        peer.write_all(&codec::encode(&Frame::refused("no such file")).unwrap()).unwrap();
        let error = control.receive().unwrap_err();
        assert!(error.to_string().contains("no such file"), "{error}");
    }

    #[test]
    fn dropping_with_a_full_queue_ends() {
        let (control, mut peer) = pair();
        let frames = codec::encode(&Frame::Credit { sequence: 0 }).unwrap().repeat(QUEUE + 10);
        peer.write_all(&frames).unwrap();
        thread::sleep(Duration::from_millis(50));
        drop(control);
    }

    #[test]
    fn a_port_without_a_listener_is_a_connect_error() {
        let error = Control::connect("127.0.0.1:1").unwrap_err();
        assert!(matches!(error, ControlError::Connect(_)), "{error}");
        assert!(matches!(Control::connect("no port here"), Err(ControlError::Resolve(_))));
    }
}
