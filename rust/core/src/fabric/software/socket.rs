//! Sending from and receiving into memory by address, without blocking.
#![allow(unsafe_code, reason = "system calls that take addresses")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;
use rustix::process::Pid;

use super::denial::{is_denial, tell};

/// A range of memory by address; laid out as `struct iovec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Range {
    pub(super) address: usize,
    pub(super) length: usize,
}

const _: () = assert!(size_of::<Range>() == size_of::<libc::iovec>());

impl Range {
    pub(super) fn new(address: u64, length: u64) -> Self {
        Self { address: address as usize, length: length as usize }
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { address: bytes.as_ptr() as usize, length: bytes.len() }
    }

    /// To be written to.
    pub(super) fn of_mut(bytes: &mut [u8]) -> Self {
        Self { address: bytes.as_mut_ptr() as usize, length: bytes.len() }
    }
}

/// Sends what fits into the socket's buffer; says how much. `EAGAIN` when nothing does, `EFAULT` when a range is not
/// readable. The kernel checks the ranges, so that a wrong one is an error and nothing worse.
pub(super) fn send(socket: BorrowedFd<'_>, ranges: &[Range]) -> Result<usize, Errno> {
    // SAFETY: `msghdr` is a C struct of integers and pointers, for which all zeroes mean "none".
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ranges.as_ptr().cast_mut().cast();
    message.msg_iovlen = ranges.len();
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    let sent = retry_on_intr(|| {
        // SAFETY: the list of ranges is borrowed for the call, has iovec's layout and is only read; sending reads the
        // memory that the ranges name, and the kernel refuses what is not there.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
        usize::try_from(sent).map_err(|_| last_errno())
    });
    match sent {
        Err(errno) if is_denial(errno) => {
            tell("sendmsg", &errno.to_string(), "processes of this host use TCP, and send piece by piece");
            send_first(socket, ranges, flags)
        }
        answer => answer,
    }
}

/// [`send`] of the first range that is not empty, where the call that takes several is denied: a sandbox may forbid it for the
/// descriptors that it can carry.
fn send_first(socket: BorrowedFd<'_>, ranges: &[Range], flags: libc::c_int) -> Result<usize, Errno> {
    let Some(range) = ranges.iter().find(|range| range.length > 0) else { return Ok(0) };
    retry_on_intr(|| {
        // SAFETY: sending reads the memory that the range names, and the kernel refuses what is not there.
        let sent = unsafe { libc::send(socket.as_raw_fd(), range.address as *const _, range.length, flags) };
        usize::try_from(sent).map_err(|_| last_errno())
    })
}

/// Receives into `ranges`, in order, what is there; 0 means that the peer has closed. `EFAULT` when the first bytes cannot
/// be put into a range: nothing is taken off the socket then.
///
/// # Safety
/// The caller may change every byte of the ranges, until the call returns. They need not be mapped.
pub(super) unsafe fn receive(socket: BorrowedFd<'_>, ranges: &[Range]) -> Result<usize, Errno> {
    // SAFETY: as in `send`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = ranges.as_ptr().cast_mut().cast();
    message.msg_iovlen = ranges.len();
    let received = retry_on_intr(|| {
        // SAFETY: the list of ranges is borrowed for the call and has iovec's layout; the memory may be changed by the
        // caller's promise, and the kernel refuses what cannot be.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        usize::try_from(received).map_err(|_| last_errno())
    });
    match received {
        Err(errno) if is_denial(errno) => {
            tell("recvmsg", &errno.to_string(), "processes of this host use TCP, and receive piece by piece");
            // SAFETY: the caller's promise.
            unsafe { receive_first(socket, ranges) }
        }
        answer => answer,
    }
}

/// [`receive`] into the first range that is not empty, where the call that takes several is denied.
///
/// # Safety
/// As [`receive`].
unsafe fn receive_first(socket: BorrowedFd<'_>, ranges: &[Range]) -> Result<usize, Errno> {
    let Some(range) = ranges.iter().find(|range| range.length > 0) else { return Ok(0) };
    retry_on_intr(|| {
        // SAFETY: the memory may be changed by the caller's promise, and the kernel refuses what cannot be.
        let received = unsafe {
            libc::recv(socket.as_raw_fd(), range.address as *mut _, range.length, libc::MSG_DONTWAIT)
        };
        usize::try_from(received).map_err(|_| last_errno())
    })
}

/// Whether the peer of a TCP socket has closed it, also while something that it sent before still lies in it.
pub(super) fn has_peer_closed(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    match retry_on_intr(|| poll(&mut fds, Some(&Timespec::default()))) {
        Ok(ready) => ready > 0,
        // The process has lowered its limit of descriptors below the number of them that are looked at.
        Err(_) => !is_established(socket),
    }
}

/// Whether a TCP socket is open in both directions. The state is the first byte of what the kernel tells.
fn is_established(socket: BorrowedFd<'_>) -> bool {
    const ESTABLISHED: u8 = 1;
    let mut state = 0_u8;
    let mut size = size_of::<u8>() as libc::socklen_t;
    // SAFETY: both pointers are to locals, and `size` is the size of the first: the kernel writes no more.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut size,
        )
    };
    answer == 0 && state == ESTABLISHED
}

/// The process at the other end of a Unix socket (of the listening side: the one that called `listen`), as a number of this
/// process's own pid namespace; `None` when it is not visible in it.
pub(super) fn peer_pid(socket: impl AsFd) -> Option<Pid> {
    // 0 stands for a process of another namespace.
    peer_credentials(socket).and_then(|credentials| Pid::from_raw(credentials.pid))
}

/// The effective user of the process at the other end of a Unix socket, when it connected.
pub(super) fn peer_user(socket: impl AsFd) -> Option<u32> {
    peer_credentials(socket).map(|credentials| credentials.uid)
}

