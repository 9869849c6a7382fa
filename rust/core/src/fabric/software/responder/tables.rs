//! Gives out the shared tables to peers of the same host, and keeps their pins.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use crate::admission::{Permit, Source};
use crate::fabric::QpAddress;
use crate::fabric::software::descriptors;
use crate::fabric::software::device_core::Core;
use crate::fabric::software::endpoint::{Endpoint, listener_of};
use crate::fabric::software::hello::SocketName;
use crate::fabric::software::identity::random;
use crate::fabric::software::link_messages::{
    FileAnswer, FileReply, FileRequest, KeyReply, KeyRequest, LinkReply, LinkRequest, QueuePairEvent,
    QueuePairNotice, REQUEST_SIZE,
};
use crate::fabric::software::pins::PeerPins;
use crate::fabric::software::socket::{peer_pid, peer_user};
use crate::fabric::software::tcp::server::WaitsFor;
use crate::fabric::software::wrong_keys::PeerRecord;
use crate::fork::OwnSocket;
use crate::process::PeerProcess;

/// The abstract Unix socket where peers ask.
#[derive(Debug)]
pub(super) struct TableListener {
    socket: OwnSocket<OwnedFd>,
    name: SocketName,
    /// Whether it was said that another user is refused. One thread at a time uses it: Relaxed.
    has_refused: AtomicBool,
}

impl TableListener {
    pub(super) fn bind(core: &Core) -> Result<Self, Errno> {
        let text = format!("flagcx-p2p/{}/{:032x}", core.name(), u128::from_ne_bytes(random()));
        let name = SocketName::new(&text).ok_or(Errno::NAMETOOLONG)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = OwnSocket::new(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?);
        bind(&*socket, &SocketAddrUnix::new_abstract_name(text.as_bytes())?)?;
        listen(&*socket, 128)?;
        Ok(Self { socket, name, has_refused: AtomicBool::new(false) })
    }

    pub(super) fn name(&self) -> SocketName {
        self.name
    }

    /// A client, which must say what it wants by `deadline`. `EAGAIN`: no peer waits. `None`: one was refused, for its user may
    /// not reach the memory of this process.
    pub(super) fn accept(&self, permit: Permit, deadline: Instant) -> Result<Option<TableKeeper>, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = OwnSocket::new(retry_on_intr(|| accept_with(&*self.socket, flags))?);
        let user = peer_user(&socket);
        if !user.is_some_and(is_permitted) {
            if !self.has_refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    user = user.unwrap_or(u32::MAX),
                    "another user of this host was refused at the Unix socket, as all are: only processes of this one and of \
                     root are shown the tables"
                );
            }
            return Ok(None);
        }
        permit.describe(Source::Unix, socket.as_fd());
        let pid = peer_pid(&socket);
        Ok(Some(TableKeeper {
            permit,
            socket,
            pid: pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
            process: pid.and_then(|pid| PeerProcess::of_pid(pid).ok()),
            link: None,
            deadline,
        }))
    }
}

/// Whether a process of `user` may be shown where memory of this process is. The kernel lets it access that memory only
/// if the users are the same, or it has `CAP_SYS_PTRACE`, as root has.
fn is_permitted(user: u32) -> bool {
    user == 0 || user == rustix::process::geteuid().as_raw()
}

impl AsFd for TableListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One peer process that has, or wants, the tables. Its pins count until it closes this connection or ends; a child
/// that it forked may keep the connection open for longer.
#[derive(Debug)]
pub(super) struct TableKeeper {
    /// Before the socket: it ends first.
    permit: Permit,
    socket: OwnSocket<OwnedFd>,
    pid: u32,
    process: Option<Arc<PeerProcess>>,
    link: Option<Established>,
    deadline: Instant,
}

/// What a peer that has the tables has besides.
#[derive(Debug)]
struct Established {
    pins: Arc<PeerPins>,
    peer: Peer,
    peer_record: Arc<PeerRecord>,
    /// What it asks for, and when that is looked at.
    asked: Option<(Question, Instant)>,
}

/// The device at the other end.
#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Of its process; 0: it is not visible here.
    pid: u32,
    listener: SocketAddr,
}

/// What a peer asks for after the tables.
#[derive(Clone, Copy, Debug)]
enum Question {
    /// To be shown the region of this key.
    Key(u32),
    /// The file of the region of this key.
    File(u32),
}

impl TableKeeper {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn process(&self) -> Option<&PeerProcess> {
        self.process.as_deref()
    }

    /// By when it must have said what it wants; `None` once it has.
    fn deadline(&self) -> Option<Instant> {
        self.link.is_none().then_some(self.deadline)
    }

