//! Which peers are read although the queue is full.
//!
//! A sender that makes its socket anew keeps so many messages as are not delivered, and ends by closing it. Were the rest left in the
//! sockets' buffers, then the number of delivered messages that it is told later would meet a closed socket, and the kernel of the sender would
//! throw away what it has not sent yet. So what such a sender may have sent is read.

use super::Reader;
use super::peer::Peer;
use crate::notify::kept::ROOM;

/// Bytes that are read ahead of all peers.
const OF_ALL: usize = 16 << 20;

impl Reader {
    /// Whether the socket of a peer is to be watched after its input was processed. Counts what is read ahead of it.
    pub(super) fn watches(&mut self, number: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&number) else { return false };
        let is_full = peer.held_back.is_some();
        let ahead = if is_full { peer.bytes.len() } else { 0 };
        self.ahead = self.ahead - peer.ahead + ahead;
        peer.ahead = ahead;
        !is_full || reads_ahead(peer, ROOM.1.saturating_add(self.options.policy.max_bytes), self.ahead)
    }
}

fn reads_ahead(peer: &Peer, most: usize, of_all: usize) -> bool {
    peer.link.is_some() && !peer.ended && peer.ahead < most && of_all < OF_ALL
}
