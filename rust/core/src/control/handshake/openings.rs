//! The openings that peers accept.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::opening::Opening;
use crate::sync::{Mutex, lock};

/// Peers that require a hello first, by address: the next connection to one begins with it. Holds the latest 1,024; a
/// peer that is no longer in it costs one more attempt.
#[derive(Clone, Debug, Default)]
pub struct Openings(Arc<Mutex<VecDeque<SocketAddr>>>);

const LIMIT: usize = 1024;

impl Openings {
    /// The opening to begin with.
    pub(super) fn of(&self, peer: SocketAddr) -> Opening {
        if lock(&self.0).contains(&peer) { Opening::Hello } else { Opening::Handle }
    }

    /// Records the opening that the peer has accepted.
    pub(super) fn record(&self, peer: SocketAddr, opening: Opening) {
        let mut peers = lock(&self.0);
        match opening {
            Opening::Handle => peers.retain(|other| *other != peer),
            Opening::Hello if peers.contains(&peer) => {}
            Opening::Hello => {
                if peers.len() == LIMIT {
                    peers.pop_front();
                }
                peers.push_back(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_on_record_are_bounded() {
        let openings = Openings::default();
        let peer = |port: usize| SocketAddr::from(([127, 0, 0, 1], port as u16));
        for port in 0..=LIMIT {
            openings.record(peer(port), Opening::Hello);
            openings.record(peer(port), Opening::Hello);
        }
        assert_eq!((openings.of(peer(0)), openings.of(peer(1))), (Opening::Handle, Opening::Hello));
        assert_eq!(lock(&openings.0).len(), LIMIT);
        openings.record(peer(1), Opening::Handle);
        openings.record(peer(1), Opening::Handle);
        assert_eq!((openings.of(peer(1)), openings.of(peer(2))), (Opening::Handle, Opening::Hello));
    }
}
