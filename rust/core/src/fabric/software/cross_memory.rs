//! Two processes of one host: the kernel copies from one address space into the other.
#![allow(unsafe_code, reason = "copies into registered memory")]

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::RecvFlags;
use rustix::process::Pid;

use super::denial::is_denial;
use super::faults::Verdict;
use super::foreign::{self, MAX_RANGES};
use super::kernel_copy;
use super::link::Link;
use super::questions::Resolved;
use super::send_queue::{Piece, Request};
use super::socket::{self, Range};
use super::table::{Counterpart, Violation};
use super::tcp::frame::{Action, RequestHeader};
use super::watched::WatchedSocket;
use super::work::{MAX_MESSAGE, Next, Patience, PinSet, Step, Unpinned, Work, rights};
use crate::fabric::{CompletionStatus, Opcode};

/// The way to a queue pair of another process of this host.
#[derive(Debug)]
pub(super) struct CrossMemory {
    link: Arc<Link>,
    /// Says when the peer's queue pair or process is gone, and carries the news of a violation.
    socket: Arc<WatchedSocket>,
    /// Where the counterpart stands in the peer's queue pair table, and its number.
    slot: usize,
    counterpart: u32,
    /// Bytes of the request under way that are done.
    offset: u64,
    patience: Patience,
    closed: bool,
    batch: Batch,
}

/// Ranges to copy by one system call; the lists keep their room between calls.
#[derive(Debug, Default)]
struct Batch {
    opcode: Option<Opcode>,
    local: Vec<Range>,
    remote: Vec<Range>,
    requests: u64,
    bytes: u64,
}

impl CrossMemory {
    /// `slot`: where the counterpart stands in the peer's queue pair table; `counterpart`: its number.
    pub(super) fn new(link: Arc<Link>, socket: Arc<WatchedSocket>, slot: usize, counterpart: u32) -> Self {
        let batch = Batch {
            local: Vec::with_capacity(MAX_RANGES),
            remote: Vec::with_capacity(MAX_RANGES),
            ..Batch::default()
        };
        Self {
            link,
            socket,
            slot,
            counterpart,
            offset: 0,
            patience: Patience::default(),
            closed: false,
            batch,
        }
    }

    /// The request under way was carried out by another path.
    pub(super) fn restart(&mut self) {
        self.offset = 0;
    }

    pub(super) fn advance(&mut self, work: &mut Work<'_>) -> Step {
        if work.news {
            self.look_at_socket(work);
        }
        let mut executed = 0;
        let next = loop {
            let first = work.queue.executed + executed;
            if work.request(first).is_none() {
                break Next::Idle;
            }
            if work.budget.is_spent() {
                break Next::More;
            }
            match self.run_batch(work, first) {
                Ok(done) => executed += done,
                Err((done, next)) => {
                    executed += done;
                    break next;
                }
            }
        };
        if next == Next::Failed(CompletionStatus::RemoteAccess) {
            self.report_violation();
        }
        Step { executed, next }
    }

    /// Nothing is ever said on the socket but its end.
    fn look_at_socket(&mut self, work: &Work<'_>) {
        let mut byte = [0_u8; 1];
        let answer = retry_on_intr(|| rustix::net::recv(&self.socket, &mut byte[..], RecvFlags::DONTWAIT));
        if !matches!(answer, Err(Errno::AGAIN)) {
            self.closed = true;
            work.endpoint.set_peer_gone();
        }
    }

    /// Carries out requests from `first` on by one system call. How many are done, and what comes then if not more
    /// of the same.
    fn run_batch(&mut self, work: &mut Work<'_>, first: u64) -> Result<u64, (u64, Next)> {
        let (regions, link) = (work.regions, Arc::clone(&self.link));
        let mut local = PinSet::new(regions.view());
        let mut remote = PinSet::new(link.view());
        let mut batch = std::mem::take(&mut self.batch);
        let stop = self.collect(work, first, &link, &mut local, &mut remote, &mut batch);
        let outcome = self.copy(work, first, &batch, &local, &remote);
        batch.clear();
        self.batch = batch;
        match (outcome, stop) {
            (Ok(done), None) => Ok(done),
            (Ok(done), Some(next)) => Err((done, next)),
            (Err((done, next)), _) => Err((done, next)),
        }
    }

