//! The Unix socket of a device, spoken by hand, and what it gives out.
#![allow(unreachable_pub, reason = "a module of one test program")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};

/// Regions that a table has room for, and the bytes of an entry: key, access, base, length, reserved.
const SLOTS: usize = 1 << 18;
const ENTRY: usize = 32;

/// What was given out: the region table, the queue pair table, the table of regions that were asked for.
pub struct Tables {
    pub socket: OwnedFd,
    pub files: Vec<OwnedFd>,
}

/// A connection to the socket of this abstract name.
pub fn dial(name: &[u8]) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// Shows `token` there. `None`: it closes without a word.
pub fn open(name: &[u8], token: u64) -> Option<Tables> {
    let socket = dial(name).ok()?;
    let pins = memfd_create("pins", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&pins, 4 * SLOTS as u64).unwrap();
    fcntl_add_seals(&pins, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let pins = [pins.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&pins)));
    let request = message(*b"FCXP2Ptb", token);
    // It may have closed already.
    sendmsg(&socket, &[IoSlice::new(&request)], &mut ancillary, SendFlags::NOSIGNAL).ok()?;
    let (bytes, files) = receive(&socket)?;
    assert_eq!(bytes[..16], request[..16]);
    Some(Tables { socket, files })
}

impl Tables {
    /// Asks for a region by its key. `None`: it closes.
    pub fn ask(&self, key: u32) -> Option<bool> {
        let request = message(*b"FCXP2Pky", key.into());
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(&self.socket, &[IoSlice::new(&request)], &mut nothing, SendFlags::NOSIGNAL).ok()?;
        let (bytes, _) = receive(&self.socket)?;
        assert_eq!(bytes[16..20], key.to_le_bytes());
        Some(bytes[20] == 1)
    }

    /// Asks for the file of a region by its key: what kind it is said to be, 0 for none, and the descriptors. `None`: it closes.
    pub fn ask_for_file(&self, key: u32) -> Option<(u8, usize)> {
        let request = message(*b"FCXP2Pfi", key.into());
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(&self.socket, &[IoSlice::new(&request)], &mut nothing, SendFlags::NOSIGNAL).ok()?;
        let (bytes, files) = receive(&self.socket)?;
        assert_eq!(bytes[16..20], key.to_le_bytes());
        Some((bytes[20], files.len()))
    }

    /// Tells that something has happened to its queue pair `sender`, which is connected to `target`.
    pub fn tell(&self, event: u64, sender: u32, target: u32) {
        let mut notice = message(*b"FCXP2Pqp", u64::from(sender) | u64::from(target) << 32);
        notice[24..].copy_from_slice(&event.to_le_bytes());
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(&self.socket, &[IoSlice::new(&notice)], &mut nothing, SendFlags::NOSIGNAL).unwrap();
    }

    /// The key and the first address of every region in one of the tables.
    pub fn regions(&self, table: usize) -> Vec<(u32, u64)> {
        let file = std::fs::File::from(self.files[table].try_clone().unwrap());
        let mut bytes = vec![0; SLOTS * ENTRY];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let entries = bytes.chunks_exact(ENTRY).map(|entry| {
            let key = u32::from_le_bytes(entry[..4].try_into().unwrap());
            (key, u64::from_le_bytes(entry[8..16].try_into().unwrap()))
        });
        entries.filter(|(key, base)| *key != 0 || *base != 0).collect()
    }
}

fn message(kind: [u8; 8], number: u64) -> [u8; 32] {
    let version = u64::from(crate::wire::DATA_VERSION);
    [kind, version.to_le_bytes(), number.to_le_bytes(), [0; 8]].concat().try_into().unwrap()
}

/// The next message, with its descriptors; `None` at the end.
fn receive(socket: &OwnedFd) -> Option<([u8; 32], Vec<OwnedFd>)> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let patience = Timespec::try_from(Duration::from_secs(10)).unwrap();
    assert_eq!(poll(&mut fds, Some(&patience)), Ok(1), "neither an answer nor the end");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 32];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).ok()?;
    let files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let files = files.flatten().collect();
    (received.bytes == 32).then_some((bytes, files))
}
