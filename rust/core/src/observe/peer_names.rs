//! The names of peers in metrics: bounded in number.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::{MOST_PEERS, OTHER_PEERS};

/// The peers with series of their own.
#[derive(Debug, Default)]
pub(super) struct PeerNames(HashMap<String, Weak<str>>);

impl PeerNames {
    /// The name under which a peer is counted, for as long as the answer and its copies live: its own, or that of all others while
    /// [`MOST_PEERS`] have one. All connections with a peer have one name, unless it got its own between two of them.
    pub(super) fn acquire(&mut self, peer: &str) -> Arc<str> {
        if let Some(name) = self.0.get(peer).and_then(Weak::upgrade) {
            return name;
        }
        if self.0.len() >= MOST_PEERS {
            self.0.retain(|_, name| name.strong_count() > 0);
        }
        if self.0.len() >= MOST_PEERS {
            return Arc::from(OTHER_PEERS);
        }
        let name: Arc<str> = Arc::from(peer);
        self.0.insert(peer.to_owned(), Arc::downgrade(&name));
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_peers_have_names_of_their_own() {
        let mut names = PeerNames::default();
        let mut held: Vec<_> = (0..MOST_PEERS).map(|number| names.acquire(&number.to_string())).collect();
        assert!(held.iter().enumerate().all(|(number, name)| **name == *number.to_string()));
        assert_eq!(*names.acquire("late"), *OTHER_PEERS);
        assert_eq!(*names.acquire("7"), *"7", "a second connection");
        held.remove(3);
        assert_eq!(*names.acquire("late"), *"late", "the place of one that has ended");
    }
}