fn peer_credentials(socket: impl AsFd) -> Option<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both pointers are to locals, and `size` is the size of the first.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut size,
        )
    };
    (answer == 0).then_some(credentials)
}

fn last_errno() -> Errno {
    io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Bytes received and not yet looked at.
#[derive(Debug)]
pub(super) struct ReceiveBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    pub(super) fn new(size: usize) -> Self {
        Self { bytes: vec![0; size].into_boxed_slice(), start: 0, end: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next `N` bytes, if they are all there.
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = *self.bytes.get(self.start..self.end)?.first_chunk()?;
        self.start += N;
        Some(bytes)
    }

    /// The next `size` bytes, if they are all there.
    pub(super) fn take_exactly(&mut self, size: usize) -> Option<&[u8]> {
        let bytes = self.bytes.get(self.start..self.end)?.get(..size)?;
        self.start += size;
        Some(bytes)
    }

    /// Receives once; 0 means that the peer has closed.
    pub(super) fn fill(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        self.fill_to(socket, usize::MAX)
    }

    /// The same, until it holds `size` bytes at most.
    pub(super) fn fill_to(&mut self, socket: impl AsFd, size: usize) -> Result<usize, Errno> {
        let room = self.room(size);
        if room.is_empty() {
            return Err(Errno::NOBUFS);
        }
        let (received, _) = retry_on_intr(|| rustix::net::recv(&socket, &mut *room, RecvFlags::DONTWAIT))?;
        self.note(received);
        Ok(received)
    }

    /// Where to receive the next bytes to, until it holds `size` at most. [`ReceiveBuffer::note`] tells it of them.
    pub(super) fn room(&mut self, size: usize) -> &mut [u8] {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let size = size.min(self.bytes.len());
        self.bytes.get_mut(self.end..size).unwrap_or_default()
    }

    /// So many bytes were received into its room.
    pub(super) fn note(&mut self, received: usize) {
        self.end = self.bytes.len().min(self.end + received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn ranges_are_sent_in_order_and_come_back_piece_by_piece() {
        let (left, right) = UnixStream::pair().unwrap();
        let ranges = [Range::of(b"abc"), Range::of(b""), Range::of(b"defgh")];
        assert_eq!(send(left.as_fd(), &ranges), Ok(8));
        let mut buffer = ReceiveBuffer::new(6);
        assert_eq!(buffer.fill(&right), Ok(6));
        assert_eq!(buffer.take::<4>(), Some(*b"abcd"));
        assert_eq!(buffer.take::<4>(), None);
        assert_eq!(buffer.fill(&right), Ok(2));
        assert_eq!(buffer.take_exactly(4), Some(&b"efgh"[..]));
        assert!(buffer.is_empty());
        assert_eq!(buffer.fill(&right), Err(Errno::AGAIN));
        drop(left);
        assert_eq!(buffer.fill(&right), Ok(0));
    }

    #[test]
    fn bytes_are_received_into_ranges_and_the_room_behind_them() {
        let (left, right) = UnixStream::pair().unwrap();
        send(left.as_fd(), &[Range::of(b"payloadhead")]).unwrap();
        let (mut place, mut buffer) = ([0_u8; 7], ReceiveBuffer::new(8));
        let ranges = [Range::of_mut(&mut place), Range::of_mut(buffer.room(4))];
        // SAFETY: both ranges are of this test.
        assert_eq!(unsafe { receive(right.as_fd(), &ranges) }, Ok(11));
        buffer.note(4);
        assert_eq!((&place, buffer.take::<4>()), (b"payload", Some(*b"head")));
    }

    #[test]
    fn bytes_without_a_place_stay_in_the_socket() {
        let (left, right) = UnixStream::pair().unwrap();
        send(left.as_fd(), &[Range::of(b"abcd")]).unwrap();
        // SAFETY: nothing is there.
        assert_eq!(unsafe { receive(right.as_fd(), &[Range::new(8, 4)]) }, Err(Errno::FAULT));
        let mut place = [0_u8; 4];
        // SAFETY: of this test.
        assert_eq!(unsafe { receive(right.as_fd(), &[Range::of_mut(&mut place)]) }, Ok(4));
        assert_eq!(&place, b"abcd");
    }

    #[test]
    fn piece_by_piece_the_first_that_is_not_empty_is_moved() {
        let (left, right) = UnixStream::pair().unwrap();
        let ranges = [Range::of(b""), Range::of(b"abc"), Range::of(b"defgh")];
        assert_eq!(send_first(left.as_fd(), &ranges, libc::MSG_NOSIGNAL), Ok(3));
        let (mut first, mut second) = ([0_u8; 2], [0_u8; 2]);
        let places = [Range::default(), Range::of_mut(&mut first), Range::of_mut(&mut second)];
        // SAFETY: the ranges are of this test.
        assert_eq!(unsafe { receive_first(right.as_fd(), &places) }, Ok(2));
        assert_eq!((&first, &second), (b"ab", &[0; 2]));
        assert_eq!(send_first(left.as_fd(), &[Range::default()], libc::MSG_NOSIGNAL), Ok(0));
    }

    #[test]
    fn the_end_is_seen_behind_what_came_before_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        io::Write::write_all(&mut ours, b"before").unwrap();
        assert!(!has_peer_closed(theirs.as_fd()) && is_established(theirs.as_fd()));
        drop(ours);
        assert!(has_peer_closed(theirs.as_fd()) && !is_established(theirs.as_fd()));
    }

    #[test]
    fn an_unmapped_range_is_an_error() {
        let (left, _right) = UnixStream::pair().unwrap();
        assert_eq!(send(left.as_fd(), &[Range::new(8, 64)]), Err(Errno::FAULT));
    }
}
