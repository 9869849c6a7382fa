//! Waiting for a descriptor, in a thread that may block or in a task of the event loop.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::event::{PollFlags, Timespec};
use rustix::io::Errno;

use super::{Abort, EventLoopHandle, wait_for};

/// How code waits for a peer. The same functions serve callers that may block and tasks that may not: in a thread
/// every wait blocks, so their futures complete at the first poll ([`run_blocking`]).
#[derive(Clone)]
pub struct Waiter(Kind);

#[derive(Clone)]
enum Kind {
    Thread(Option<Abort>),
    Task(EventLoopHandle),
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write, or the end of a connect.
    Write,
}

impl Waiter {
    /// Blocks the calling thread. Waits end with `ConnectionAborted` once `abort` is triggered.
    pub fn blocking(abort: Option<&Abort>) -> Self {
        Self(Kind::Thread(abort.cloned()))
    }

    /// Waits as a task of the event loop, which is stopped by dropping it.
    pub(crate) fn on_loop(handle: &EventLoopHandle) -> Self {
        Self(Kind::Task(handle.clone()))
    }

    /// Waits until `fd` is ready. `TimedOut` at the deadline.
    pub async fn ready(
        &self,
        fd: BorrowedFd<'_>,
        interest: Interest,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        self.any(&[(fd, interest)], deadline).await
    }

    /// Waits until one of `fds` is ready. `TimedOut` at the deadline.
    pub async fn any(&self, fds: &[(BorrowedFd<'_>, Interest)], deadline: Option<Instant>) -> io::Result<()> {
        match &self.0 {
            Kind::Thread(abort) => block(fds, deadline, abort.as_ref()),
            Kind::Task(handle) => suspend(handle, fds, deadline).await,
        }
    }

    /// Waits for this long.
    pub async fn pause(&self, time: Duration) -> io::Result<()> {
        match &self.0 {
            Kind::Thread(abort) => match block(&[], Some(Instant::now() + time), abort.as_ref()) {
                Err(error) if error.kind() == ErrorKind::TimedOut => Ok(()),
                other => other,
            },
            Kind::Task(handle) => {
                handle.sleep(time).await;
                Ok(())
            }
        }
    }

    /// Yields to others on the loop after much work without waiting. On a blocking thread this does nothing.
    pub(crate) async fn give_way(&self) {
        if let Kind::Task(handle) = &self.0 {
            handle.give_way().await;
        }
    }

    /// Runs a call that blocks: on the calling thread if it may block, else on a helper thread.
    pub(crate) async fn call<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0 {
            Kind::Thread(_) => call(),
            Kind::Task(handle) => handle.blocking(call).await,
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Thread(_) => "Waiter(thread)",
            Kind::Task(_) => "Waiter(task)",
        })
    }
}

/// Runs a future in which every wait goes through a blocking [`Waiter`].
pub fn run_blocking<T>(future: impl Future<Output = T>) -> T {
    futures_lite::future::block_on(future)
}

fn block(
    fds: &[(BorrowedFd<'_>, Interest)],
    deadline: Option<Instant>,
    abort: Option<&Abort>,
) -> io::Result<()> {
    let mut all = fds.to_vec();
    all.extend(abort.map(|abort| (abort.as_fd(), Interest::Read)));
    let (mut is_ready, mut is_aborted) = (false, false);
    while !is_ready {
        let timeout = deadline.map(remaining).transpose()?;
        let note = |index| {
            is_ready = true;
            is_aborted |= index == fds.len();
        };
        match wait_for(&all, timeout.as_ref(), note) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if is_aborted { Err(Abort::error()) } else { Ok(()) }
}

/// Time left, rounded up to the kernel's resolution, so that no caller polls repeatedly; `TimedOut` when there is none.
fn remaining(deadline: Instant) -> io::Result<Timespec> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput.into())
}

async fn suspend(
    handle: &EventLoopHandle,
    fds: &[(BorrowedFd<'_>, Interest)],
    deadline: Option<Instant>,
) -> io::Result<()> {
    let mut watched = Vec::with_capacity(fds.len());
    for (fd, interest) in fds {
        watched.push((handle.watch(*fd)?, *interest));
    }
    let mut timer = pin!(handle.sleep_until(deadline));
    poll_fn(|context| {
        for (fd, interest) in &mut watched {
            let is_ready = match interest {
                Interest::Read => pin!(fd.readable()).poll(context).is_ready(),
                Interest::Write => pin!(fd.writable()).poll(context).is_ready(),
            };
            if is_ready {
                return Poll::Ready(Ok(()));
            }
        }
        timer.as_mut().poll(context).map(|()| Err(ErrorKind::TimedOut.into()))
    })
    .await
}

impl Interest {
    pub(super) fn flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::IN,
            Self::Write => PollFlags::OUT,
        }
    }
}
