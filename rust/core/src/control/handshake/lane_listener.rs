//! The listener of one session's lane socket: other clients that connect to it first are refused and hold nobody up.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Instant;

use subtle::ConstantTimeEq;

use super::Limits;
use super::candidates::Candidates;
use crate::control::socket::wait_any;
use crate::control::wire::{MAX_LANES, SocketKind};
use crate::control::{Abort, Listener, PROOF_SIZE, Stream};

#[derive(Debug)]
pub(super) struct LaneListener {
    listener: Listener,
    abort: Abort,
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

    /// The first connection that says the right hello, and how many lanes it offers: the preamble of a lane socket, which
    /// every client may know, the session's proof if there is one, and a number of lanes that there can be. `UnexpectedEof`
    /// when the peer closes its bootstrap socket meanwhile.
    pub(super) fn accept(
        self,
        bootstrap: &Stream,
        proof: Option<&[u8; PROOF_SIZE]>,
        deadline: Instant,
    ) -> io::Result<(Stream, u32)> {
        let mut expected = SocketKind::Lanes.encode().to_vec();
        expected.extend(proof.into_iter().flatten());
        let mut candidates = Candidates::new(expected.len() + size_of::<u32>());
        loop {
            let fds: Vec<_> = std::iter::once(self.listener.as_fd()).chain(candidates.fds()).collect();
            wait_any(&fds, Some(bootstrap.as_fd()), Some(deadline), &self.abort)?;
            if let Some(stream) = self.listener.try_accept()? {
                candidates.push(stream);
            }
            while let Some((stream, hello)) = candidates.take_ready() {
                let (hello, offer) = hello.split_at(hello.len().min(expected.len()));
                let offer = offer.try_into().map_or(0, u32::from_le_bytes);
                if (1..=MAX_LANES).contains(&offer) && hello.ct_eq(&expected).into() {
                    return Ok((stream, offer));
                }
                tracing::info!("closed a stray connection from {} on a lane listener", stream.peer());
            }
            if bootstrap.is_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
