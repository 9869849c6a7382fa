//! Connecting, with patience for a peer that is not up yet.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::Stream;
use super::abort::{Abort, sleep, wait_ready};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Connects to `target`. A refused port is tried again, with growing pauses, until `deadline`: peers that start
/// together still meet. The stream's later waits end with `abort` too.
///
/// `ConnectionRefused` when nobody ever listened, `TimedOut` when nobody answered, or the system's error.
pub fn connect(target: SocketAddr, deadline: Instant, abort: Option<&Abort>) -> io::Result<Stream> {
    let mut pause = FIRST_PAUSE;
    loop {
        let refused = match connect_once(target, deadline, abort) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => error,
            other => return other,
        };
        sleep(pause, Some(deadline), abort)?;
        if Instant::now() >= deadline {
            return Err(refused);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Connects if somebody listens now.
pub(in crate::control) fn connect_once(
    target: SocketAddr,
    deadline: Instant,
    abort: Option<&Abort>,
) -> io::Result<Stream> {
    connect_from(None, target, deadline, abort)
}

/// The same, with `source` as our end.
pub(in crate::control) fn connect_from(
    source: Option<SocketAddr>,
    target: SocketAddr,
    deadline: Instant,
    abort: Option<&Abort>,
) -> io::Result<Stream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            wait_ready(socket.as_fd(), PollFlags::OUT, Some(deadline), abort)?;
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
        }
        Err(error) => return Err(error),
    }
    let stream = Stream::new(TcpStream::from(socket), abort.cloned())?;
    if stream.local() == stream.peer() {
        // The kernel had picked the target's own port for our end and connected the socket to itself.
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}
