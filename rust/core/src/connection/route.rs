//! The route of a transfer: the lanes, or the GPU's runtime. Every entry point decides here.
//!
//! The runtime copies what lies in GPU memory at either end if both ends are in one process, or if the caller brings what
//! the peer, on the same host, tells of its GPU memory. The lanes carry the rest: host memory, and GPU memory that a NIC
//! has registered. What neither can carry is refused: [`crate::transfer::Scope`].

use std::time::Duration;

use super::Connection;
use super::device_path::RemoteEnd;
use super::submit::WhenFull;
use crate::fabric::{PathKind, Paths, Provider};
use crate::gpu::IpcInfo;
use crate::memory::has_gpu_regions;
use crate::transfer::{IovSource, Opcode, Outcome, Status, SubmitError, TransferId};

/// Where a connection leads, as far as routes depend on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Both ends are in this process, so that the peer's addresses are ours.
    in_process: bool,
    /// GPU memory that is registered has keys that the lanes can use.
    pub(super) lanes_carry_gpu: bool,
}

impl Reach {
    pub(super) fn new(says_same_process: bool, paths: Paths, provider: Provider) -> Self {
        Self {
            in_process: says_same_process || paths == Paths::both(PathKind::InProcess),
            lanes_carry_gpu: provider != Provider::Software,
        }
    }
}

impl Connection {
    /// Starts a transfer with GPU memory of a peer that is another process of this host, by what the peer's
    /// [`Engine::ipc_info`](crate::Engine::ipc_info) told of it: one record for each iov.
    ///
    /// The GPU copies. A copy cannot be stopped: such a transfer has no deadline, and cancelling it waits for its end.
    ///
    /// # Errors
    /// Those of [`Connection::submit`], and [`SubmitError::Device`] when the GPU's runtime refuses.
    pub fn submit_by_ipc<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        ipc: &[IpcInfo],
    ) -> Result<TransferId, SubmitError> {
        match self.start_on_gpu(opcode, iovs, RemoteEnd::Ipc(ipc), WhenFull::Wait)? {
            Some(id) => Ok(id),
            None => self.start_on_lanes(opcode, iovs, WhenFull::Wait),
        }
    }

    /// As [`Connection::submit`], but that between host memory of this process, with a peer that was connected to as one of
    /// this process, the transfer has ended well when this returns, and is [`TransferId::COMPLETE`].
    #[doc(hidden)]
    #[inline(always)]
    pub fn submit_at_once_in_process<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<TransferId, SubmitError> {
        if !self.peer.same_process {
            return self.submit_any(opcode, iovs);
        }
        self.submit_in_process(opcode, iovs)
    }

    // Apart: other transfers would pay for its registers.
    #[inline(never)]
    fn submit_in_process<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<TransferId, SubmitError> {
        if self.may_need_gpu()
            && let Some(id) = self.start_on_gpu(opcode, iovs, RemoteEnd::SameProcess, WhenFull::Wait)?
        {
            return Ok(id);
        }
        let id = self.start_on_lanes(opcode, iovs, WhenFull::Wait)?;
        self.wait_for(id).map(|()| TransferId::COMPLETE)
    }

    /// Makes a transfer and waits for its end, for as long as that takes.
    ///
    /// # Errors
    /// Those of [`Connection::submit`], and [`SubmitError::Ended`] when the transfer ended otherwise than done.
    pub fn submit_and_wait<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<(), SubmitError> {
        self.wait_for(self.submit(opcode, iovs)?)
    }

    /// Whether GPU memory may be at either end of a transfer that [`Connection::submit`] is asked for, with nothing but
    /// its addresses.
    #[inline]
    pub(super) fn may_need_gpu(&self) -> bool {
        self.reach.in_process && has_gpu_regions()
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
