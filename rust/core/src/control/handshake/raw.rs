//! The lane part alone: what the adaptor table's `connect` and `accept` do, without bootstrap socket and tables.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::candidates::{Candidates, report_stray};
use super::dialogue::Dialogue;
use super::error::{HandshakeError, PEER_TOLD, Reason, Step};
use super::{LaneSetup, Limits, PeerCapabilities, Role, lanes};
use crate::admission;
use crate::control::socket::{connect, is_starved};
use crate::control::wire::{Handle, PREAMBLE_SIZE, RAW_HANDLE_SIZE, SocketKind};
use crate::control::{Abort, Listener, LocalAddress, Stream};
use crate::events::{Interest, Waiter, run_blocking};

/// A peer of the raw functions.
#[derive(Debug)]
pub struct RawPeer {
    /// What its lanes can do.
    pub capabilities: PeerCapabilities,
    /// Lanes agreed.
    pub lanes: u32,
    /// The lane socket; it stays open, and its end is the peer's end.
    pub stream: Stream,
    /// When the call to connect began, or the peer's socket was accepted.
    pub began: Instant,
}

/// A listener for peers of the raw functions. Any thread may accept, several at once.
#[derive(Debug)]
pub struct RawListener {
    listener: Listener,
    advertised: SocketAddr,
    abort: Abort,
    /// Peers that connected while another one was being accepted, for the next call.
    candidates: Mutex<Candidates>,
}

impl RawListener {
    /// Listens as `local` says, on a port of `limits`. Refused when a key is required: the raw functions have no
    /// message for a proof.
    pub fn bind(local: &LocalAddress, limits: &Limits) -> Result<Self, HandshakeError> {
        let here = SocketAddr::new(local.bind, 0);
        check_no_key(here, limits)?;
        let bind = || -> io::Result<Self> {
            let abort = Abort::new()?;
            let listener =
                Listener::bind(local.bind, limits.ports, &abort)?.with_allow_list(limits.allow.clone());
            let advertised = SocketAddr::new(local.told(), listener.local().port());
            Ok(Self { listener, advertised, abort, candidates: Mutex::new(Candidates::new(PREAMBLE_SIZE)) })
        };
        bind().map_err(|error| HandshakeError::new(here, Step::LaneSocket, error))
    }

    /// What peers connect to.
    pub fn handle(&self) -> [u8; RAW_HANDLE_SIZE] {
        Handle::encode_raw(&self.advertised)
    }

    /// Ends every accept, now and in future.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Waits without limit for a peer, then at most for the handshake timeout for its lanes. Sockets of other
    /// programs are closed; silent ones delay no peer.
    pub fn accept(&self, lanes: &mut dyn LaneSetup, limits: &Limits) -> Result<RawPeer, HandshakeError> {
        let here = self.listener.local();
        let (stream, hello) =
            self.next_peer().map_err(|error| HandshakeError::new(here, Step::LaneSocket, error))?;
        let began = Instant::now();
        let deadline = began + limits.handshake_timeout;
        let waiter = Waiter::blocking(Some(&self.abort));
        let (peer, role) = (stream.peer(), Role::Responder);
        let dialogue = Dialogue { stream: &stream, waiter: &waiter, peer, role, deadline };
        dialogue.check_preamble(&hello, SocketKind::Lanes)?;
        let (capabilities, count) = run_blocking(lanes::set_up(&dialogue, lanes, None))?;
        Ok(finish(stream, capabilities, count, limits, began))
    }

    /// The next socket that speaks the protocol, and its preamble.
    fn next_peer(&self) -> io::Result<(Stream, Vec<u8>)> {
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.abort.is_aborted() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            while let Some((stream, hello)) = candidates.take_ready() {
                if SocketKind::decode(&hello).is_ok() {
                    return Ok((stream, hello));
                }
                report_stray(&stream);
            }
            let fds: Vec<_> = std::iter::once(self.listener.as_fd())
                .chain(candidates.fds())
                .map(|fd| (fd, Interest::Read))
                .collect();
            let waiter = Waiter::blocking(Some(&self.abort));
            run_blocking(waiter.any(&fds, None))?;
            match self.listener.try_accept() {
                Ok(stream) => stream.into_iter().for_each(|stream| candidates.push(stream)),
                Err(error) if is_starved(&error) => {
                    run_blocking(waiter.pause(admission::pause_after(self.listener.local(), &error)))?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Connects to the raw listener that `handle` names (its first 40 bytes count).
pub fn initiate_raw(
    handle: &[u8],
    lanes: &mut dyn LaneSetup,
    limits: &Limits,
) -> Result<RawPeer, HandshakeError> {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let target =
        Handle::decode_raw(handle).map_err(|error| HandshakeError::new(nowhere, Step::Handles, error))?;
    check_no_key(target, limits)?;
    let began = Instant::now();
    let stream = connect(target, began + limits.connect_timeout, limits.abort.as_ref()).map_err(|error| {
        HandshakeError::new(target, Step::Connect, Reason::unreached(target, PEER_TOLD, error))
    })?;
    let deadline = Instant::now() + limits.handshake_timeout;
    let waiter = Waiter::blocking(limits.abort.as_ref());
    let dialogue =
        Dialogue { stream: &stream, waiter: &waiter, peer: target, role: Role::Initiator, deadline };
    let (capabilities, count) = run_blocking(async {
        dialogue.write(Step::Preamble, &SocketKind::Lanes.encode()).await?;
        lanes::set_up(&dialogue, lanes, None).await
    })?;
    Ok(finish(stream, capabilities, count, limits, began))
}

/// The raw functions have no message for a proof.
fn check_no_key(peer: SocketAddr, limits: &Limits) -> Result<(), HandshakeError> {
    match limits.auth {
        Some(_) if !limits.allow_original => Err(HandshakeError::new(
            peer,
            Step::Authentication,
            Reason::Refused("connections of the adaptor table cannot prove the key that is set"),
        )),
        _ => Ok(()),
    }
}

fn finish(
    stream: Stream,
    capabilities: PeerCapabilities,
    lanes: u32,
    limits: &Limits,
    began: Instant,
) -> RawPeer {
    RawPeer { capabilities, lanes, stream: super::long_lived(stream, limits), began }
}
