//! What other threads may know of, and do to, a queue pair: everything here is lock-free or set once.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock, Weak};

use super::signal::Signal;
use super::table::Counterpart;
use crate::fabric::QpAddress;
use crate::process::EndWatcher;
use std::sync::atomic::{AtomicBool, Ordering};

/// The shared face of a queue pair.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) address: QpAddress,
    /// Slot in the device's queue pair table.
    pub(super) slot: usize,
    /// Set once connected.
    peer: OnceLock<QpAddress>,
    /// The process that it belongs to, where that is known: set by the thread that connects, before `peer`.
    peer_process: OnceLock<u32>,
    /// The counterpart, when it lives in this process.
    neighbour: OnceLock<Weak<Self>>,
    /// In ERROR: set by the owner, the responder or an in-process peer, never cleared; read by all of them. SeqCst:
    /// it pairs with nothing else, and is off the hot path but for one load per call.
    error: AtomicBool,
    /// In ERROR because of what the peer asked for: set before `error`, by the threads that set that. SeqCst as above.
    refused: AtomicBool,
    /// The peer's process, or its queue pair, is gone: set by the responder and by in-process peers. SeqCst as above.
    peer_gone: AtomicBool,
    /// Why it is going to ERROR, where its completions do not say. Set by the thread that advances it.
    error_text: OnceLock<String>,
    /// Wakes the worker that polls for this queue pair.
    signal: Arc<Signal>,
}

impl Endpoint {
    pub(super) fn new(address: QpAddress, slot: usize, signal: Arc<Signal>) -> Self {
        Self {
            address,
            slot,
            peer: OnceLock::new(),
            peer_process: OnceLock::new(),
            neighbour: OnceLock::new(),
            error: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            peer_gone: AtomicBool::new(false),
            error_text: OnceLock::new(),
            signal,
        }
    }

    pub(super) fn qpn(&self) -> u32 {
        self.address.qpn
    }

    /// The queue pair that it is connected to.
    pub(super) fn peer(&self) -> Option<&QpAddress> {
        self.peer.get()
    }

    /// Remembers its peer; false when it already is.
    pub(super) fn set_peer(&self, peer: QpAddress) -> bool {
        self.peer.set(peer).is_ok()
    }

    /// The number of the process of its peer, where that is known.
    pub(super) fn peer_process(&self) -> Option<u32> {
        self.peer_process.get().copied()
    }

    /// Remembers the process of its peer, as the kernel has named it.
    pub(super) fn set_peer_process(&self, pid: u32) {
        // A second call could only name the same one: a queue pair is connected once.
        let _ = self.peer_process.set(pid);
    }

    /// Remembers that the counterpart lives in this process.
    pub(super) fn set_neighbour(&self, neighbour: &Arc<Self>) {
        // A second call could only name the same one: a queue pair is connected once.
        let _ = self.neighbour.set(Arc::downgrade(neighbour));
    }

    pub(super) fn is_error(&self) -> bool {
        self.error.load(Ordering::SeqCst)
    }

    /// Whether what the peer asked for has moved it to ERROR.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::SeqCst)
    }

    /// What the peer has asked for is about to move it to ERROR. Says nothing of one that is there already.
    pub(super) fn set_refused(&self) {
        if !self.is_error() {
            self.refused.store(true, Ordering::SeqCst);
        }
    }

    /// Moves it to ERROR and wakes its worker, so that what is outstanding gets flushed. True for the first call.
    pub(super) fn set_error(&self) -> bool {
        let first = !self.error.swap(true, Ordering::SeqCst);
        if first {
            self.signal.sweep();
        }
        first
    }

    /// Says why it is going to ERROR; the first reason counts.
    pub(super) fn set_error_text(&self, text: String) {
        let _ = self.error_text.set(text);
    }

    /// What was said of that; empty if nothing was.
    pub(super) fn error_text(&self) -> &str {
        self.error_text.get().map_or("", String::as_str)
    }

    pub(super) fn is_peer_gone(&self) -> bool {
        self.peer_gone.load(Ordering::SeqCst)
            || self
                .neighbour
                .get()
                .is_some_and(|weak| weak.upgrade().is_none_or(|neighbour| neighbour.is_error()))
    }

    /// The peer is gone: what is outstanding towards it will fail.
    pub(super) fn set_peer_gone(&self) {
        if !self.peer_gone.swap(true, Ordering::SeqCst) {
            self.signal.sweep();
        }
    }

    /// How this queue pair stands towards the one that has address `asking`.
    pub(super) fn counterpart(&self, asking: &QpAddress) -> Counterpart {
        match self.peer() {
            _ if self.is_error() => Counterpart::Gone,
            None => Counterpart::NotYet,
            Some(peer) if peer.qpn == asking.qpn && listener_of(peer) == listener_of(asking) => {
                Counterpart::Ready
            }
            Some(_) => Counterpart::Gone,
        }
    }
}

impl EndWatcher for Endpoint {
    /// The peer's sockets alone would not say: a child that it has forked keeps them open.
    fn process_ended(&self) {
        self.set_peer_gone();
    }
}

/// The data listener that an address names.
pub(super) fn listener_of(address: &QpAddress) -> SocketAddr {
    SocketAddr::new(address.ip(), address.lid as u16)
}

/// `ip` as a GID: v6, or v4-mapped.
pub(super) fn gid_of(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}
