//! A transfer as a future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

use super::Connection;
use crate::fabric::{CompletionStatus, Opcode};
use crate::pool::{EndState, Worker};
use crate::transfer::{AtEnd, Failure, IovSource, Outcome, Status, SubmitError, TransferId};

/// A transfer under way, as a future of its [`Outcome`]. Works on any executor: the worker's thread, which drives the
/// transfer meanwhile, wakes the task.
///
/// Dropping it does not end the transfer, and its memory must stay as it is until then: the transfer goes on, keeps the
/// connection open, and gives its id back when it ends. Memory that is registered with
/// [`Engine::register`](crate::Engine::register) may be freed once [`Engine::deregister`](crate::Engine::deregister) says so.
///
/// A task that is woken must not block in its waker: the thread that wakes it moves data for others too.
///
/// In a forked child it is ready at once, as failed.
#[derive(Debug)]
#[must_use = "the transfer has been started; its outcome is what this future answers"]
pub struct Transfer {
    connection: Arc<Connection>,
    id: TransferId,
    /// From the first poll that found the transfer under way.
    wake: Option<Arc<Wake>>,
    /// The outcome has been answered, and the id given back.
    answered: bool,
}

impl Connection {
    /// Starts a transfer as [`Connection::submit`] does, and answers a future of its outcome.
    ///
    /// Like that, it may sleep for room, at most for the transfer time-out: a task that must not block calls
    /// [`Connection::try_transfer`].
    ///
    /// ```
    /// # use flagcx_p2p::{Config, Engine, EngineOptions, Iov, Opcode, Outcome};
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
    /// // `peer` is a connection, `iov` says what to move.
    /// let write = peer.transfer(Opcode::Write, &[iov])?;
    /// let read = peer.transfer(Opcode::Read, &[iov])?;
    /// let both = async { (write.await, read.await) };
    /// assert_eq!(futures_lite::future::block_on(both), (Outcome::Done, Outcome::Done));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Connection::submit`].
    pub fn transfer<S: IovSource + ?Sized>(
        self: &Arc<Self>,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<Transfer, SubmitError> {
        self.submit(opcode, iovs).map(|id| Transfer::new(self, id))
    }

    /// As [`Connection::transfer`], but answers [`SubmitError::WouldBlock`] instead of sleeping for room.
    ///
    /// # Errors
    /// Those of [`Connection::try_submit`].
    pub fn try_transfer<S: IovSource + ?Sized>(
        self: &Arc<Self>,
        opcode: Opcode,
        iovs: &S,
    ) -> Result<Transfer, SubmitError> {
        self.try_submit(opcode, iovs).map(|id| Transfer::new(self, id))
    }
}

impl Transfer {
    fn new(connection: &Arc<Connection>, id: TransferId) -> Self {
        Self { connection: Arc::clone(connection), id, wake: None, answered: false }
    }

    /// Its id. A question about it elsewhere, such as [`Connection::status`], releases the id too; this future still answers
    /// the outcome, as long as the engine remembers it.
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Ends it early, as [`Connection::cancel`] does: blocks until nothing touches its memory any more, most often for some
    /// microseconds, and for 20 ms and more if a queue pair must be moved to ERROR for it. The future then answers
    /// [`Outcome::Cancelled`], unless the transfer was over before. False if it is not under way.
    pub fn cancel(&self) -> bool {
        self.connection.cancel(self.id)
    }

    fn look(&mut self) -> Poll<Outcome> {
        let outcome = match self.connection.status(self.id) {
            Status::Pending => return Poll::Pending,
            Status::Ended(outcome) => outcome,
            Status::Unknown => Outcome::Failed(self.unknown()),
        };
        self.answered = true;
        Poll::Ready(outcome)
    }

    fn unknown(&self) -> Failure {
        let reason = match self.connection.here() {
            Err(forked) => forked.to_string(),
            Ok(()) => format!(
                "how transfer {:#x} ended was told elsewhere, and is not remembered any more: ask about a transfer in one \
                 place only",
                self.id.0
            ),
        };
        let peer = self.connection.peer().control.to_string();
        Failure { iov: 0, last_iov: 0, status: CompletionStatus::General, vendor_error: 0, peer, reason }
    }
}

impl Future for Transfer {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Poll::Ready(outcome) = self.look() {
            return Poll::Ready(outcome);
        }
        if let Some(wake) = &self.wake {
            wake.waker.register(context.waker());
            // It may have ended, and woken the former waker, just before.
            return self.look();
        }
        let Some(worker) = self.connection.notice_worker() else { return Poll::Pending };
        let wake = Arc::new(Wake { worker: Arc::clone(worker), waker: AtomicWaker::new() });
        wake.waker.register(context.waker());
        self.connection.tell_at_end(self.id, Arc::clone(&wake) as Arc<dyn AtEnd>);
        self.wake = Some(wake);
        Poll::Pending
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.answered && self.look().is_pending() {
            self.connection.release_at_end(self.id);
        }
    }
}

/// Wakes the task that waits for a transfer.
#[derive(Debug)]
struct Wake {
    worker: Arc<Worker>,
    waker: AtomicWaker,
}

impl AtEnd for Wake {
    fn ended(self: Arc<Self>, _state: Option<EndState>) {
        // Code of the program runs in it, and may drop the connection.
        let worker = Arc::clone(&self.worker);
        worker.run_soon(move || self.waker.wake());
    }
}
