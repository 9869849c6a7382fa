//! The route of a transfer: the lanes to the peer, or lanes over copy streams of a GPU. Every entry point decides here.
//!
//! Copy streams carry what lies in GPU memory at either end if both ends are in one process, or if the caller brings what
//! the peer, on the same host, tells of its GPU memory. The lanes to the peer carry the rest: host memory, and GPU memory that a NIC
//! has registered. What neither can carry is refused: [`crate::transfer::Scope`].

use std::time::Duration;

use super::Connection;
use super::gpu_transfer::RemoteEnd;
use super::submit::WhenFull;
use crate::fabric::{PathKind, Paths, Provider};
use crate::gpu::IpcInfo;
use crate::memory::has_gpu_regions;
use crate::transfer::{IovSource, Opcode, Outcome, Status, SubmitError, TransferId};

/// A transfer as its caller asks for it.
#[derive(Debug)]
pub struct Request<'a, S: IovSource + ?Sized> {
    /// READ or WRITE.
    pub opcode: Opcode,
    /// What to move: at least one piece.
    pub iovs: &'a S,
    /// What the caller knows of the peer's memory.
    pub remote: Remote<'a>,
    /// What to do when there is no room for the transfer now.
    pub when_full: WhenFull,
    /// Between host memory of this process the transfer is to have ended well when the call returns, and is
    /// [`TransferId::COMPLETE`]: what callers of the C interface rely on.
    pub at_once: bool,
}

/// What a caller knows of the peer's memory.
#[derive(Clone, Copy, Debug, Default)]
pub enum Remote<'a> {
    /// The descriptors of the iovs say it all.
    #[default]
    Described,
    /// The peer's memory is GPU memory, and the peer has told this of it: one record for each iov, `None` for one that names
    /// no GPU memory. Of use if the peer is another process of this host; ignored otherwise.
    Ipc(&'a [Option<IpcInfo>]),
}

/// Where a connection leads, as far as routes depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Both ends are in this process, so that the peer's addresses are ours.
    in_process: bool,
    /// The peer is another process of this host.
    same_host: bool,
    /// GPU memory that is registered has keys that the lanes can use.
    pub(super) lanes_carry_gpu: bool,
}

impl Reach {
    pub(super) fn new(says_same_process: bool, is_local: bool, paths: Paths, provider: Provider) -> Self {
        Self {
            in_process: says_same_process || paths == Paths::both(PathKind::InProcess),
            same_host: is_local && !says_same_process,
            lanes_carry_gpu: provider != Provider::Software,
        }
    }
}

impl Connection {
    /// Starts a transfer. Everything is validated before anything is posted, and the call waits for no completions unless that
    /// is asked for ([`Request::at_once`]).
    ///
    /// When the waiting queues are full, or [`MOST_TRANSFERS`](crate::transfer::MOST_TRANSFERS) ids are in use, the call
    /// does what `when_full` says; it waits at most for the transfer time-out. A transfer keeps its id until its end has
    /// been asked for, so a program that starts more and asks about none waits for itself: the call then ends with
    /// [`SubmitError::NoId`]. A transfer that would go over several lanes and may not wait goes over one when their workers
    /// have no room for all of it. Any thread may call it.
    #[inline]
    pub fn start<S: IovSource + ?Sized>(&self, request: &Request<'_, S>) -> Result<TransferId, SubmitError> {
        if request.iovs.len() == 1
            && matches!(request.remote, Remote::Described)
            && !(request.at_once && self.peer.same_process)
            && let Some(piece) = request.iovs.piece(0)
            && let Some(id) = self.try_one(request.opcode, &piece)
        {
            return Ok(id);
        }
        self.route(request)
    }

    /// [`Connection::start`] of a transfer that may wait for room, between ends that descriptors say all of.
    #[inline]
    pub fn submit<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S) -> Result<TransferId, SubmitError> {
        self.start(&Request {
            opcode,
            iovs,
            remote: Remote::Described,
            when_full: WhenFull::Wait,
            at_once: false,
        })
    }

    /// [`Connection::submit`] that answers [`SubmitError::WouldBlock`] instead of waiting for room.
    pub fn try_submit<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<TransferId, SubmitError> {
        self.start(&Request {
            opcode,
            iovs,
            remote: Remote::Described,
            when_full: WhenFull::Refuse,
            at_once: false,
        })
    }

    /// A transfer that is over when this returns.
    pub fn submit_and_wait<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<(), SubmitError> {
        self.wait_for(self.submit(opcode, iovs)?)
    }

    /// Decides who carries a transfer. For callers that have tried [`Connection::submit_one`], or need not.
    #[inline(never)]
    pub fn route<S: IovSource + ?Sized>(&self, request: &Request<'_, S>) -> Result<TransferId, SubmitError> {
        let &Request { opcode, iovs, remote, when_full, at_once } = request;
        if let Some(remote) = self.gpu_end(remote)
            && let Some(id) = self.start_on_gpu(opcode, iovs, remote, when_full)?
        {
            return Ok(id);
        }
        let id = self.start_on_lanes(opcode, iovs, when_full)?;
        if at_once && self.peer.same_process {
            return self.wait_for(id).map(|()| TransferId::COMPLETE);
        }
        Ok(id)
    }

    /// How GPU memory of the peer would be reached; `None` if no end of the transfer can be memory that only the GPU's
    /// runtime copies.
    #[inline]
    fn gpu_end<'a>(&self, remote: Remote<'a>) -> Option<RemoteEnd<'a>> {
        match remote {
            Remote::Ipc(records) if self.reach.same_host => Some(RemoteEnd::Ipc(records)),
            _ if self.reach.in_process && has_gpu_regions() => Some(RemoteEnd::SameProcess),
            _ => None,
        }
    }

    /// Waits for the end, as long as it takes.
    pub(super) fn wait_for(&self, id: TransferId) -> Result<(), SubmitError> {
        loop {
            match self.wait(id, Duration::from_secs(60)) {
                Status::Pending => {}
                Status::Ended(Outcome::Done) => return Ok(()),
                Status::Ended(outcome) => return Err(SubmitError::Ended(outcome)),
                Status::Unknown => return Err(self.down("internal error: the transfer is not in the table")),
            }
        }
    }
}
