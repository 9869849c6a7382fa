//! The bytes of a peer that are read from its socket and not decoded yet.

use super::CHUNK;

/// A queue of bytes, as one slice. Taking some from its beginning does not move the others each time: there may be megabytes.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: Vec<u8>,
    /// So many of them are taken.
    taken: usize,
}

impl Unread {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes `count` bytes, at most those that there are.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = self.bytes.len().min(self.taken.saturating_add(count));
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        if self.bytes.is_empty() {
            // The buffer of a large message must not stay allocated for the rest of the connection.
            self.bytes.shrink_to(CHUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_leave_in_their_order(steps in proptest::collection::vec((0..50_usize, 0..60_usize), 0..100)) {
            let (mut unread, mut expected, mut next) = (Unread::default(), Vec::new(), 0_u8);
            for (arrive, take) in steps {
                let arrived: Vec<_> = (0..arrive).map(|at| next.wrapping_add(at as u8)).collect();
                next = next.wrapping_add(arrive as u8);
                unread.push(&arrived);
                expected.extend(arrived);
                unread.take(take);
                expected.drain(..take.min(expected.len()));
                prop_assert_eq!(unread.rest(), &expected[..]);
                prop_assert_eq!((unread.len(), unread.is_empty()), (expected.len(), expected.is_empty()));
            }
        }
    }
}