    /// When it is to be served although it has said nothing more.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        match &self.link {
            None => Some(self.deadline),
            Some(link) => link.asked.map(|(_, turn)| turn),
        }
    }

    pub(super) fn serve(&mut self, core: &Core) -> WaitsFor {
        if self.process().is_some_and(|process| !process.is_alive()) {
            return WaitsFor::Close;
        }
        let received = match &mut self.link {
            None => self.take_request(core),
            Some(link) => link.serve(&self.socket, core),
        };
        match received {
            Ok(()) | Err(Errno::AGAIN)
                if self.deadline().is_none_or(|deadline| Instant::now() < deadline) =>
            {
                WaitsFor::Read
            }
            _ => WaitsFor::Close,
        }
    }

    /// What it has pinned counts no more.
    pub(super) fn close(self, core: &Core) {
        if let Some(link) = self.link {
            core.regions.remove_peer(&link.pins);
        }
    }

    fn take_request(&mut self, core: &Core) -> Result<(), Errno> {
        let (bytes, [pins]) = descriptors::receive::<REQUEST_SIZE, 1>(&self.socket, RecvFlags::DONTWAIT)?;
        let request = LinkRequest::decode(&bytes).ok_or(Errno::PROTO)?;
        let now = Instant::now();
        let asker = core.tokens.redeem(request.token, now).ok_or(Errno::PROTO)?;
        let (pins, grants) = core.regions.add_peer(self.pid, pins.as_fd()).map_err(|_| Errno::PROTO)?;
        let peer = Peer { pid: self.pid, listener: asker.listener };
        let peer_record = core.wrong_keys.of(asker.ip, now);
        self.link = Some(Established { pins, peer, peer_record, asked: None });
        self.permit.release();
        let reply = LinkReply { entries: core.entries_address() }.encode();
        let [regions, queue_pairs] = core.table_files().ok_or(Errno::PROTO)?;
        descriptors::send(&self.socket, &reply, &[regions, queue_pairs, grants.as_fd()])
    }
}

impl Established {
    /// Answers a question, in its turn. A peer asks for one thing at a time.
    fn serve(&mut self, socket: &OwnedFd, core: &Core) -> Result<(), Errno> {
        let now = Instant::now();
        match (descriptors::receive::<REQUEST_SIZE, 0>(socket, RecvFlags::DONTWAIT), self.asked) {
            (Ok((bytes, [])), _) if QueuePairNotice::decode(&bytes).is_some() => {
                QueuePairNotice::decode(&bytes)
                    .into_iter()
                    .for_each(|notice| self.peer.take_notice(core, notice));
            }
            (Ok((bytes, [])), None) => {
                let question = Question::decode(&bytes).ok_or(Errno::PROTO)?;
                let turn = if self.peer_record.is_limited() { self.peer_record.turn(now) } else { Some(now) };
                match turn {
                    Some(turn) => self.asked = Some((question, turn)),
                    None => return question.refuse(socket),
                }
            }
            (Err(Errno::AGAIN), Some(_)) => {}
            (Err(errno), _) => return Err(errno),
            (Ok(_), Some(_)) => return Err(Errno::PROTO),
        }
        match self.asked.take_if(|(_, turn)| now >= *turn) {
            None => Ok(()),
            Some((Question::Key(key), _)) => {
                let granted = core.regions.grant(&self.pins, key);
                if !granted {
                    self.note_if_guess(core, key);
                }
                descriptors::send(socket, &KeyReply { key, granted }.encode(), &[])
            }
            Some((Question::File(key), _)) => self.give_file(socket, core, key),
        }
    }

    /// Sends the file of a region that the peer sees.
    fn give_file(&self, socket: &OwnedFd, core: &Core, key: u32) -> Result<(), Errno> {
        let answer = |answer, files: &[BorrowedFd<'_>]| {
            descriptors::send(socket, &FileReply { key, answer }.encode(), files)
        };
        let Some(region_file) = core.regions.file_for(&self.pins, key) else {
            self.note_if_guess(core, key);
            return answer(FileAnswer::None, &[]);
        };
        let offset = region_file.offset;
        let given = region_file.for_peer().and_then(|file| {
            let kind = if region_file.is_own { FileAnswer::Own(offset) } else { FileAnswer::Foreign(offset) };
            answer(kind, &[file.as_fd()])
        });
        match given {
            // The peer is gone, or its socket full although it asks for one thing at a time.
            Err(errno @ (Errno::PIPE | Errno::CONNRESET | Errno::AGAIN)) => Err(errno),
            Err(errno) => answer(FileAnswer::Refused(errno.raw_os_error()), &[]),
            Ok(()) => Ok(()),
        }
    }

    fn note_if_guess(&self, core: &Core, key: u32) {
        if core.regions.is_guess(key) {
            core.note_wrong_key(&self.peer_record);
        }
    }
}

impl Peer {
    /// Of a queue pair that is not connected to the sender's nothing is to be told. Numbers alone do not show that: each process
    /// counts from the same one.
    fn take_notice(&self, core: &Core, notice: QueuePairNotice) {
        let concerned =
            core.queue_pair(notice.target).filter(|target| self.is_peer_of(target, notice.sender));
        match (concerned, notice.event) {
            (Some(endpoint), QueuePairEvent::Gone) => endpoint.set_peer_gone(),
            (Some(endpoint), QueuePairEvent::Violation) => core.queue_pair_fatal(&endpoint),
            (None, _) => {}
        }
    }

    /// Whether `endpoint` is connected to queue pair `sender` of this device.
    fn is_peer_of(&self, endpoint: &Endpoint, sender: u32) -> bool {
        let is_process = endpoint.peer_process().is_none_or(|pid| self.pid == 0 || self.pid == pid);
        let is_it = |peer: &QpAddress| peer.qpn == sender && listener_of(peer) == self.listener;
        is_process && endpoint.peer().is_some_and(is_it)
    }
}

impl Question {
    fn decode(bytes: &[u8; REQUEST_SIZE]) -> Option<Self> {
        let key = KeyRequest::decode(bytes).map(|request| Self::Key(request.key));
        key.or_else(|| FileRequest::decode(bytes).map(|request| Self::File(request.key)))
    }

    fn refuse(self, socket: &OwnedFd) -> Result<(), Errno> {
        let reply = match self {
            Self::Key(key) => KeyReply { key, granted: false }.encode(),
            Self::File(key) => FileReply { key, answer: FileAnswer::None }.encode(),
        };
        descriptors::send(socket, &reply, &[])
    }
}
