//! Calls that a signal has interrupted.
//!
//! A program's signals (a profiler's timer, a child's end) reach any thread, and their handlers may be installed
//! without `SA_RESTART`; some calls answer `EINTR` in any case. It is no result of the call, so every call is
//! repeated where it is made: calls of rustix through `rustix::io::retry_on_intr`, those that answer [`io::Error`]
//! through [`uninterrupted`]. Three kinds are not:
//!
//! * a wait with a time-out is repeated by its loop, with what is left until its deadline;
//! * an interrupted `connect` of TCP goes on in the kernel: it is waited for, like one in progress;
//! * the standard library repeats what it wraps, except `read`, `write`, `peek` and `read_at` of files and sockets.

use std::io::{self, ErrorKind};

/// The answer of `call`, which is repeated for as long as signals interrupt it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_interrupted_calls_are_repeated() {
        let mut answers = [Err(libc::EINTR), Err(libc::EINTR), Ok(7), Err(libc::EAGAIN)].into_iter();
        let mut call = || answers.next().unwrap().map_err(io::Error::from_raw_os_error);
        assert_eq!(uninterrupted(&mut call).unwrap(), 7);
        assert_eq!(uninterrupted(&mut call).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
    }
}
