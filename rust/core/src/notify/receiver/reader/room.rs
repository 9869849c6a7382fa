//! The limit of unauthenticated senders: which count against it, and which one makes room for another.

use std::collections::HashMap;

use super::Reader;

impl Reader {
    /// Removes silent senders until at most `limit` unauthenticated ones are left, the new one included; false if
    /// that is not possible. A connection that has ended may leave several too many.
    pub(super) fn fits(&mut self, newcomer: u64, limit: usize) -> bool {
        while self.unauthenticated().len() > limit {
            if !self.make_room(newcomer) {
                return false;
            }
        }
        true
    }

    /// The senders that count against the limit: unauthenticated ones without a connection. A socket does not name
    /// its connection, so for each connection of a host one of its sockets is exempt; sockets that have announced
    /// their process, as those of peers do, are exempt first.
    fn unauthenticated(&self) -> Vec<u64> {
        let mut by_host: HashMap<_, Vec<_>> = HashMap::new();
        for (&number, peer) in
            self.peers.iter().filter(|(_, peer)| peer.decoder.is_admitted() && !peer.proven)
        {
            by_host.entry(peer.stream.peer().ip()).or_default().push((!peer.owned, number));
        }
        let beyond = by_host.into_iter().flat_map(|(host, mut senders)| {
            senders.sort_unstable();
            senders.into_iter().skip(self.options.connected_hosts.count(host)).map(|(_, number)| number)
        });
        beyond.collect()
    }

    /// Closes the socket of the sender without a connection that has been silent longest; false when there is none.
    ///
    /// Never a peer's: senders get no acknowledgement, so a displaced peer would lose the messages that it sends
    /// before it notices. A socket of a host with connections is closed only if it has not announced its process, no
    /// socket of another host can be closed, and the new sender is of the same host: then one of the two belongs to
    /// no connection, and the new one is a peer's.
    fn make_room(&mut self, newcomer: u64) -> bool {
        let limit = self.options.hello_timeout;
        let Some(host) = self.peers.get(&newcomer).map(|peer| peer.stream.peer().ip()) else { return false };
        let connected = |host| self.options.connected_hosts.count(host) > 0;
        let candidates = self.unauthenticated().into_iter().filter_map(|number| {
            let peer = self.peers.get(&number).filter(|peer| number != newcomer && peer.is_drained(limit))?;
            let of_connected_host = connected(peer.stream.peer().ip());
            (!of_connected_host || (!peer.owned && connected(host))).then_some((
                of_connected_host,
                peer.last_received,
                number,
            ))
        });
        let silent = candidates.min().map(|(_, _, number)| number);
        let Some(gone) = silent.and_then(|number| self.remove(number)) else { return false };
        tracing::info!(
            "notification sender {} displaced by another one: it has no connection and is silent",
            gone.stream.peer()
        );
        true
    }
}
