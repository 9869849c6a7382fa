//! The way to another process of this host: its shared tables, our pins on its regions, and the proof that the
//! kernel lets us reach its memory.

mod mapped;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::Pid;

use self::mapped::Sweeper;
pub(super) use self::mapped::Unmapped;
use super::denial::{self, Denied, call_of, is_denial};
use super::descriptors;
use super::foreign;
use super::hello::HelloAnswer;
use super::identity::{Identity, random};
use super::life_word;
use super::link_messages::{LinkReply, LinkRequest, QueuePairNotice, REQUEST_SIZE};
use super::mapping::SharedArray;
use super::mappings::Mappings;
use super::questions::{Questions, Resolved};
use super::socket::{Range, peer_pid, peer_user};
use super::table::{
    QUEUE_PAIR_ENTRIES, QUEUE_PAIR_SLOTS, QueuePairEntry, REGION_SLOTS, RegionEntry, RegionView,
};
use crate::events::{Interest, Waiter};
use crate::fabric::{Opcode, PathKind, Paths};
use crate::fork::OwnSocket;
use crate::process::PeerProcess;
use crate::sync::SequentialU32;

/// Another process of this host, as far as one of our devices reaches one of its devices.
#[derive(Debug)]
pub(super) struct Link {
    listener: SocketAddr,
    incarnation: u64,
    process: Arc<PeerProcess>,
    /// While it is open, our pins count there.
    socket: OwnSocket<OwnedFd>,
    /// What it has announced.
    regions: SharedArray<RegionEntry>,
    /// What it shows to us alone, for we have named its key.
    granted: SharedArray<RegionEntry>,
    questions: Questions,
    queue_pairs: SharedArray<QueuePairEntry>,
    pins: SharedArray<SequentialU32>,
    denied: Denied,
    /// Whether its process has the user of this one.
    is_same_user: bool,
    mappings: Mappings,
    sweeper: Sweeper,
}

impl Link {
    /// Gets the tables and proves the way; an error says, in words for an operator, why there is none.
    pub(super) async fn establish(
        listener: SocketAddr,
        answer: &HelloAnswer,
        deadline: Instant,
        waiter: &Waiter,
    ) -> Result<Self, String> {
        if !Identity::own().may_share_host(&answer.identity) {
            return Err("it runs on another host".to_owned());
        }
        let name = answer.name.get().ok_or("it offers no Unix socket")?;
        let failed = |what: &'static str| move |errno: Errno| format!("{what}: {errno}");
        let socket = dial(name, deadline, waiter)
            .await
            .map_err(failed("its Unix socket cannot be reached (another network namespace?)"))?;
        let pid = peer_pid(&socket).ok_or("its process is not visible here (another pid namespace)")?;
        let is_same_user = peer_user(&socket) == Some(rustix::process::geteuid().as_raw());
        // Before the request: the answer to it shows that the process that listens, which has this number, was there after.
        let process = PeerProcess::of_pid(pid).map_err(|error| {
            if Errno::from_io_error(&error).is_some_and(is_denial) {
                denial::tell("pidfd_open", &error.to_string(), "peers of this host are reached over TCP");
            }
            format!("pidfd_open: {error}")
        })?;
        let (pins, pins_file) = SharedArray::published("flagcx-p2p-pins", REGION_SLOTS)
            .map_err(|error| format!("no shared memory for pins: {error}"))?;
        descriptors::send(&socket, &LinkRequest { token: answer.token }.encode(), &[pins_file.as_fd()])
            .map_err(failed("it does not take the request for its tables"))?;
        let (reply, [regions, queue_pairs, granted]) = receive_tables(&socket, deadline, waiter)
            .await
            .map_err(failed("it does not give its tables out"))?;
        let reply = LinkReply::decode(&reply).ok_or("its tables have another layout")?;
        let unusable = |error| format!("its tables cannot be used: {error}");
        let link = Self {
            listener,
            incarnation: answer.identity.incarnation,
            process,
            socket,
            regions: SharedArray::open(regions.as_fd(), REGION_SLOTS).map_err(unusable)?,
            granted: SharedArray::open(granted.as_fd(), REGION_SLOTS).map_err(unusable)?,
            questions: Questions::default(),
            queue_pairs: SharedArray::open(queue_pairs.as_fd(), QUEUE_PAIR_ENTRIES).map_err(unusable)?,
            pins,
            denied: Denied::default(),
            is_same_user,
            mappings: Mappings::new()
                .map_err(|error| format!("no memory for the mappings of regions: {error}"))?,
            sweeper: Sweeper::default(),
        };
        link.prove(answer, reply.entries)?;
        Ok(link)
    }

    /// Whether it leads to the device that answered so, and that can be asked by it.
    pub(super) fn leads_to(&self, listener: SocketAddr, answer: &HelloAnswer) -> bool {
        self.listener == listener
            && self.incarnation == answer.identity.incarnation
            && !self.questions.is_broken()
            && self.is_alive()
    }

    pub(super) fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub(super) fn process(&self) -> &PeerProcess {
        &self.process
    }

