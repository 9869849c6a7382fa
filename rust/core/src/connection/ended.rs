//! A queue of transfers that have ended, with a descriptor to wait on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Connection;
use super::end_notices::release_id;
use super::route::Request;
use super::submit::WhenFull;
use crate::events::Notifier;
use crate::fabric::Opcode;
use crate::fork::OfProcess;
use crate::pool::{EndState, Worker};
use crate::sync::{Mutex, lock};
use crate::transfer::{AtEnd, IovSource, MOST_TRANSFERS, Outcome, Status, SubmitError, TransferId};

/// Transfers that have ended, for a program with an event loop of its own: a descriptor for `poll`, `epoll`, mio or
/// tokio's `AsyncFd`, readable while there are some.
///
/// It holds what was started with [`Connection::try_submit_to`], on any connection of any engine of the process. Other
/// transfers are not concerned, and cost nothing more. Every method may be called from any thread. A level-triggered and an
/// edge-triggered wait both work, if all are taken each time.
///
/// Dropping it ends no transfer: those under way give their ids back when they end. It must be dropped by the process that
/// opened it; in a forked child nothing can be taken from it.
#[derive(Debug)]
pub struct Ended(OfProcess<Arc<Queue>>);

impl Ended {
    /// Opens an empty queue.
    pub(crate) fn open() -> io::Result<Self> {
        let (list, outstanding) = (Mutex::new(Some(Vec::new())), AtomicUsize::new(0));
        Ok(Self(OfProcess::new(Arc::new(Queue { list, outstanding, readable: Notifier::new()? }))))
    }

    /// Appends the transfers that have ended to `into`, in the order of their ends, and answers how many. Their ids are given
    /// back. Never waits. After this the descriptor is not readable until another one ends.
    ///
    /// A transfer that was asked about elsewhere too is among them as long as the engine remembers that.
    pub fn take_ended(&self, into: &mut Vec<(TransferId, Outcome)>) -> usize {
        let Ok(queue) = OfProcess::here(&self.0) else { return 0 };
        let before = into.len();
        for transfer in queue.take() {
            if let Status::Ended(outcome) = transfer.connection.status(transfer.id) {
                into.push((transfer.id, outcome));
            }
        }
        into.len() - before
    }
}

/// Readable while there is something for [`Ended::take_ended`]. Only to be waited on: not to be read or written.
impl AsFd for Ended {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.readable.as_fd()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let Ok(queue) = OfProcess::here(&self.0) else { return };
        let left = lock(&queue.list).take();
        for transfer in left.into_iter().flatten() {
            let _ = transfer.connection.status(transfer.id);
        }
    }
}

impl Connection {
    /// Starts a transfer as [`Connection::try_submit`] does; `ended` has it once it has ended. Never waits for room.
    ///
    /// ```
    /// # use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome, TransferId};
    /// use rustix::event::{PollFd, PollFlags, poll};
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
    /// # let remote = peer.describe_remote(target.address(), 8192).ok_or("not announced")?;
    /// # let iov = Iov { local: source.address(), length: 8192, region: None, remote };
    /// // `client` is an engine, `peer` a connection of it, `iov` says what to move.
    /// let ended = client.ended()?;
    /// let id = peer.try_submit_to(&ended, Opcode::Write, &[iov])?;
    /// poll(&mut [PollFd::new(&ended, PollFlags::IN)], None)?;
    /// let mut taken = Vec::new();
    /// ended.take_ended(&mut taken);
    /// assert_eq!(taken, [(id, Outcome::Done)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Connection::try_submit`]; [`SubmitError::WouldBlock`] also while 1,048,512 transfers of `ended` are under
    /// way or not taken, and [`SubmitError::Forked`] with a queue of another process.
    pub fn try_submit_to<S: IovSource + ?Sized>(
        self: &Arc<Self>,
        ended: &Ended,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<TransferId, SubmitError> {
        let queue = OfProcess::here(&ended.0)?;
        let place = Place::acquire(queue).ok_or(SubmitError::WouldBlock)?;
        // With an id of its own, even if it could be copied at once: the program tells its transfers apart by their ids.
        let id =
            self.start_with_id(&Request { when_full: WhenFull::Refuse, ..Request::new(opcode, iovs) })?;
        if let Some(worker) = self.notice_worker() {
            let (connection, worker) = (Arc::clone(self), Arc::clone(worker));
            self.tell_at_end(id, Arc::new(Queued { connection, id, worker, place }));
        }
        Ok(id)
    }
}

/// Of an [`Ended`], and of the transfers that it waits for.
#[derive(Debug)]
struct Queue {
    /// `None` once the [`Ended`] is gone.
    list: Mutex<Option<Vec<Arc<Queued>>>>,
    /// Readable while `list` is not empty; changed under its lock.
    readable: Notifier,
    /// Transfers under way or not taken: at most [`MOST_TRANSFERS`]. Written by any thread; orders nothing: Relaxed.
    outstanding: AtomicUsize,
}

impl Queue {
    /// Appends a transfer; gives it back if the [`Ended`] is gone.
    fn push(&self, transfer: Arc<Queued>) -> Result<(), Arc<Queued>> {
        let mut list = lock(&self.list);
        let Some(list) = list.as_mut() else { return Err(transfer) };
        if list.is_empty() {
            self.readable.notify();
        }
        list.push(transfer);
        Ok(())
    }

    fn take(&self) -> Vec<Arc<Queued>> {
        let mut list = lock(&self.list);
        self.readable.acknowledge();
        list.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// A transfer that is queued when it ends.
#[derive(Debug)]
struct Queued {
    connection: Arc<Connection>,
    id: TransferId,
    worker: Arc<Worker>,
    place: Place,
}

impl AtEnd for Queued {
    fn ended(self: Arc<Self>, _state: Option<EndState>) {
        let (worker, queue) = (Arc::clone(&self.worker), Arc::clone(&self.place.0));
        if let Err(left) = queue.push(self) {
            worker.run_soon(move || {
                if let Some(left) = Arc::into_inner(left) {
                    release_id(left.connection, left.id);
                }
            });
        }
    }
}

/// One of the transfers that a queue may wait for.
#[derive(Debug)]
struct Place(Arc<Queue>);

impl Place {
    fn acquire(queue: &Arc<Queue>) -> Option<Self> {
        let place = Self(Arc::clone(queue));
        (queue.outstanding.fetch_add(1, Ordering::Relaxed) < MOST_TRANSFERS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_queue_waits_for_as_many_as_an_engine_may_have() {
        let ended = Ended::open().unwrap();
        let queue = &*ended.0;
        queue.outstanding.store(MOST_TRANSFERS - 1, Ordering::Relaxed);
        let last = Place::acquire(queue).unwrap();
        assert!(Place::acquire(queue).is_none() && Place::acquire(queue).is_none());
        drop(last);
        assert!(Place::acquire(queue).is_some());
    }
}
