//! The route of a transfer: the lanes to the peer, or lanes over copy streams of a GPU. Every entry point decides here.
//!
//! Copy streams carry what lies in GPU memory at either end if both ends are in one process, or if the caller brings what
//! the peer, on the same host, tells of its GPU memory. The lanes to the peer carry the rest: host memory, and GPU memory that a NIC
//! has registered. What neither can carry is refused: [`crate::transfer::Scope`].

use std::time::Duration;

use super::Connection;
use super::gpu_transfer::RemoteEnd;
use super::submit::WhenFull;
use crate::fabric::{PathKind, Paths};
use crate::gpu::IpcInfo;
use crate::memory::has_gpu_regions;
use crate::transfer::{Iov, IovSource, Opcode, Outcome, Status, SubmitError, TransferId};

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
    /// Over a connection that was made as one within this process, the transfer is to have ended well when the call returns, and is
    /// [`TransferId::COMPLETE`]: what callers of the C interface rely on.
    pub at_once: bool,
}

impl<'a, S: IovSource + ?Sized> Request<'a, S> {
    /// A transfer that may wait for room, between ends of which descriptors say all.
    #[inline(always)]
    pub fn new(opcode: Opcode, iovs: &'a S) -> Self {
        Self { opcode, iovs, remote: Remote::Described, when_full: WhenFull::Wait, at_once: false }
    }
}

/// What a caller knows of the peer's memory.
#[derive(Clone, Copy, Debug, Default)]
pub enum Remote<'a> {
    /// The descriptors of the iovs say it all.
    #[default]
    Described,
    /// The peer's memory is GPU memory, and the peer has told this of it: one record for each iov; a transfer with `None`,
    /// for a record that names no GPU memory, is refused. Of use if the peer is another process of this host; ignored otherwise.
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
    pub(super) fn new(says_same_process: bool, is_local: bool, paths: Paths, lanes_carry_gpu: bool) -> Self {
        Self {
            in_process: says_same_process || paths == Paths::both(PathKind::InProcess),
            same_host: is_local && !says_same_process,
            lanes_carry_gpu,
        }
    }
}

impl Connection {
    /// Starts a transfer, as [`Connection::submit`] does, with all that a caller can say of it.
    ///
    /// # Errors
    /// Those of [`Connection::submit`]; with [`WhenFull::Refuse`] also [`SubmitError::WouldBlock`], with [`Remote::Ipc`] also
    /// [`SubmitError::Gpu`], when the GPU's runtime refuses, and with [`Request::at_once`] also [`SubmitError::Ended`].
    #[inline(always)]
    pub fn start<S: IovSource + ?Sized>(&self, request: &Request<'_, S>) -> Result<TransferId, SubmitError> {
        if self.copies_directly
            && matches!(request.remote, Remote::Described)
            && self.copy_directly(request.opcode, request.iovs)
        {
            return Ok(TransferId::COMPLETE);
        }
        self.start_with_id(request)
    }

    /// Starts a transfer of one iov that its descriptor describes, as [`Connection::start`] with [`Request::at_once`].
    ///
    /// # Errors
    /// Those of [`Connection::start`].
    #[inline(always)]
    pub fn start_one(&self, opcode: Opcode, iov: Iov) -> Result<TransferId, SubmitError> {
        // Of a copy: an iov of which an address is taken here would lie in memory for transfers over devices as well.
        if self.copies_directly && self.copy_directly(opcode, &[iov][..]) {
            return Ok(TransferId::COMPLETE);
        }
        if self.leads_over_lanes(true)
            && let Some(id) = self.begin_one(opcode, &iov)
        {
            return Ok(id);
        }
        self.start_one_otherwise(opcode, iov)
    }

    #[cold]
    #[inline(never)]
    fn start_one_otherwise(&self, opcode: Opcode, iov: Iov) -> Result<TransferId, SubmitError> {
        self.start_otherwise(&Request { at_once: true, ..Request::new(opcode, &[iov][..]) })
    }

