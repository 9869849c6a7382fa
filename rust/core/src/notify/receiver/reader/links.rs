//! The links of senders: how many messages of each have been delivered, while there is no socket too.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::peer::PeerLink;
use crate::control::wire::notification::LINK_SIZE;

/// Links without a socket and without a connection that are remembered.
const WITHOUT_SOCKET: usize = 4096;
/// For how long they are.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

type LinkName = [u8; LINK_SIZE];

/// By name.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<LinkName, Link>);

#[derive(Debug)]
struct Link {
    delivered: u64,
    socket: Option<u64>,
    /// Since when it has none.
    since: Instant,
}

impl Links {
    /// The socket of a link, if it has one.
    pub(super) fn socket_of(&self, name: &[u8; LINK_SIZE]) -> Option<u64> {
        self.0.get(name)?.socket
    }

    /// `socket` is the link's from now on. `None` if it is said to have had another one, and is not known: then it is not known either
    /// which messages have been delivered; or if it is said to be new, and is not.
    pub(super) fn join(&mut self, socket: u64, name: [u8; LINK_SIZE], again: bool) -> Option<PeerLink> {
        let now = Instant::now();
        if again != self.0.contains_key(&name) {
            return None;
        }
        let link = self.0.entry(name).or_insert(Link { delivered: 0, socket: None, since: now });
        link.socket = Some(socket);
        Some(PeerLink { name, delivered: link.delivered, told: link.delivered, mute: false })
    }

    /// `socket` is not there any more. Links of connections are remembered for as long as these live: the socket of such a one is being
    /// made anew. Of others it is not known whether they come back.
    pub(super) fn left(&mut self, socket: u64, of: PeerLink, is_of_connection: &dyn Fn(&LinkName) -> bool) {
        let now = Instant::now();
        if let Some(link) = self.0.get_mut(&of.name).filter(|link| link.socket == Some(socket)) {
            *link = Link { delivered: of.delivered, socket: None, since: now };
        }
        let is_free = |name: &LinkName, link: &Link| link.socket.is_none() && !is_of_connection(name);
        let is_old = |link: &Link| now.duration_since(link.since) >= FORGOTTEN_AFTER;
        let free = self.0.iter().filter(|(name, link)| is_free(name, link)).map(|(_, link)| link);
        if free.clone().count() > WITHOUT_SOCKET || free.clone().any(is_old) {
            let oldest = free.map(|link| link.since).min();
            self.0.retain(|name, link| !is_free(name, link) || !is_old(link) && Some(link.since) != oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_outlives_its_sockets() {
        let mut links = Links::default();
        assert!(links.join(1, [7; 16], true).is_none(), "not known");
        let first = links.join(1, [7; 16], false).unwrap();
        assert_eq!((first.delivered, links.socket_of(&[7; 16])), (0, Some(1)));
        links.left(1, PeerLink { delivered: 5, ..first }, &|_| false);
        assert_eq!(links.socket_of(&[7; 16]), None);
        assert!(links.join(2, [7; 16], false).is_none(), "a name that is taken");
        let second = links.join(2, [7; 16], true).unwrap();
        assert_eq!((second.delivered, second.told), (5, 5));
        links.left(1, PeerLink { delivered: 9, ..first }, &|_| false);
        assert_eq!(links.socket_of(&[7; 16]), Some(2), "a socket that is not the link's says nothing of it");
    }

    #[test]
    fn those_without_a_socket_are_bounded_and_those_of_connections_stay() {
        let mut links = Links::default();
        let is_of_connection = |name: &LinkName| *name == [0xff; LINK_SIZE];
        let away = links.join(u64::MAX, [0xff; LINK_SIZE], false).unwrap();
        links.left(u64::MAX, PeerLink { delivered: 3, ..away }, &is_of_connection);
        for number in 0..WITHOUT_SOCKET as u64 + 100 {
            let mut name = [0; LINK_SIZE];
            name[..8].copy_from_slice(&number.to_le_bytes());
            let link = links.join(number, name, false).unwrap();
            links.left(number, link, &is_of_connection);
        }
        assert!(links.0.len() <= WITHOUT_SOCKET + 1);
        assert_eq!(links.join(7, [0xff; LINK_SIZE], true).unwrap().delivered, 3, "the oldest of all");
    }
}
