//! Waits of sockets: with a deadline, and ended from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub use crate::events::Abort;

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
        Some(abort) if !abort.revents().is_empty() => Err(Abort::error()),
        _ => Ok(()),
    }
}

/// Sleeps, at most until the deadline.
pub(super) fn sleep(pause: Duration, deadline: Option<Instant>, abort: Option<&Abort>) -> io::Result<()> {
    let until = Instant::now() + pause;
    let until = deadline.map_or(until, |deadline| deadline.min(until));
    match abort {
        Some(abort) => match wait_ready(abort.as_fd(), PollFlags::IN, Some(until), None) {
            Ok(()) => Err(Abort::error()),
            Err(_) => Ok(()),
        },
        None => {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            Ok(())
        }
    }
}

/// Time left, rounded up to the kernel's resolution so that nobody polls in circles; `TimedOut` when there is none.
fn remaining(deadline: Instant) -> io::Result<Timespec> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput.into())
}
