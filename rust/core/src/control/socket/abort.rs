//! Ending waits from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Ends every wait of the sockets that carry it, for good and from any thread. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Abort(Arc<OwnedFd>);

impl Abort {
    /// A switch that is not thrown yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Throws the switch. Idempotent.
    pub fn abort(&self) {
        // The only failure is a full counter, and then it has been thrown already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Whether it has been thrown. Nobody reads the counter, so it stays readable.
    pub fn is_aborted(&self) -> bool {
        let mut fds = [PollFd::new(&*self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Abort {
    /// Readable once the switch has been thrown.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until `fd` is ready for `events`. `TimedOut` at the deadline, `ConnectionAborted` when the switch is thrown.
pub(in crate::control) fn wait_ready(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    deadline: Option<Instant>,
    abort: Option<&Abort>,
) -> io::Result<()> {
    match abort {
        Some(abort) => {
            let mut fds = [PollFd::new(abort, PollFlags::IN), PollFd::from_borrowed_fd(fd, events)];
            wait(&mut fds, deadline)?;
            check(&fds)
        }
        None => wait(&mut [PollFd::from_borrowed_fd(fd, events)], deadline),
    }
}

/// Waits until one of `fds` is readable, or the other end of `watched` is closed; errors as above.
pub(in crate::control) fn wait_any(
    fds: &[BorrowedFd<'_>],
    watched: Option<BorrowedFd<'_>>,
    deadline: Option<Instant>,
    abort: &Abort,
) -> io::Result<()> {
    let readable = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
    let mut fds: Vec<_> = std::iter::once(PollFd::new(abort, PollFlags::IN)).chain(readable).collect();
    fds.extend(watched.map(|watched| PollFd::from_borrowed_fd(watched, PollFlags::RDHUP)));
    wait(&mut fds, deadline)?;
    check(&fds)
}

/// Waits until one of `fds` is writable or has failed; errors as above.
pub(super) fn wait_writable(
    fds: &[BorrowedFd<'_>],
    deadline: Instant,
    abort: Option<&Abort>,
) -> io::Result<()> {
    let writable = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::OUT));
    let mut fds: Vec<_> =
        abort.map(|abort| PollFd::new(abort, PollFlags::IN)).into_iter().chain(writable).collect();
    wait(&mut fds, Some(deadline))?;
    if abort.is_some() { check(&fds) } else { Ok(()) }
}

fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let timeout = deadline.map(remaining).transpose()?;
        match poll(fds, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The switch comes first in every set.
fn check(fds: &[PollFd<'_>]) -> io::Result<()> {
    match fds.first() {
        Some(abort) if !abort.revents().is_empty() => Err(aborted()),
        _ => Ok(()),
    }
}

/// Sleeps, at most until the deadline.
pub(super) fn sleep(pause: Duration, deadline: Option<Instant>, abort: Option<&Abort>) -> io::Result<()> {
    let until = Instant::now() + pause;
    let until = deadline.map_or(until, |deadline| deadline.min(until));
    match abort {
        Some(abort) => match wait_ready(abort.as_fd(), PollFlags::IN, Some(until), None) {
            Ok(()) => Err(aborted()),
            Err(_) => Ok(()),
        },
        None => {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            Ok(())
        }
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "ended by this process")
}

/// Time left, rounded up to the kernel's resolution so that nobody polls in circles; `TimedOut` when there is none.
fn remaining(deadline: Instant) -> io::Result<Timespec> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput.into())
}
