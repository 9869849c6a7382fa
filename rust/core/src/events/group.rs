//! A set of descriptors that one task waits for.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::{EventLoopHandle, Watched};

/// Ready descriptors that one call returns; the next call returns others.
const EVENTS: usize = 64;

/// Any number of descriptors, each under a number of its own, that the loop watches as one. Level-triggered. A descriptor
/// must be removed before it is closed: a child that the process has forked may hold another copy of it, which would stay
/// in the group and be readable for ever.
#[derive(Debug)]
pub(crate) struct SocketGroup(Arc<OwnedFd>);

impl SocketGroup {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?)))
    }

    /// Waits for `fd` to become readable from now on.
    pub(crate) fn add(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        Ok(epoll::add(&*self.0, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?)
    }

    /// Stops to wait for `fd`.
    pub(crate) fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&*self.0, fd)?)
    }

    /// Readable when one of the group is. Needs no descriptor more: a program may have none left.
    pub(crate) fn watch(&self, handle: &EventLoopHandle) -> io::Result<Watched<Arc<OwnedFd>>> {
        handle.watch(Arc::clone(&self.0))
    }

    /// The numbers of those that are readable, at their end, or in error. Never waits.
    pub(crate) fn ready(&self) -> Vec<u64> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        loop {
            match epoll::wait(&*self.0, &mut room, Some(&Timespec::default())) {
                Ok((events, _)) => return events.iter().map(|event| event.data.u64()).collect(),
                Err(Errno::INTR) => {}
                // Errors are found by the next call.
                Err(_) => return Vec::new(),
            }
        }
    }
}

impl AsFd for SocketGroup {
    /// Readable when one of the group is.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