    /// [`Connection::start`] of a transfer that has an id of its own, unless it ends in the call as its caller asked.
    #[inline(always)]
    pub(super) fn start_with_id<S: IovSource + ?Sized>(
        &self,
        request: &Request<'_, S>,
    ) -> Result<TransferId, SubmitError> {
        if request.iovs.len() == 1
            && matches!(request.remote, Remote::Described)
            && self.leads_over_lanes(request.at_once)
            && let Some(iov) = request.iovs.iov(0)
            && let Some(id) = self.begin_one(request.opcode, &iov)
        {
            return Ok(id);
        }
        self.start_otherwise(request)
    }

    /// Whether a transfer that descriptors describe goes over the lanes to the peer, and its id is all that the call answers.
    #[inline(always)]
    fn leads_over_lanes(&self, at_once: bool) -> bool {
        !(at_once && self.peer.same_process || self.reach.in_process && has_gpu_regions())
    }

    /// Not inlined, so that what the fast path does not need is apart from it.
    #[inline(never)]
    fn start_otherwise<S: IovSource + ?Sized>(
        &self,
        request: &Request<'_, S>,
    ) -> Result<TransferId, SubmitError> {
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

    /// Starts a transfer of at least one iov, and answers its id. Never waits for its end.
    ///
    /// Everything is checked before anything is moved. Of two ends in one process either may be GPU memory, which the GPU's
    /// runtime then copies. The memory of both ends must stay registered, and its bytes unused, until the transfer has ended.
    ///
    /// ```
    /// # use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome, Status};
    /// # let setting = |name: &str| match name {
    /// #     "FLAGCX_P2P_FABRIC" => Some("software".to_owned()),
    /// #     "FLAGCX_P2P_BIND" => Some("127.0.0.1".to_owned()),
    /// #     _ => None,
    /// # };
    /// # let config = std::sync::Arc::new(Config::from_source(&setting));
    /// # let server = Engine::open(config.clone(), EngineOptions::default())?;
    /// # let client = Engine::open(config, EngineOptions::default())?;
    /// # let (target, source) = (server.allocate(8192)?, client.allocate(8192)?);
    /// # server.start_rpc_server()?;
    /// # let peer = client.session(&format!("127.0.0.1:{}", server.rpc_port().ok_or("no listener")?))?;
    /// // Two pieces of one transfer: `source` and `target` are registered here and there.
    /// let piece = |offset: u64, length: u32| {
    ///     let remote = peer.describe_remote(target.address() + offset, length)?;
    ///     let (local, length) = (source.address() + offset, u64::from(length));
    ///     Some(Iov { local, length, region: Some(source.region()), remote })
    /// };
    /// let pieces = [piece(0, 100).ok_or("not announced")?, piece(4096, 200).ok_or("not announced")?];
    /// let id = peer.submit(Opcode::Read, &pieces)?;
    /// while peer.status(id) == Status::Pending {
    ///     // Something else.
    /// }
    /// // Asked for once more: the outcome of a transfer that has ended stays readable for a while.
    /// assert_eq!(peer.status(id), Status::Ended(Outcome::Done));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A transfer of at most 64 KiB and 16 pieces between memory of this host is copied by the call itself, and its id is
    /// [`TransferId::COMPLETE`].
    ///
    /// When the waiting queues are full, or 1,048,512 ids are in use, it sleeps until
    /// there is room, at most for the transfer time-out. A transfer keeps its id until its end has been asked for, so a
    /// program that starts more and asks about none waits for itself: the call then ends with [`SubmitError::NoId`]. Any
    /// thread may call it.
    ///
    /// # Errors
    /// [`SubmitError`] says for each case what is wrong with which piece, or why the connection takes none. Nothing was moved
    /// then, but for [`SubmitError::Gpu`].
    #[inline]
    pub fn submit<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S) -> Result<TransferId, SubmitError> {
        self.start(&Request::new(opcode, iovs))
    }

    /// As [`Connection::submit`], but answers [`SubmitError::WouldBlock`] instead of sleeping for room.
    ///
    /// A transfer that would go over several lanes goes over one when their workers have no room for all of it.
    ///
    /// # Errors
    /// [`SubmitError::WouldBlock`], and those of [`Connection::submit`].
    pub fn try_submit<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<TransferId, SubmitError> {
        self.start(&Request { when_full: WhenFull::Refuse, ..Request::new(opcode, iovs) })
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
