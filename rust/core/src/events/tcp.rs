//! TCP over a `Waiter`: used by both sides of every exchange with a peer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Interest, Waiter};
use crate::fork::OwnSocket;

/// Connects to `target` with `source` as our end, if there is one. The stream is non-blocking.
///
/// `ConnectionRefused` when no process listens there, `TimedOut` at the deadline.
pub(crate) async fn connect(
    source: Option<SocketAddr>,
    target: SocketAddr,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<OwnSocket<TcpStream>> {
    end_connect(begin_connect(source, target)?, deadline, waiter).await
}

/// As [`connect`], with an address of this host and the interface that packets are to leave through, if that is permitted.
pub(crate) async fn connect_through(
    (source, interface): (SocketAddr, &str),
    target: SocketAddr,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<OwnSocket<TcpStream>> {
    let socket = new_socket(target)?;
    match bind_device(&socket, interface) {
        Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    end_connect(start(socket, Some(source), target)?, deadline, waiter).await
}

async fn end_connect(
    socket: OwnSocket<Socket>,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<OwnSocket<TcpStream>> {
    while !is_connected(&socket)? {
        waiter.ready(socket.as_fd(), Interest::Write, Some(deadline)).await?;
    }
    Ok(socket.map(TcpStream::from))
}

/// Listens on `address`, with room for `backlog` connections that wait to be accepted. The listener is non-blocking.
pub(crate) fn listen(address: SocketAddr, backlog: i32) -> io::Result<OwnSocket<TcpListener>> {
    let socket = new_socket(address)?;
    // A fixed port must be usable again at once after a restart.
    socket.set_reuse_address(address.port() != 0)?;
    begin_to_listen(socket, address, backlog)
}

/// Listens on the address of `first` once more, for connections that arrive through `interface` alone, and answers them through it. The
/// kernel gives this one those that both could accept. `PermissionDenied` before Linux 5.7, except for root.
pub(crate) fn listen_through(
    interface: &str,
    first: &OwnSocket<TcpListener>,
    backlog: i32,
) -> io::Result<OwnSocket<TcpListener>> {
    let address = first.local_addr()?;
    let socket = new_socket(address)?;
    bind_device(&socket, interface)?;
    // Without this on both the port is in use. It was not set before `first` had its port: no other listener has it.
    SockRef::from(&**first).set_reuse_port(true)?;
    socket.set_reuse_port(true)?;
    begin_to_listen(socket, address, backlog)
}

fn begin_to_listen(
    socket: OwnSocket<Socket>,
    address: SocketAddr,
    backlog: i32,
) -> io::Result<OwnSocket<TcpListener>> {
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.map(TcpListener::from))
}

fn bind_device(socket: &Socket, interface: &str) -> io::Result<()> {
    // The name of an address may have a label behind that of its interface.
    let device = interface.split(':').next().unwrap_or(interface);
    socket.bind_device(Some(device.as_bytes()))
}

/// Begins to connect without waiting.
pub(crate) fn begin_connect(source: Option<SocketAddr>, target: SocketAddr) -> io::Result<OwnSocket<Socket>> {
    start(new_socket(target)?, source, target)
}

fn new_socket(target: SocketAddr) -> io::Result<OwnSocket<Socket>> {
    let socket = OwnSocket::new(Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn start(
    socket: OwnSocket<Socket>,
    source: Option<SocketAddr>,
    target: SocketAddr,
) -> io::Result<OwnSocket<Socket>> {
    if let Some(source) = source {
        socket.bind(&source.into())?;
    }
    match socket.connect(&target.into()).map_err(|error| (error.raw_os_error(), error)) {
        // An interrupted connect continues in the kernel.
        Ok(()) | Err((Some(libc::EINPROGRESS | libc::EINTR), _)) => Ok(socket),
        Err((_, error)) => Err(error),
    }
}

/// Whether it is connected; an error when it cannot be any more.
pub(crate) fn is_connected(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        other => other.map(|_| true),
    }
}

/// Bytes moved without waiting before the task yields to others on the loop: with a peer as fast as this host no read
/// or write waits, and a region table has megabytes. 64 KiB take some 20 us.
const SHARE: usize = 64 << 10;

/// Fills `buffer`. `UnexpectedEof` when the peer closes before, `TimedOut`, `ConnectionAborted`, or the system's error.
pub(crate) async fn read_exact(
    stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<()> {
    let (mut filled, mut share, mut reader) = (0, SHARE, stream);
    while filled < buffer.len() {
        if share == 0 {
            waiter.give_way().await;
            share = SHARE;
        }
        let end = buffer.len().min(filled + share);
        match reader.read(buffer.get_mut(filled..end).unwrap_or_default()) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => (filled, share) = (filled + count, share - count),
            Err(error) => wait(stream, error, Interest::Read, deadline, waiter).await?,
        }
    }
    Ok(())
}

/// Writes all of `bytes`. After an error it is not known how many of them the peer will receive.
pub(crate) async fn write_all(
    stream: &TcpStream,
    bytes: &[u8],
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<()> {
    write_counted(stream, bytes, deadline, waiter, &mut 0).await
}

/// As [`write_all`], and adds to `total` the bytes that the kernel has taken, also if it fails.
pub(crate) async fn write_counted(
    stream: &TcpStream,
    bytes: &[u8],
    deadline: Instant,
    waiter: &Waiter,
    total: &mut usize,
) -> io::Result<()> {
    let (mut written, mut share, mut writer) = (0, SHARE, stream);
    while written < bytes.len() {
        if share == 0 {
            waiter.give_way().await;
            share = SHARE;
        }
        let end = bytes.len().min(written + share);
        match writer.write(bytes.get(written..end).unwrap_or_default()) {
            Ok(count) => {
                (written, share) = (written + count, share - count);
                *total += count;
            }
            Err(error) => wait(stream, error, Interest::Write, deadline, waiter).await?,
        }
    }
    Ok(())
}

async fn wait(
    stream: &TcpStream,
    error: io::Error,
    interest: Interest,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock => waiter.ready(stream.as_fd(), interest, Some(deadline)).await,
        ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}
