//! Sockets with an incomplete hello: none of them delays the others.

use std::os::fd::{AsFd, BorrowedFd};

use crate::control::Stream;
use crate::observe::report;

/// Limit of connections with an incomplete hello; the oldest is closed when another one is accepted.
const MAX_CANDIDATES: usize = 16;

/// Accepted sockets with an incomplete hello.
#[derive(Debug)]
pub(super) struct Candidates {
    /// Bytes of a hello.
    size: usize,
    waiting: Vec<Candidate>,
}

/// A socket and the received part of its hello.
#[derive(Debug)]
struct Candidate {
    stream: Stream,
    hello: Vec<u8>,
}

impl Candidates {
    /// An empty set; each socket's hello has `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        Self { size, waiting: Vec::new() }
    }

    /// Adds a socket of which nothing has been read.
    pub(super) fn push(&mut self, stream: Stream) {
        if self.waiting.len() == MAX_CANDIDATES {
            self.waiting.remove(0);
        }
        self.waiting.push(Candidate { stream, hello: Vec::with_capacity(self.size) });
    }

    /// Descriptors to wait on: readable when more of a hello has arrived.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.waiting.iter().map(|candidate| candidate.stream.as_fd())
    }

    /// Reads without waiting, and removes and returns one socket with a complete hello.
    pub(super) fn take_ready(&mut self) -> Option<(Stream, Vec<u8>)> {
        let mut index = 0;
        while let Some(candidate) = self.waiting.get_mut(index) {
            match candidate.advance(self.size) {
                Progress::Ready => {
                    let candidate = self.waiting.remove(index);
                    return Some((candidate.stream, candidate.hello));
                }
                Progress::Waiting => index += 1,
                Progress::Gone => drop(self.waiting.remove(index)),
            }
        }
        None
    }
}

enum Progress {
    Ready,
    Waiting,
    Gone,
}

impl Candidate {
    fn advance(&mut self, size: usize) -> Progress {
        // Not a byte more than the hello: what follows belongs to the exchange after it.
        let mut room = vec![0; size.saturating_sub(self.hello.len())];
        match self.stream.try_read(&mut room) {
            Ok(Some(0)) => return Progress::Gone,
            Ok(Some(count)) => self.hello.extend(room.iter().take(count)),
            Ok(None) => return Progress::Waiting,
            Err(_) => return Progress::Gone,
        }
        if self.hello.len() < size { Progress::Waiting } else { Progress::Ready }
    }
}

/// Records a connection to a lane listener that is not of its session; dropping it closes it.
pub(super) fn report_stray(stream: &Stream) {
    let peer = stream.peer();
    report!(info, ClientRefused, peer = peer, "closed a stray connection from {peer} on a lane listener");
}
