//! Gives out the shared tables to peers of the same host, and keeps their pins.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use super::accept::HELLO_LIMIT;
use crate::fabric::software::descriptors;
use crate::fabric::software::device::Core;
use crate::fabric::software::hello::SocketName;
use crate::fabric::software::identity::random;
use crate::fabric::software::link::{LinkReply, LinkRequest, REQUEST_SIZE};
use crate::fabric::software::region::PeerPins;
use crate::fabric::software::socket::peer_pid;
use crate::fabric::software::tcp::server::Wish;
use crate::fork::OwnSocket;
use crate::process::PeerProcess;

/// The abstract Unix socket where peers ask.
#[derive(Debug)]
pub(super) struct TableListener {
    socket: OwnSocket<OwnedFd>,
    name: SocketName,
}

impl TableListener {
    pub(super) fn bind(core: &Core) -> Result<Self, Errno> {
        let text = format!("flagcx-p2p/{}/{:032x}", core.name(), u128::from_ne_bytes(random()));
        let name = SocketName::new(&text).ok_or(Errno::NAMETOOLONG)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = OwnSocket::new(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?);
        bind(&*socket, &SocketAddrUnix::new_abstract_name(text.as_bytes())?)?;
        listen(&*socket, 128)?;
        Ok(Self { socket, name })
    }

    pub(super) fn name(&self) -> SocketName {
        self.name
    }

    /// `EAGAIN`: no peer waits.
    pub(super) fn accept(&self) -> Result<TableKeeper, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = OwnSocket::new(retry_on_intr(|| accept_with(&*self.socket, flags))?);
        let pid = peer_pid(&socket);
        Ok(TableKeeper {
            socket,
            pid: pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs()),
            process: pid.and_then(|pid| PeerProcess::of_pid(pid).ok()),
            pins: None,
            deadline: Instant::now() + HELLO_LIMIT,
        })
    }
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
    socket: OwnSocket<OwnedFd>,
    pid: u32,
    process: Option<Arc<PeerProcess>>,
    pins: Option<Arc<PeerPins>>,
    deadline: Instant,
}

impl TableKeeper {
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn process(&self) -> Option<&PeerProcess> {
        self.process.as_deref()
    }

    /// By when it must have said what it wants; `None` once it has.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pins.is_none().then_some(self.deadline)
    }

    pub(super) fn serve(&mut self, core: &Core) -> Wish {
        if self.process().is_some_and(|process| !process.is_alive()) {
            return Wish::Close;
        }
        match self.take_request(core) {
            Ok(()) | Err(Errno::AGAIN)
                if self.deadline().is_none_or(|deadline| Instant::now() < deadline) =>
            {
                Wish::Read
            }
            _ => Wish::Close,
        }
    }

    /// What it has pinned counts no more.
    pub(super) fn close(self, core: &Core) {
        if let Some(pins) = self.pins {
            core.regions.remove_peer(&pins);
        }
    }

    fn take_request(&mut self, core: &Core) -> Result<(), Errno> {
        let (bytes, [pins]) = descriptors::receive::<REQUEST_SIZE, 1>(&self.socket, RecvFlags::DONTWAIT)?;
        let request = LinkRequest::decode(&bytes).ok_or(Errno::PROTO)?;
        if self.pins.is_some() || request.token != core.token() {
            return Err(Errno::PROTO);
        }
        let pins = core.regions.add_peer(self.pid, pins.as_fd()).map_err(|_| Errno::PROTO)?;
        self.pins = Some(pins);
        let reply = LinkReply { entries: core.entries_address() }.encode();
        descriptors::send(&self.socket, &reply, &core.table_files().ok_or(Errno::PROTO)?)
    }
}
