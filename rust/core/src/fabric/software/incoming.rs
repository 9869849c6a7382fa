//! What was posted on a queue pair and not taken over by the thread that carries it out.

use rustix::io::Errno;

use super::send_queue::Label;
use crate::fabric::{QueuePairCaps, Sge, WorkRequest};

/// Accepts requests as a send queue does: a slot is free again only when a completion at or after its request has been
/// polled, as with a NIC. Its lock is held for no longer than it takes to copy a list.
#[derive(Debug)]
pub(super) struct Incoming {
    caps: QueuePairCaps,
    list: List,
    /// Requests accepted so far.
    accepted: u64,
}

/// Requests with their entries, in posting order.
#[derive(Debug, Default)]
pub(super) struct List {
    requests: Vec<(Label, WorkRequest)>,
    /// What the requests' entries are ranges of.
    entries: Vec<Sge>,
}

impl Incoming {
    pub(super) fn new(caps: QueuePairCaps) -> Self {
        Self { caps, list: List::default(), accepted: 0 }
    }

    /// Requests accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Takes a request in; `retired` requests have given their slots back. `ENOMEM`: the send queue is full; `EINVAL`: its
    /// entries are none, too many, or not there.
    pub(super) fn accept(
        &mut self,
        label: Label,
        request: &WorkRequest,
        entries: &[Sge],
        retired: u64,
    ) -> Result<(), Errno> {
        if self.accepted - retired >= u64::from(self.caps.send_depth) {
            return Err(Errno::NOMEM);
        }
        let count = usize::from(request.sge_count);
        let first = request.first_sge as usize;
        let entries = entries.get(first..first + count).ok_or(Errno::INVAL)?;
        if count == 0 || count > self.caps.max_sge as usize {
            return Err(Errno::INVAL);
        }
        let first_sge = self.list.entries.len() as u32;
        self.list.entries.extend_from_slice(entries);
        self.list.requests.push((label, WorkRequest { first_sge, ..*request }));
        self.accepted += 1;
        Ok(())
    }

    /// Hands over what was accepted since the last call, and uses the room of `empty` for what comes next.
    pub(super) fn take(&mut self, empty: &mut List) {
        std::mem::swap(&mut self.list, empty);
    }

    /// What was accepted since the last [`Incoming::take`].
    pub(super) fn list(&self) -> &List {
        &self.list
    }
}

impl List {
    /// The requests with their entries.
    pub(super) fn requests(&self) -> impl Iterator<Item = (Label, &WorkRequest, &[Sge])> {
        self.requests.iter().map(|(label, request)| {
            let first = request.first_sge as usize;
            let entries = self.entries.get(first..first + usize::from(request.sge_count));
            (*label, request, entries.unwrap_or_default())
        })
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Opcode;

    fn incoming(send_depth: u32) -> Incoming {
        Incoming::new(QueuePairCaps { send_depth, max_sge: 3, max_inline: 8 })
    }

    fn label(id: u64) -> Label {
        Label { id, opcode: Opcode::Write, signaled: false }
    }

    fn request(first_sge: u32, sge_count: u8) -> WorkRequest {
        WorkRequest { remote_address: 0, rkey: 0, first_sge, origin: 0, sge_count, inline: false }
    }

    #[test]
    fn slots_come_back_when_retired_and_not_when_taken_over() {
        let (mut incoming, entries, mut list) = (incoming(2), [Sge::default()], List::default());
        let accept = |incoming: &mut Incoming, id, retired| {
            incoming.accept(label(id), &request(0, 1), &entries, retired)
        };
        assert_eq!(accept(&mut incoming, 0, 0), Ok(()));
        assert_eq!(accept(&mut incoming, 1, 0), Ok(()));
        incoming.take(&mut list);
        assert_eq!(accept(&mut incoming, 2, 0), Err(Errno::NOMEM));
        assert_eq!(accept(&mut incoming, 2, 1), Ok(()));
        let ids = |list: &List| list.requests().map(|(label, ..)| label.id).collect::<Vec<_>>();
        assert_eq!((ids(&list), ids(incoming.list())), (vec![0, 1], vec![2]));
    }

    #[test]
    fn each_request_keeps_its_own_entries() {
        let entry = |address| Sge { address, length: 1, lkey: 1 };
        let (mut incoming, entries) = (incoming(4), [entry(1), entry(2), entry(3)]);
        incoming.accept(label(0), &request(1, 2), &entries, 0).unwrap();
        incoming.accept(label(1), &request(0, 1), &entries, 0).unwrap();
        let of: Vec<_> = incoming.list().requests().map(|(_, _, entries)| entries.to_vec()).collect();
        assert_eq!(of, [vec![entry(2), entry(3)], vec![entry(1)]]);
    }

    #[test]
    fn malformed_requests_are_refused() {
        let (mut incoming, entries) = (incoming(2), [Sge::default(); 4]);
        for malformed in [request(0, 0), request(0, 4), request(3, 2)] {
            assert_eq!(incoming.accept(label(0), &malformed, &entries, 0), Err(Errno::INVAL));
        }
        assert_eq!(incoming.accepted(), 0);
    }
}