    /// Its announced regions, with our pins.
    pub(super) fn view(&self) -> RegionView<'_> {
        RegionView { entries: &self.regions, pins: &self.pins }
    }

    /// Those of its other regions that it was asked for.
    pub(super) fn granted(&self) -> RegionView<'_> {
        RegionView { entries: &self.granted, pins: &self.pins }
    }

    /// Asks for a region that is in neither of them. Called again, it says what has become of it.
    pub(super) fn resolve(&self, key: u32) -> Resolved {
        self.questions.resolve(&self.socket, key, Instant::now())
    }

    /// Tells it of a queue pair. One that does not take it, for its socket is full or closed, sees in the table that the queue
    /// pair is gone.
    pub(super) fn tell(&self, notice: QueuePairNotice) {
        if let Err(errno) = descriptors::send(&self.socket, &notice.encode(), &[]) {
            tracing::debug!(%errno, ?notice, "the peer cannot be told of a queue pair");
        }
    }

    pub(super) fn queue_pair(&self, slot: usize) -> Option<&QueuePairEntry> {
        self.queue_pairs.get(slot).filter(|_| slot < QUEUE_PAIR_SLOTS)
    }

    /// False once the process has ended. Asked before every batch: a process number may be used again.
    pub(super) fn is_alive(&self) -> bool {
        let owner = self.queue_pairs.get(QUEUE_PAIR_SLOTS);
        let shown = owner.and_then(|entry| life_word::lives(entry.life_word()));
        shown.unwrap_or_else(|| self.process.is_alive())
    }

    /// The directions that the kernel denies, so far.
    pub(super) fn denied(&self) -> &Denied {
        &self.denied
    }

    /// How requests between the two travel now.
    pub(super) fn paths(&self) -> Paths {
        let path = |opcode| match self.denied.is_denied(opcode) {
            true => PathKind::Tcp,
            false => PathKind::CrossMemory,
        };
        Paths { read: path(Opcode::Read), write: path(Opcode::Write) }
    }

    /// The kernel denies a direction, for `reason`: from now on it takes TCP.
    pub(super) fn deny(&self, opcode: Opcode, reason: &str) {
        self.denied.deny(opcode);
        let requests = if opcode == Opcode::Read { "READs" } else { "WRITEs" };
        denial::tell(call_of(opcode), reason, &format!("{requests} between processes of this host use TCP"));
    }

    /// Moves random bytes in either direction by the calls that transfers will use, and notes what is denied. An error says that
    /// this is another process.
    fn prove(&self, answer: &HelloAnswer, entries: u64) -> Result<(), String> {
        match (self.prove_read(answer)?, self.prove_write(answer, entries)?) {
            (None, None) => Ok(()),
            (Some(read), Some(write)) => {
                [Opcode::Read, Opcode::Write].into_iter().for_each(|opcode| self.denied.deny(opcode));
                let consequence = "processes of this host use TCP, but for shared memory";
                denial::tell("process_vm_readv/writev", &reason_of_both(&read, &write), consequence);
                Ok(())
            }
            (Some(reason), None) => {
                self.deny(Opcode::Read, &reason);
                Ok(())
            }
            (None, Some(reason)) => {
                self.deny(Opcode::Write, &reason);
                Ok(())
            }
        }
    }

    /// Reads random bytes where the peer said that they lie in its memory. `Some`: why that is denied.
    fn prove_read(&self, answer: &HelloAnswer) -> Result<Option<String>, String> {
        let mut seen = [0; 16];
        let from = Range::new(answer.identity.probe_address, 16);
        match foreign::read(self.pid(), &[from], &mut seen) {
            Ok(16) if seen == answer.identity.probe => Ok(None),
            Ok(0) => Ok(Some(NO_BYTES.to_owned())),
            Err(errno) if is_denial(errno) => Ok(Some(errno.to_string())),
            Ok(_) | Err(_) => Err(format!("process {} is not the one that answered", self.pid())),
        }
    }

    /// Writes a random number to where the entry of the target queue pair lies in the peer's memory, and looks for it by our own
    /// mapping of it. `Some`: why that is denied.
    fn prove_write(&self, answer: &HelloAnswer, entries: u64) -> Result<Option<String>, String> {
        let slot = answer.slot as usize;
        let entry = self.queue_pair(slot).ok_or("its answer names no queue pair of its table")?;
        let number = u64::from_ne_bytes(random()) | 1;
        let to = Range::new(QueuePairEntry::proof_address(entries, slot), 8);
        match foreign::write(self.pid(), &number.to_ne_bytes(), &[to]) {
            Ok(8) if entry.proof() == number => Ok(None),
            Ok(0) => Ok(Some(NO_BYTES.to_owned())),
            Err(errno) if is_denial(errno) => Ok(Some(errno.to_string())),
            Ok(_) | Err(_) => Err(format!("what is written to process {} does not arrive", self.pid())),
        }
    }
}

fn reason_of_both(read: &str, write: &str) -> String {
    match read == write {
        true => read.to_owned(),
        false => format!("process_vm_readv: {read}, process_vm_writev: {write}"),
    }
}

const NO_BYTES: &str = "it moves no bytes";

async fn dial(name: &[u8], deadline: Instant, waiter: &Waiter) -> Result<OwnSocket<OwnedFd>, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = OwnSocket::new(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?);
    let address = SocketAddrUnix::new_abstract_name(name)?;
    loop {
        match retry_on_intr(|| connect(&*socket, &address)) {
            // An interrupted one had done it.
            Err(Errno::ISCONN) => return Ok(socket),
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
) -> Result<([u8; REQUEST_SIZE], [OwnedFd; 3]), Errno> {
    loop {
        match descriptors::receive(socket, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => {
                let ready = waiter.ready(socket.as_fd(), Interest::Read, Some(deadline)).await;
                ready.map_err(|error| errno_of(&error))?;
            }
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
