//! Messages with file descriptors over a Unix socket that keeps message boundaries.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::denial::{is_denial, tell};

/// Descriptors in one message at most.
pub(super) const MAX_DESCRIPTORS: usize = 3;

/// Sends `bytes` and `descriptors` as one message.
pub(super) fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    let message = [IoSlice::new(bytes)];
    let sent = retry_on_intr(|| sendmsg(&socket, &message, &mut ancillary, SendFlags::NOSIGNAL))
        .inspect_err(|errno| note_denial("sendmsg", *errno))?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
}

/// Receives one message of exactly `N` bytes and `D` descriptors; `EPROTO` for anything else.
pub(super) fn receive<const N: usize, const D: usize>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> Result<([u8; N], [OwnedFd; D]), Errno> {
    let (bytes, descriptors) = receive_any::<N>(socket, flags)?;
    Ok((bytes, descriptors.try_into().map_err(|_| Errno::PROTO)?))
}

/// Receives one message of exactly `N` bytes, `EPROTO` otherwise, with its descriptors, of which none arrives where this process has
/// no room for it.
pub(super) fn receive_any<const N: usize>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> Result<([u8; N], Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; N];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let message =
        retry_on_intr(|| recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags))
            .inspect_err(|errno| note_denial("recvmsg", *errno))?;
    let descriptors: Vec<_> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    if message.bytes != N {
        return Err(Errno::PROTO);
    }
    Ok((bytes, descriptors))
}

fn note_denial(call: &'static str, errno: Errno) {
    if is_denial(errno) {
        tell(call, &errno.to_string(), "processes of this host use TCP");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn descriptors_arrive_and_refer_to_the_same_file() {
        let (left, right) = pair();
        let file = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 123).unwrap();
        send(&left, b"hello", &[file.as_fd(), left.as_fd()]).unwrap();
        let (bytes, [received, _]) = receive::<5, 2>(&right, RecvFlags::empty()).unwrap();
        assert_eq!(&bytes, b"hello");
        assert_eq!(rustix::fs::fstat(received).unwrap().st_size, 123);
    }

    #[test]
    fn a_message_of_another_shape_is_refused() {
        let (left, right) = pair();
        send(&left, b"hello", &[left.as_fd()]).unwrap();
        assert_eq!(receive::<4, 2>(&right, RecvFlags::empty()).unwrap_err(), Errno::PROTO);
        send(&left, b"hi", &[left.as_fd()]).unwrap();
        assert_eq!(receive::<5, 1>(&right, RecvFlags::empty()).unwrap_err(), Errno::PROTO);
        assert_eq!(receive::<5, 1>(&right, RecvFlags::DONTWAIT).unwrap_err(), Errno::AGAIN);
        drop(left);
        assert_eq!(receive::<5, 1>(&right, RecvFlags::empty()).unwrap_err(), Errno::PROTO);
    }
}