    /// Fills the batch. `Some`: what to do once it is copied.
    fn collect<'a>(
        &mut self,
        work: &mut Work<'_>,
        first: u64,
        link: &'a Link,
        local: &mut PinSet<'_>,
        remote: &mut PinSet<'a>,
        batch: &mut Batch,
    ) -> Option<Next> {
        let mut index = first;
        let mut offset = self.offset;
        while let Some(request) = work.request(index) {
            if batch.requests >= work.budget.requests
                || batch.bytes >= work.budget.bytes
                || batch.opcode.is_some_and(|opcode| opcode != request.opcode)
            {
                return None;
            }
            if let Some(next) = self.obstacle(work, index) {
                return Some(next);
            }
            match check(work, index, request, local, remote) {
                Ok(()) => {}
                // The regions are released after this batch, and the next one begins here.
                Err(Refused::BatchFull) => return None,
                Err(Refused::Failed(status)) => return Some(Next::Failed(status)),
                Err(Refused::UnknownKey) => match resolve(link, request.rkey, remote) {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(next) => return Some(next),
                },
            }
            if !batch.push(work, index, request, offset) {
                return None;
            }
            index += 1;
            offset = 0;
        }
        None
    }

    fn obstacle(&mut self, work: &mut Work<'_>, index: u64) -> Option<Next> {
        match work.faults.judge(index) {
            Verdict::Go => {}
            Verdict::Wait(time) => return Some(Next::Later(time)),
            Verdict::Fail(status) => return Some(Next::Failed(status)),
            Verdict::DropPeer => {
                self.socket.cut();
                self.closed = true;
                work.endpoint.set_peer_gone();
            }
        }
        if self.closed || work.endpoint.is_peer_gone() {
            return Some(Next::Failed(CompletionStatus::RetryExceeded));
        }
        let entry = self.link.queue_pair(self.slot);
        let counterpart =
            entry.map_or(Counterpart::Gone, |entry| entry.counterpart(self.counterpart, work.endpoint.qpn()));
        self.patience.judge(counterpart)
    }

    fn copy(
        &mut self,
        work: &mut Work<'_>,
        first: u64,
        batch: &Batch,
        local: &PinSet<'_>,
        remote: &PinSet<'_>,
    ) -> Result<u64, (u64, Next)> {
        let failed = |status| (0, Next::Failed(status));
        if batch.requests == 0 && batch.bytes == 0 {
            return Ok(0);
        }
        let mut moved = 0;
        if batch.bytes > 0 {
            work.faults.hold();
            if !self.link.is_alive() {
                work.endpoint.set_peer_gone();
                return Err(failed(CompletionStatus::RetryExceeded));
            }
            let opcode = batch.opcode.unwrap_or(Opcode::Write);
            // SAFETY: the local ranges were checked against their regions, which are pinned by `local` until after the
            // call.
            let answer = unsafe { foreign::transfer(opcode, self.link.pid(), &batch.local, &batch.remote) };
            moved = match answer {
                Ok(0) => return Err((0, self.give_up(opcode, "it moves no bytes"))),
                Ok(moved) => moved as u64,
                Err(Errno::NOMEM | Errno::AGAIN) => return Err((0, Next::More)),
                Err(errno) if is_denial(errno) => {
                    return Err((0, self.give_up(opcode, &errno.to_string())));
                }
                Err(errno) => {
                    if errno == Errno::SRCH {
                        work.endpoint.set_peer_gone();
                    }
                    return Err(failed(self.explain(errno, batch)));
                }
            };
            // Both regions are pinned, so this can fail only if an owner gave up waiting for us.
            if !(local.all_live() && remote.all_live()) {
                return Err((0, self.recheck(work, first)));
            }
        }
        work.budget.bytes = work.budget.bytes.saturating_sub(moved);
        work.faults.moved(moved);
        Ok(self.note_moved(work, first, batch, moved))
    }

    /// A registration began to end while its bytes moved: fails the first request if it is concerned, else leaves it
    /// to be done again, which is harmless.
    fn recheck(&self, work: &Work<'_>, first: u64) -> Next {
        let (mut local, mut remote) = (PinSet::new(work.regions.view()), PinSet::new(self.link.view()));
        match work.queue.get(first).map(|request| check(work, first, request, &mut local, &mut remote)) {
            Some(Err(Refused::Failed(status))) => Next::Failed(status),
            _ => Next::More,
        }
    }

    /// How many requests are done now that so many bytes were moved.
    fn note_moved(&mut self, work: &mut Work<'_>, first: u64, batch: &Batch, mut moved: u64) -> u64 {
        let mut done = 0;
        while let Some(request) = work.queue.get(first + done).filter(|_| done < batch.requests || moved > 0)
        {
            let left = request.length - self.offset;
            if moved < left {
                self.offset += moved;
                break;
            }
            moved -= left;
            self.offset = 0;
            done += 1;
        }
        work.budget.requests = work.budget.requests.saturating_sub(done);
        done
    }

    /// The kernel has come to deny a direction that it allowed at the connect: from now on it takes TCP, and what was copied of
    /// the request under way is copied again.
    fn give_up(&mut self, opcode: Opcode, reason: &str) -> Next {
        self.link.deny(opcode, reason);
        self.restart();
        Next::More
    }

    /// What an errno of the copy says of the first request of the batch.
    fn explain(&self, errno: Errno, batch: &Batch) -> CompletionStatus {
        let pid = self.link.pid();
        match errno {
            Errno::FAULT if is_local(batch, pid) => CompletionStatus::LocalProtection,
            Errno::FAULT => CompletionStatus::RemoteAccess,
            Errno::SRCH => CompletionStatus::RetryExceeded,
            _ => {
                tracing::warn!(%pid, %errno, "the kernel refuses to copy from or to a peer it allowed before");
                CompletionStatus::RetryExceeded
            }
        }
    }

    /// As with RC, the responder's queue pair goes down together with the initiator's.
    fn report_violation(&self) {
        let header = RequestHeader {
            action: Action::Violation,
            following: 0,
            rkey: 0,
            remote_address: 0,
            length: 0,
            sequence: 0,
        };
        if let Err(errno) = socket::send(self.socket.as_fd(), &[Range::of(&header.encode())]) {
            tracing::debug!(%errno, "the peer cannot be told of an access violation");
        }
    }
}

