//! Looking at descriptors and waiting for them, in a thread that may block.
//!
//! `poll(2)` refuses with `EINVAL` more descriptors than `RLIMIT_NOFILE` says, though they are open. A program may lower that limit
//! when it has opened all it needs, a sandbox even to 0; every wait would end at once then, and every look find nothing.
//! `select(2)` has no such rule: it takes the place of `poll` in such a process.
#![allow(unsafe_code, reason = "select takes descriptors as numbers")]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{
    FdSetElement, FdSetIter, PollFd, Timespec, fd_set_insert, fd_set_num_elements, poll, select,
};
use rustix::io::Errno;

use super::Interest;

/// Waits until one of `fds` is ready, at most for `timeout`, and calls `on_ready` with the index of each that is.
pub(crate) fn wait_for(
    fds: &[(BorrowedFd<'_>, Interest)],
    timeout: Option<&Timespec>,
    mut on_ready: impl FnMut(usize),
) -> Result<(), Errno> {
    let mut by_poll = |polled: &mut [PollFd<'_>]| {
        poll(polled, timeout)?;
        let ready = polled.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
        ready.for_each(|(index, _)| on_ready(index));
        Ok(())
    };
    let polled = |(fd, interest): &(_, Interest)| PollFd::from_borrowed_fd(*fd, interest.flags());
    let answer = match fds {
        [one] => by_poll(&mut [polled(one)]),
        [one, two] => by_poll(&mut [polled(one), polled(two)]),
        more => by_poll(&mut more.iter().map(polled).collect::<Vec<_>>()),
    };
    match answer {
        Err(Errno::INVAL) if !fds.is_empty() => by_select(fds, timeout, on_ready),
        answer => answer,
    }
}

/// Whether `fd` is ready now.
///
/// # Errors
/// Where that cannot be found out.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, interest: Interest) -> Result<bool, Errno> {
    let mut is_ready = false;
    rustix::io::retry_on_intr(|| {
        wait_for(&[(fd, interest)], Some(&Timespec::default()), |_| is_ready = true)
    })?;
    Ok(is_ready)
}

fn by_select(
    fds: &[(BorrowedFd<'_>, Interest)],
    timeout: Option<&Timespec>,
    mut on_ready: impl FnMut(usize),
) -> Result<(), Errno> {
    let end = fds.iter().map(|(fd, _)| fd.as_raw_fd() + 1).max().unwrap_or(0);
    let set_of = |wanted: Interest| {
        let mut set = vec![FdSetElement::default(); fd_set_num_elements(fds.len(), end)];
        let numbers = fds.iter().filter(|(_, interest)| *interest == wanted).map(|(fd, _)| fd.as_raw_fd());
        numbers.for_each(|number| fd_set_insert(&mut set, number));
        set
    };
    let (mut readable, mut writable) = (set_of(Interest::Read), set_of(Interest::Write));
    // SAFETY: the descriptors in the sets are borrowed until after the call.
    unsafe { select(end, Some(&mut readable), Some(&mut writable), None, timeout) }?;
    for (index, (fd, interest)) in fds.iter().enumerate() {
        let set = if *interest == Interest::Read { &readable } else { &writable };
        if FdSetIter::new(set).any(|number| number == fd.as_raw_fd()) {
            on_ready(index);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    /// Every way of waiting, with the same answers.
    #[test]
    fn select_finds_what_poll_finds() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_quiet, other) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &ours, b"x").unwrap();
        let read = |socket| (socket, Interest::Read);
        let lists = [
            vec![read(theirs.as_fd())],
            vec![read(other.as_fd()), read(theirs.as_fd())],
            vec![read(other.as_fd()), (other.as_fd(), Interest::Write), read(theirs.as_fd())],
            vec![read(other.as_fd())],
        ];
        let now = Timespec::default();
        for (list, expected) in lists.iter().zip([&[0][..], &[1], &[1, 2], &[]]) {
            let (mut polled, mut selected) = (Vec::new(), Vec::new());
            wait_for(list, Some(&now), |index| polled.push(index)).unwrap();
            by_select(list, Some(&now), |index| selected.push(index)).unwrap();
            assert_eq!((&polled[..], &selected[..]), (expected, expected));
        }
        let begin = std::time::Instant::now();
        let soon = Timespec::try_from(Duration::from_millis(5)).unwrap();
        by_select(&[read(other.as_fd())], Some(&soon), |_| panic!("nothing is there")).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(5));
    }
}
