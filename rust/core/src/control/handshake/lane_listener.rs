//! The listener of one session's lane socket: strangers that connect to it first neither get in nor hold it up.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use subtle::ConstantTimeEq;

use super::Limits;
use crate::control::socket::wait_any;
use crate::control::wire::{PREAMBLE_SIZE, SocketKind};
use crate::control::{Abort, Listener, PROOF_SIZE, Stream};

/// Connections that may be half-way through their hello; the oldest goes when another one comes.
const MAX_CANDIDATES: usize = 16;

#[derive(Debug)]
pub(super) struct LaneListener {
    listener: Listener,
    abort: Abort,
}

/// A connection of which part of the hello has been read.
struct Candidate {
    stream: Stream,
    hello: Vec<u8>,
}

impl LaneListener {
    pub(super) fn bind(address: IpAddr, limits: &Limits) -> io::Result<Self> {
        let abort = limits.abort.clone().map_or_else(Abort::new, Ok)?;
        let listener = Listener::bind(address, limits.ports, &abort)?.with_allow_list(limits.allow.clone());
        Ok(Self { listener, abort })
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.listener.local()
    }

    /// The first connection that says the right hello: the preamble of a lane socket, and the session's proof if
    /// there is one. `UnexpectedEof` when the peer closes its bootstrap socket meanwhile.
    pub(super) fn accept(
        self,
        bootstrap: &Stream,
        proof: Option<&[u8; PROOF_SIZE]>,
        deadline: Instant,
    ) -> io::Result<Stream> {
        let mut expected = SocketKind::Lanes.encode().to_vec();
        expected.extend(proof.into_iter().flatten());
        let mut candidates: Vec<Candidate> = Vec::new();
        loop {
            let fds: Vec<BorrowedFd<'_>> = std::iter::once(self.listener.as_fd())
                .chain(candidates.iter().map(|candidate| candidate.stream.as_fd()))
                .collect();
            wait_any(&fds, bootstrap.as_fd(), deadline, &self.abort)?;
            if let Some(stream) = self.listener.try_accept()? {
                if candidates.len() == MAX_CANDIDATES {
                    candidates.remove(0);
                }
                candidates.push(Candidate { stream, hello: Vec::with_capacity(PREAMBLE_SIZE + PROOF_SIZE) });
            }
            let mut index = 0;
            while let Some(candidate) = candidates.get_mut(index) {
                match candidate.advance(&expected) {
                    Progress::Right => return Ok(candidates.swap_remove(index).stream),
                    Progress::Waiting => index += 1,
                    Progress::Wrong => {
                        let stranger = candidates.remove(index).stream.peer();
                        tracing::info!("closed a stray connection from {stranger} on a lane listener");
                    }
                }
            }
            if bootstrap.is_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

enum Progress {
    Right,
    Waiting,
    Wrong,
}

impl Candidate {
    fn advance(&mut self, expected: &[u8]) -> Progress {
        let mut buffer = [0; PREAMBLE_SIZE + PROOF_SIZE];
        // Not a byte more than the hello: what follows belongs to the lane exchange.
        let missing = expected.len().saturating_sub(self.hello.len());
        let Some(room) = buffer.get_mut(..missing) else { return Progress::Wrong };
        match self.stream.try_read(room) {
            Ok(Some(0)) => return Progress::Wrong,
            Ok(Some(count)) => self.hello.extend(room.iter().take(count)),
            Ok(None) => return Progress::Waiting,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Progress::Waiting,
            Err(_) => return Progress::Wrong,
        }
        if self.hello.len() < expected.len() {
            return Progress::Waiting;
        }
        match bool::from(self.hello.as_slice().ct_eq(expected)) {
            true => Progress::Right,
            false => Progress::Wrong,
        }
    }
}
