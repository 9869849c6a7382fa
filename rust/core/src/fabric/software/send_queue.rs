//! The ring of requests of one queue pair that are being carried out.
//!
//! Three counts run behind one another and say what became of a request: `reported <= executed <= posted`.

use crate::fabric::{Batch, Opcode, QueuePairCaps, Sge, WorkRequest};

/// One request as it lies in the ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedRequest {
    pub(super) id: u64,
    pub(super) remote_address: u64,
    pub(super) rkey: u32,
    pub(super) opcode: Opcode,
    pub(super) signaled: bool,
    sge_count: u8,
    /// Sum of its entries.
    pub(super) length: u64,
}

const EMPTY: QueuedRequest = QueuedRequest {
    id: 0,
    remote_address: 0,
    rkey: 0,
    opcode: Opcode::Write,
    signaled: false,
    sge_count: 0,
    length: 0,
};

/// What a request is given by the batch that it was posted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) id: u64,
    pub(super) opcode: Opcode,
    pub(super) signaled: bool,
}

impl Label {
    /// Of request `index` of `batch`.
    pub(super) fn of(batch: &Batch<'_>, index: usize) -> Self {
        Self { id: batch.id(index), opcode: batch.opcode, signaled: batch.is_signaled(index) }
    }
}

/// A piece of a request's local buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) address: u64,
    pub(super) length: u64,
    /// Key to check it by.
    pub(super) lkey: u32,
}

/// The ring. Allocated once, as large as the queue pair's capabilities.
#[derive(Debug)]
pub(super) struct SendQueue {
    depth: usize,
    max_sge: usize,
    requests: Box<[QueuedRequest]>,
    /// `max_sge` entries for each slot of `requests`.
    entries: Box<[Sge]>,
    /// Requests accepted so far.
    pub(super) posted: u64,
    /// Requests carried out so far.
    pub(super) executed: u64,
    /// Requests that have been reported by a completion, or are unsignaled and need none: their slots are free.
    pub(super) reported: u64,
}

impl SendQueue {
    pub(super) fn new(caps: QueuePairCaps) -> Self {
        let depth = caps.send_depth as usize;
        Self {
            depth,
            max_sge: caps.max_sge as usize,
            requests: vec![EMPTY; depth].into_boxed_slice(),
            entries: vec![Sge::default(); depth * caps.max_sge as usize].into_boxed_slice(),
            posted: 0,
            executed: 0,
            reported: 0,
        }
    }

    /// Takes a request over, which [`super::incoming`] has checked and found room for.
    pub(super) fn push(&mut self, label: Label, request: &WorkRequest, entries: &[Sge]) {
        let slot = self.slot(self.posted);
        let start = slot * self.max_sge;
        let places = self.entries.get_mut(start..start + entries.len());
        if let (Some(places), Some(place)) = (places, self.requests.get_mut(slot)) {
            places.copy_from_slice(entries);
            *place = QueuedRequest {
                id: label.id,
                remote_address: request.remote_address,
                rkey: request.rkey,
                opcode: label.opcode,
                signaled: label.signaled,
                sge_count: entries.len() as u8,
                length: entries.iter().map(|entry| u64::from(entry.length)).sum(),
            };
        }
        self.posted += 1;
    }

    /// The `index`-th request ever posted, if it still is in the ring.
    pub(super) fn get(&self, index: u64) -> Option<&QueuedRequest> {
        if index < self.reported || index >= self.posted {
            return None;
        }
        self.requests.get(self.slot(index))
    }

    /// The local buffer of request `index` from `offset` on, piece by piece; empty entries are left out.
    pub(super) fn pieces(&self, index: u64, offset: u64) -> impl Iterator<Item = Piece> + '_ {
        let count = self.get(index).map_or(0, |request| usize::from(request.sge_count));
        let start = self.slot(index) * self.max_sge;
        let entries = self.entries.get(start..start + count).unwrap_or(&[]);
        let mut skip = offset;
        entries.iter().filter_map(move |entry| {
            let length = u64::from(entry.length);
            let skipped = skip.min(length);
            skip -= skipped;
            let (address, length) = (entry.address.wrapping_add(skipped), length - skipped);
            (length > 0).then_some(Piece { address, length, lkey: entry.lkey })
        })
    }

    /// How many unsignaled requests wait to be carried out: those that complete only if the queue pair fails.
    pub(super) fn silent_pending(&self) -> u64 {
        (self.executed..self.posted)
            .filter(|index| self.get(*index).is_some_and(|request| !request.signaled))
            .count() as u64
    }

    /// For each request that is not reported, whether it is signaled.
    pub(super) fn pending(&self) -> impl Iterator<Item = bool> + '_ {
        (self.reported..self.posted).filter_map(|index| self.get(index)).map(|request| request.signaled)
    }

    fn slot(&self, index: u64) -> usize {
        (index % self.depth.max(1) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(send_depth: u32) -> SendQueue {
        SendQueue::new(QueuePairCaps { send_depth, max_sge: 3, max_inline: 8 })
    }

    fn label(id: u64) -> Label {
        Label { id, opcode: Opcode::Write, signaled: false }
    }

    fn request(sge_count: u8) -> WorkRequest {
        WorkRequest { remote_address: 0, rkey: 0, first_sge: 0, origin: 0, sge_count, inline: false }
    }

    #[test]
    fn a_request_is_there_until_it_is_reported() {
        let mut queue = queue(2);
        for id in 0..5 {
            queue.push(label(id), &request(1), &[Sge::default()]);
            assert_eq!(queue.get(id).unwrap().id, id);
            assert!(queue.get(id + 1).is_none());
            queue.reported = id + 1;
            assert!(queue.get(id).is_none());
        }
    }

    #[test]
    fn pieces_start_at_the_offset_and_leave_empty_entries_out() {
        let mut queue = queue(2);
        let entry = |address, length| Sge { address, length, lkey: 1 };
        queue.push(label(0), &request(3), &[entry(100, 10), entry(200, 0), entry(300, 5)]);
        let ranges = |offset| -> Vec<_> {
            queue.pieces(0, offset).map(|piece| (piece.address, piece.length)).collect()
        };
        assert_eq!(ranges(0), [(100, 10), (300, 5)]);
        assert_eq!(ranges(4), [(104, 6), (300, 5)]);
        assert_eq!(ranges(10), [(300, 5)]);
        assert_eq!(ranges(15), []);
    }
}
