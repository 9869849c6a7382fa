//! Sending from and receiving into memory by address, without blocking.
#![allow(unsafe_code, reason = "system calls that take addresses")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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

/// Receives up to `length` bytes to `address`; 0 means that the peer has closed.
///
/// # Safety
/// The range is writable memory of which the caller may change every byte, until the call returns.
pub(super) unsafe fn receive(socket: BorrowedFd<'_>, address: u64, length: u64) -> Result<usize, Errno> {
    retry_on_intr(|| {
        // SAFETY: writable by the caller's promise.
        let received = unsafe {
            libc::recv(socket.as_raw_fd(), address as *mut libc::c_void, length as usize, libc::MSG_DONTWAIT)
        };
        usize::try_from(received).map_err(|_| last_errno())
    })
}

/// The process at the other end of a Unix socket (of the listening side: who called `listen`), as a number of this
/// process's own pid namespace; `None` when it is not visible in it.
pub(super) fn peer_pid(socket: impl AsFd) -> Option<Pid> {
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
    // 0 stands for a process of another namespace.
    Pid::from_raw(credentials.pid).filter(|_| answer == 0)
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

    /// Up to `limit` bytes of what is there.
    pub(super) fn take_up_to(&mut self, limit: u64) -> &[u8] {
        let length = (self.end - self.start).min(usize::try_from(limit).unwrap_or(usize::MAX));
        let start = self.start;
        self.start += length;
        self.bytes.get(start..start + length).unwrap_or(&[])
    }

    /// Receives once; 0 means that the peer has closed.
    pub(super) fn fill(&mut self, socket: impl AsFd) -> Result<usize, Errno> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let free = self.bytes.get_mut(self.end..).filter(|free| !free.is_empty()).ok_or(Errno::NOBUFS)?;
        let (received, _) = retry_on_intr(|| rustix::net::recv(&socket, &mut *free, RecvFlags::DONTWAIT))?;
        self.end += received;
        Ok(received)
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
        assert_eq!(buffer.take_up_to(3), b"efg");
        assert_eq!(buffer.take_up_to(3), b"h");
        assert!(buffer.is_empty());
        assert_eq!(buffer.fill(&right), Err(Errno::AGAIN));
        drop(left);
        assert_eq!(buffer.fill(&right), Ok(0));
    }

    #[test]
    fn piece_by_piece_the_first_that_is_not_empty_is_sent() {
        let (left, right) = UnixStream::pair().unwrap();
        let ranges = [Range::of(b""), Range::of(b"abc"), Range::of(b"defgh")];
        assert_eq!(send_first(left.as_fd(), &ranges, libc::MSG_NOSIGNAL), Ok(3));
        let mut buffer = ReceiveBuffer::new(6);
        assert_eq!(buffer.fill(&right), Ok(3));
        assert_eq!(buffer.take::<3>(), Some(*b"abc"));
        assert_eq!(send_first(left.as_fd(), &[Range::default()], libc::MSG_NOSIGNAL), Ok(0));
    }

    #[test]
    fn an_unmapped_range_is_an_error() {
        let (left, _right) = UnixStream::pair().unwrap();
        assert_eq!(send(left.as_fd(), &[Range::new(8, 64)]), Err(Errno::FAULT));
    }
}
