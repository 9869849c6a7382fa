//! The listener of one session's lane socket: other clients that connect to it first are refused and delay no peer.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use super::Limits;
use super::candidates::{Candidates, report_stray};
use super::dialogue::Dialogue;
use crate::admission;
use crate::auth::{PROOF_SIZE, Session};
use crate::control::socket::is_starved;
use crate::control::wire::{MAX_LANES, PREAMBLE_SIZE, SocketKind};
use crate::control::{Abort, Listener, Stream};
use crate::events::{Interest, Waiter};

#[derive(Debug)]
pub(super) struct LaneListener(Listener);

impl LaneListener {
    pub(super) async fn bind(address: IpAddr, limits: &Limits, waiter: &Waiter) -> io::Result<Self> {
        let abort = limits.abort.clone().map_or_else(Abort::new, Ok)?;
        let listener = match limits.ports {
            None => Listener::bind(address, None, &abort)?,
            // By a helper: when the range is used up, this tries each port and reads the table of all sockets of the
            // host.
            ports => waiter.call(move || Listener::bind(address, ports, &abort)).await?,
        };
        Ok(Self(listener.with_allow_list(limits.allow.clone())))
    }

    pub(super) fn local(&self) -> SocketAddr {
        self.0.local()
    }

    /// The first connection with a valid hello, and the number of lanes that it offers. The hello is the preamble of
    /// a lane socket, which any client can send, the initiator's seal if there is a session, and a valid number of
    /// lanes. `UnexpectedEof` when the peer closes its bootstrap socket meanwhile.
    pub(super) async fn accept(
        self,
        bootstrap: &Dialogue<'_>,
        session: Option<&Session>,
    ) -> io::Result<(Stream, u32)> {
        let seal = if session.is_some() { PROOF_SIZE } else { 0 };
        let mut candidates = Candidates::new(PREAMBLE_SIZE + seal + size_of::<u32>());
        // No data is due on the bootstrap socket now: if it is readable, it has most likely been closed. One with
        // unexpected data is not polled again, because it would stay readable.
        let mut watches_bootstrap = true;
        loop {
            let mut fds = vec![(self.0.as_fd(), Interest::Read)];
            fds.extend(watches_bootstrap.then(|| (bootstrap.stream.as_fd(), Interest::Read)));
            fds.extend(candidates.fds().map(|fd| (fd, Interest::Read)));
            bootstrap.waiter.any(&fds, Some(bootstrap.deadline)).await?;
            match self.0.try_accept() {
                Ok(stream) => stream.into_iter().for_each(|stream| candidates.push(stream)),
                Err(error) if is_starved(&error) => {
                    bootstrap.waiter.pause(admission::pause_after(self.local(), &error)).await?
                }
                Err(error) => return Err(error),
            }
            while let Some((stream, hello)) = candidates.take_ready() {
                if let Some(offer) = accepted(&hello, session) {
                    return Ok((stream, offer));
                }
                report_stray(&stream);
            }
            if bootstrap.stream.is_closed() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            watches_bootstrap = watches_bootstrap && bootstrap.stream.is_quiet();
        }
    }
}

/// The hello of an initiator on its lane socket.
pub(super) fn hello(session: Option<&Session>) -> Vec<u8> {
    let seal = session.map(|session| session.seal(LABEL, &[]));
    SocketKind::Lanes.encode().into_iter().chain(seal.into_iter().flatten()).collect()
}

/// The number of lanes that a client offers after a valid hello; `None` for any other.
fn accepted(hello: &[u8], session: Option<&Session>) -> Option<u32> {
    let rest = hello.strip_prefix(&SocketKind::Lanes.encode())?;
    let offer = match session {
        None => rest,
        Some(session) => {
            let (seal, offer) = rest.split_first_chunk()?;
            session.verify(LABEL, &[], seal).ok()?;
            offer
        }
    };
    let offer = u32::from_le_bytes(offer.try_into().ok()?);
    (1..=MAX_LANES).contains(&offer).then_some(offer)
}

const LABEL: &str = "lanes";
