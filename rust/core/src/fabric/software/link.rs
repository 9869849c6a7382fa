//! The way to another process of this host: its shared tables, our pins on its regions, and the proof that the
//! kernel lets us reach its memory.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Pid;

use super::foreign;
use super::hello::{Answer, VERSION};
use super::mapping::SharedArray;
use super::socket::{Range, peer_pid};
use super::table::{QUEUE_PAIR_SLOTS, QueuePairEntry, REGION_SLOTS, RegionEntry, RegionView};
use super::{descriptors, identity::Identity};
use crate::events::{Interest, Waiter};
use crate::process::PeerProcess;
use std::sync::atomic::AtomicU32;

const MAGIC: [u8; 8] = *b"FCXP2Ptb";
/// Size of a [`LinkRequest`] on the wire.
pub(super) const REQUEST_SIZE: usize = 24;
const REPLY_SIZE: usize = 16;

/// Asks for the tables; comes with the descriptor of the asker's pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkRequest {
    /// From the hello's answer: proves that the asker has been welcomed.
    pub(super) token: u64,
}

impl LinkRequest {
    pub(super) fn encode(self) -> [u8; REQUEST_SIZE] {
        let mut bytes = [0; REQUEST_SIZE];
        let (head, tail) = bytes.split_at_mut(REPLY_SIZE);
        head.copy_from_slice(&LinkReply.encode());
        tail.copy_from_slice(&self.token.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk()?;
        LinkReply::decode(head)?;
        Some(Self { token: u64::from_le_bytes(tail.try_into().ok()?) })
    }
}

/// Comes with the descriptors of the region table and of the queue pair table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkReply;

impl LinkReply {
    pub(super) fn encode(self) -> [u8; REPLY_SIZE] {
        let mut bytes = [0; REPLY_SIZE];
        let (head, tail) = bytes.split_at_mut(MAGIC.len());
        head.copy_from_slice(&MAGIC);
        tail.copy_from_slice(&u64::from(VERSION).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; REPLY_SIZE]) -> Option<Self> {
        (*bytes == Self.encode()).then_some(Self)
    }
}

/// Another process of this host, as far as one of our devices reaches one of its devices.
#[derive(Debug)]
pub(super) struct Link {
    listener: SocketAddr,
    incarnation: u64,
    process: Arc<PeerProcess>,
    /// While it is open, our pins count there.
    _socket: OwnedFd,
    regions: SharedArray<RegionEntry>,
    queue_pairs: SharedArray<QueuePairEntry>,
    pins: SharedArray<AtomicU32>,
}

impl Link {
    /// Gets the tables and proves the way; an error says, in words for an operator, why there is none.
    pub(super) async fn establish(
        listener: SocketAddr,
        answer: &Answer,
        deadline: Instant,
        waiter: &Waiter,
    ) -> Result<Self, String> {
        if !Identity::own().shares_host(&answer.identity) {
            return Err("it runs on another host".to_owned());
        }
        let name = answer.name.get().ok_or("it offers no Unix socket")?;
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        let socket = dial(name, deadline, waiter)
            .await
            .map_err(failed("its Unix socket cannot be reached (another network namespace?)"))?;
        let (pins, pins_file) = SharedArray::published("flagcx-p2p-pins", REGION_SLOTS)
            .map_err(|error| format!("no shared memory for pins: {error}"))?;
        descriptors::send(&socket, &LinkRequest { token: answer.token }.encode(), &[pins_file.as_fd()])
            .map_err(failed("it does not take the request for its tables"))?;
        let (reply, [regions, queue_pairs]) = receive_tables(&socket, deadline, waiter)
            .await
            .map_err(failed("it does not give its tables out"))?;
        LinkReply::decode(&reply).ok_or("its tables have another layout")?;
        let unusable = |error| format!("its tables cannot be used: {error}");
        let pid = peer_pid(&socket).ok_or("its process is not visible here (another pid namespace)")?;
        let link = Self {
            listener,
            incarnation: answer.identity.incarnation,
            process: PeerProcess::of_pid(pid).map_err(|error| format!("pidfd_open: {error}"))?,
            _socket: socket,
            regions: SharedArray::open(regions.as_fd(), REGION_SLOTS).map_err(unusable)?,
            queue_pairs: SharedArray::open(queue_pairs.as_fd(), QUEUE_PAIR_SLOTS).map_err(unusable)?,
            pins,
        };
        link.prove(answer)?;
        Ok(link)
    }

    /// Whether it leads to the device that answered so.
    pub(super) fn leads_to(&self, listener: SocketAddr, answer: &Answer) -> bool {
        self.listener == listener && self.incarnation == answer.identity.incarnation && self.is_alive()
    }

    pub(super) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(super) fn process(&self) -> &PeerProcess {
        &self.process
    }

    /// Its regions, with our pins.
    pub(super) fn view(&self) -> RegionView<'_> {
        RegionView { entries: &self.regions, pins: &self.pins }
    }

    pub(super) fn queue_pair(&self, slot: usize) -> Option<&QueuePairEntry> {
        self.queue_pairs.get(slot)
    }

    /// False once the process has ended. Asked before every batch: a process number may be used again.
    pub(super) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Reads random bytes where the peer said that they lie in its memory.
    fn prove(&self, answer: &Answer) -> Result<(), String> {
        let mut seen = [0; 16];
        let from = Range::new(answer.identity.probe_address, 16);
        match foreign::read(self.pid(), &[from], &mut seen) {
            Ok(16) if seen == answer.identity.probe => Ok(()),
            Ok(_) => Err(format!("process {} is not the one that answered", self.pid())),
            Err(errno) => Err(format!(
                "the kernel refuses access to process {}: {errno} (needs the same user, ptrace rights - see \
                 kernel.yama.ptrace_scope - and a container that allows process_vm_readv)",
                self.pid()
            )),
        }
    }
}

async fn dial(name: &[u8], deadline: Instant, waiter: &Waiter) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let address = SocketAddrUnix::new_abstract_name(name)?;
    loop {
        match connect(&socket, &address) {
            // Its backlog is full, and nothing tells when it is not any more.
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                waiter.pause(BACKLOG_PAUSE).await.map_err(|error| errno_of(&error))?;
            }
            Err(Errno::AGAIN) => return Err(Errno::TIMEDOUT),
            other => return other.map(|()| socket),
        }
    }
}

async fn receive_tables(
    socket: &OwnedFd,
    deadline: Instant,
    waiter: &Waiter,
) -> Result<([u8; REPLY_SIZE], [OwnedFd; 2]), Errno> {
    loop {
        match descriptors::receive(socket, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => {
                let ready = waiter.ready(socket.as_fd(), Interest::Read, Some(deadline)).await;
                ready.map_err(|error| errno_of(&error))?;
            }
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    match error.kind() {
        io::ErrorKind::TimedOut => Errno::TIMEDOUT,
        _ => Errno::from_io_error(error).unwrap_or(Errno::CANCELED),
    }
}

/// Longer than a loop that is not busy takes to accept.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn requests_survive_the_wire(token: u64) {
            let request = LinkRequest { token };
            prop_assert_eq!(LinkRequest::decode(&request.encode()), Some(request));
        }

        #[test]
        fn other_bytes_are_refused(bytes: [u8; REQUEST_SIZE]) {
            prop_assert_eq!(LinkRequest::decode(&bytes), None);
        }
    }
}