impl Batch {
    fn clear(&mut self) {
        self.opcode = None;
        self.local.clear();
        self.remote.clear();
        self.requests = 0;
        self.bytes = 0;
    }

    /// Adds the rest of a request. False when there was no room for all of it.
    fn push(&mut self, work: &Work<'_>, index: u64, request: &Request, offset: u64) -> bool {
        if request.length == 0 {
            self.requests += 1;
            return true;
        }
        let start = self.bytes;
        for piece in work.queue.pieces(index, offset) {
            let length = piece.length.min(work.budget.bytes.saturating_sub(self.bytes));
            if length == 0 || self.local.len() == MAX_RANGES {
                break;
            }
            self.local.push(Range::new(piece.address, length));
            self.bytes += length;
        }
        let added = self.bytes - start;
        if added == 0 {
            return false;
        }
        self.opcode = Some(request.opcode);
        self.remote.push(Range::new(request.remote_address + offset, added));
        let whole = offset + added == request.length;
        self.requests += u64::from(whole);
        whole && self.remote.len() < MAX_RANGES
    }
}

/// Whether it is the first local byte of the batch, and not the first remote one, that the kernel could not access. The side
/// that was to be read from is asked; to ask the other one would change it.
fn is_local(batch: &Batch, pid: Pid) -> bool {
    let first = |ranges: &[Range]| Range { length: 1, ..ranges.first().copied().unwrap_or_default() };
    match batch.opcode {
        Some(Opcode::Read) => foreign::read(pid, &[first(&batch.remote)], &mut [0]).is_ok(),
        _ => !kernel_copy::is_readable(first(&batch.local).address as u64),
    }
}

enum Refused {
    BatchFull,
    /// The remote key is not among those that the set's table has.
    UnknownKey,
    Failed(CompletionStatus),
}

fn check(
    work: &Work<'_>,
    index: u64,
    request: &Request,
    local: &mut PinSet<'_>,
    remote: &mut PinSet<'_>,
) -> Result<(), Refused> {
    if request.length > u64::from(MAX_MESSAGE) {
        return Err(Refused::Failed(CompletionStatus::LocalLength));
    }
    if request.length == 0 {
        return Ok(());
    }
    let refuse = |status| {
        move |problem| match problem {
            Unpinned::Full => Refused::BatchFull,
            Unpinned::Violation(_) => Refused::Failed(status),
        }
    };
    let refuse_remote = |problem| match problem {
        Unpinned::Violation(Violation::UnknownKey) => Refused::UnknownKey,
        problem => refuse(CompletionStatus::RemoteAccess)(problem),
    };
    let (local_right, remote_right) = rights(request.opcode);
    for Piece { address, length, lkey } in work.queue.pieces(index, 0) {
        local.check(lkey, address, length, local_right).map_err(refuse(CompletionStatus::LocalProtection))?;
    }
    remote
        .check(request.rkey, request.remote_address, request.length, remote_right)
        .map_err(refuse_remote)?;
    Ok(())
}

/// Adds a region that the peer has not announced, once the peer has shown it to us. False: the batch has no room for it.
fn resolve<'a>(link: &'a Link, key: u32, remote: &mut PinSet<'a>) -> Result<bool, Next> {
    if let Ok(pinned) = link.granted().pin(key) {
        return Ok(remote.adopt(pinned));
    }
    match link.resolve(key) {
        Resolved::Granted => link
            .granted()
            .pin(key)
            .map(|pinned| remote.adopt(pinned))
            .map_err(|_| Next::Failed(CompletionStatus::RemoteAccess)),
        Resolved::Absent => Err(Next::Failed(CompletionStatus::RemoteAccess)),
        Resolved::NotYet(time) => Err(Next::Later(time)),
        Resolved::Never => Err(Next::Failed(CompletionStatus::RetryExceeded)),
    }
}
