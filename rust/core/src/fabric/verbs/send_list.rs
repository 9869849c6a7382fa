//! The list of send work requests that is posted to the library.
//!
//! The `ibv_send_wr`s are allocated once and linked once. Posting fills in the fields that differ, points each
//! scatter/gather list into the caller's entries, and cuts the chain behind the last one.
#![allow(unsafe_code, reason = "links a C list")]

use std::ffi::c_uint;
use std::ptr::null_mut;
use std::slice::from_ref;

use super::sys::{ibv_send_flags as flag, ibv_send_wr, ibv_wr_opcode, rdma_t};
use crate::fabric::{Batch, Opcode, Sge, WorkRequest};

/// Requests that go to the library in one call at most: 128 KiB of work requests.
pub(super) const LONGEST: usize = 1024;
/// Slots at the start; the list grows to the longest one seen.
const SHORTEST: usize = 64;

const SIGNALED: c_uint = flag::IBV_SEND_SIGNALED.0;

/// One `ibv_send_wr`, on cache lines of its own: all fields that are written per request lie in the first of the two.
#[repr(C, align(64))]
struct SendWr(ibv_send_wr);

impl SendWr {
    /// `entries` are at most as many as a request has, and outlive the post.
    #[inline(always)]
    fn fill(&mut self, kind: Kind, request: &WorkRequest, entries: &[Sge], id: u64, flags: c_uint) {
        let Self(wr) = self;
        wr.wr_id = id;
        wr.sg_list = entries.as_ptr().cast_mut().cast();
        wr.num_sge = entries.len() as i32;
        wr.opcode = kind.opcode;
        wr.send_flags = flags | if request.inline { kind.inline } else { 0 };
        wr.wr.rdma = rdma_t { remote_addr: request.remote_address, rkey: request.rkey };
    }
}

/// What all requests of a batch are.
#[derive(Clone, Copy)]
struct Kind {
    opcode: c_uint,
    /// The flag of a request that is inline.
    inline: c_uint,
}

impl Kind {
    #[inline(always)]
    fn of(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Write => {
                Self { opcode: ibv_wr_opcode::IBV_WR_RDMA_WRITE, inline: flag::IBV_SEND_INLINE.0 }
            }
            // Nothing is sent along with a READ.
            Opcode::Read => Self { opcode: ibv_wr_opcode::IBV_WR_RDMA_READ, inline: 0 },
        }
    }
}

/// A chain of `ibv_send_wr`s. `wrs[i].next` is `wrs[i + 1]` everywhere but at `end`, where it is null.
pub(super) struct SendList {
    wrs: Vec<SendWr>,
    end: usize,
    max_sge: u8,
}

impl SendList {
    /// A list for a queue pair that takes `max_sge` entries per request.
    pub(super) fn new(max_sge: u32) -> Self {
        let mut list = Self { wrs: Vec::new(), end: 0, max_sge: u8::try_from(max_sge).unwrap_or(u8::MAX) };
        list.grow(SHORTEST);
        list
    }

    /// Fills in the requests of `batch`, at most [`LONGEST`], and says how many: fewer than offered if a request is
    /// malformed (no entries, more than the queue pair takes, or entries that are not there).
    pub(super) fn fill(&mut self, batch: &Batch<'_>) -> usize {
        if batch.requests.len() > self.wrs.len() {
            self.grow(batch.requests.len().min(LONGEST));
        }
        let filled = match batch.in_order() {
            Some(entries) => self.fill_in_order(batch, entries),
            None => self.fill_each(batch),
        };
        self.signal(batch, filled);
        if filled > 0 {
            self.cut_behind(filled - 1);
        }
        filled
    }

    /// Fills in requests of one entry each, which are `entries` from the first one on: the usual ones, for a third of the
    /// instructions less.
    #[inline(always)]
    fn fill_in_order(&mut self, batch: &Batch<'_>, entries: &[Sge]) -> usize {
        let kind = Kind::of(batch.opcode);
        let mut filled = 0;
        for (wr, (request, entry)) in self.wrs.iter_mut().zip(batch.requests.iter().zip(entries)) {
            wr.fill(kind, request, from_ref(entry), batch.id(filled), 0);
            filled += 1;
        }
        filled
    }

    fn fill_each(&mut self, batch: &Batch<'_>) -> usize {
        let kind = Kind::of(batch.opcode);
        let mut filled = 0;
        for (wr, request) in self.wrs.iter_mut().zip(batch.requests) {
            let Some(entries) = entries_of(request, batch.entries, self.max_sge) else { break };
            wr.fill(kind, request, entries, batch.id(filled), 0);
            filled += 1;
        }
        filled
    }

    /// The same for the only request of `batch`: false if it is malformed.
    #[inline(always)]
    pub(super) fn fill_one(&mut self, batch: &Batch<'_>, request: &WorkRequest) -> bool {
        let Some(wr) = self.wrs.first_mut() else { return false };
        let Some(entries) = entries_of(request, batch.entries, self.max_sge) else { return false };
        wr.fill(Kind::of(batch.opcode), request, entries, batch.first_id, SIGNALED);
        self.cut_behind(0);
        true
    }

    /// Fills in one WRITE without entries.
    pub(super) fn fill_empty(&mut self, id: u64, (remote_address, rkey): (u64, u32)) {
        let request =
            WorkRequest { remote_address, rkey, first_sge: 0, origin: 0, sge_count: 0, inline: false };
        if let Some(wr) = self.wrs.first_mut() {
            wr.fill(Kind::of(Opcode::Write), &request, &[], id, SIGNALED);
        }
        self.cut_behind(0);
    }

    /// Marks the signaled ones of the `filled` first: so few that testing each would cost more.
    fn signal(&mut self, batch: &Batch<'_>, filled: usize) {
        let mark = |SendWr(wr): &mut SendWr| wr.send_flags |= SIGNALED;
        let every = batch.signal_every as usize;
        if (1..=filled).contains(&every) {
            self.wrs.iter_mut().take(filled).skip(every - 1).step_by(every).for_each(mark);
        }
        if filled == batch.requests.len() {
            self.wrs.get_mut(..filled).and_then(<[_]>::last_mut).into_iter().for_each(mark);
        }
    }

    /// The first work request, for the library.
    pub(super) fn head(&mut self) -> *mut ibv_send_wr {
        self.wrs.as_mut_ptr().cast()
    }

    /// Which work request `request` is, of the `filled` first ones; zero if it is none of them.
    pub(super) fn position(&mut self, request: *const ibv_send_wr, filled: usize) -> usize {
        let distance = (request as usize).wrapping_sub(self.head() as usize);
        let position = distance / size_of::<SendWr>();
        if position < filled { position } else { 0 }
    }

    #[inline(always)]
    fn cut_behind(&mut self, last: usize) {
        if last != self.end {
            self.end_at(last);
        }
    }

    #[inline(never)]
    fn end_at(&mut self, last: usize) {
        let base = self.head();
        // The former last one gets its successor back.
        let successor = base.wrapping_byte_add((self.end + 1) * size_of::<SendWr>());
        if let Some(SendWr(wr)) = self.wrs.get_mut(self.end) {
            wr.next = successor;
        }
        if let Some(SendWr(wr)) = self.wrs.get_mut(last) {
            wr.next = null_mut();
        }
        self.end = last;
    }

    #[cold]
    fn grow(&mut self, length: usize) {
        // SAFETY: integers, null pointers, and unions of them: zero is a value.
        self.wrs.resize_with(length, || SendWr(unsafe { std::mem::zeroed() }));
        let base = self.head();
        for (index, SendWr(wr)) in self.wrs.iter_mut().enumerate() {
            wr.next = base.wrapping_byte_add((index + 1) * size_of::<SendWr>());
        }
        self.end = length - 1;
        if let Some(SendWr(wr)) = self.wrs.last_mut() {
            wr.next = null_mut();
        }
    }
}

/// The entries of a request; `None` if it is malformed.
#[inline(always)]
fn entries_of<'a>(request: &WorkRequest, entries: &'a [Sge], max_sge: u8) -> Option<&'a [Sge]> {
    let (first, count) = (request.first_sge as usize, request.sge_count);
    entries.get(first..first + usize::from(count)).filter(|_| count.wrapping_sub(1) < max_sge)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(index: u64, first_sge: u32, sge_count: u8) -> WorkRequest {
        WorkRequest {
            remote_address: 0x1000 + index,
            rkey: 7,
            first_sge,
            origin: 0,
            sge_count,
            inline: index.is_multiple_of(2),
        }
    }

    fn batch<'a>(requests: &'a [WorkRequest], entries: &'a [Sge]) -> Batch<'a> {
        Batch { opcode: Opcode::Write, first_id: 0, signal_every: 1, requests, entries, one_each: false }
    }

    /// Walks the chain as the library does.
    fn chain(list: &mut SendList) -> Vec<(u64, usize, i32, u32, u32, u64)> {
        let mut seen = Vec::new();
        let mut next = list.head();
        while !next.is_null() {
            // SAFETY: the chain consists of work requests of the list, which is alive.
            let wr = unsafe { &*next };
            // SAFETY: the list fills the rdma member.
            let rdma = unsafe { wr.wr.rdma };
            assert_eq!(rdma.rkey, 7);
            seen.push((
                wr.wr_id,
                wr.sg_list as usize,
                wr.num_sge,
                wr.opcode,
                wr.send_flags,
                rdma.remote_addr,
            ));
            next = wr.next;
        }
        seen
    }

    #[test]
    fn any_order_of_lengths_gives_the_right_chain() {
        let entries = [Sge { address: 1, length: 2, lkey: 3 }; 4];
        let requests: Vec<_> = (0..1500).map(|index| request(index, (index % 3) as u32, 2)).collect();
        let mut list = SendList::new(4);
        for (round, length) in [1, 64, 5, 5, 300, 2, 1500, 1024, 7, 1].into_iter().enumerate() {
            let batch = Batch {
                opcode: if round % 2 == 0 { Opcode::Read } else { Opcode::Write },
                // The lower half wraps on the way.
                first_id: 0x9_FFFF_FFF0,
                signal_every: [0, 1, 7, 100, u32::MAX][round % 5],
                ..batch(&requests[..length], &entries)
            };
            let expected = length.min(LONGEST);
            let filled = match batch.requests {
                [request] => usize::from(list.fill_one(&batch, request)),
                _ => list.fill(&batch),
            };
            assert_eq!(filled, expected);
            let seen = chain(&mut list);
            assert_eq!(seen.len(), expected);
            for (index, (id, sg_list, count, opcode, flags, remote)) in seen.into_iter().enumerate() {
                let (request, write) = (&requests[index], batch.opcode == Opcode::Write);
                assert_eq!(id, batch.id(index));
                assert_eq!(sg_list, &raw const entries[request.first_sge as usize] as usize);
                assert_eq!(count, 2);
                assert_eq!(opcode, if write { 0 } else { 4 });
                let inline = write && request.inline;
                assert_eq!(flags, u32::from(batch.is_signaled(index)) << 1 | u32::from(inline) << 3);
                assert_eq!(remote, request.remote_address);
            }
        }
    }

    #[test]
    fn requests_of_one_entry_each_are_filled_in_alike() {
        let entries: Vec<_> = (0..80).map(|n| Sge { address: n, length: 1, lkey: 3 }).collect();
        let requests: Vec<_> = (0..80).map(|index| request(index, index as u32, 1)).collect();
        for (start, length) in [(0, 80), (3, 70), (79, 1), (0, 0)] {
            let batch = batch(&requests[start..start + length], &entries);
            let mut lists = [SendList::new(1), SendList::new(1)];
            assert_eq!(lists[0].fill(&batch), length);
            assert_eq!(lists[1].fill(&Batch { one_each: true, ..batch }), length);
            if length > 0 {
                assert_eq!(chain(&mut lists[0]), chain(&mut lists[1]));
            }
        }
        let short = Batch { one_each: true, ..batch(&requests, &entries[..50]) };
        assert_eq!(SendList::new(1).fill(&short), 50, "no further than there are entries");
    }

    #[test]
    fn malformed_requests_end_the_list() {
        let entries = [Sge::default(); 4];
        let mut list = SendList::new(2);
        for bad in [request(9, 0, 0), request(9, 0, 3), request(9, 3, 2), request(9, u32::MAX, 1)] {
            let requests = [request(0, 0, 2), request(1, 2, 2), bad, request(3, 0, 1)];
            let batch = batch(&requests, &entries);
            assert_eq!(list.fill(&batch), 2);
            assert_eq!(chain(&mut list).len(), 2);
            let rest = Batch { requests: &requests[2..], ..batch };
            assert_eq!(list.fill(&rest), 0);
        }
    }

    #[test]
    fn positions_are_found_and_foreign_pointers_are_not() {
        let entries = [Sge::default(); 1];
        let requests: Vec<_> = (0..10).map(|id| request(id, 0, 1)).collect();
        let mut list = SendList::new(1);
        let filled = list.fill(&batch(&requests, &entries));
        let head = list.head();
        for position in 0..filled {
            let wr = head.wrapping_byte_add(position * size_of::<SendWr>());
            assert_eq!(list.position(wr, filled), position);
        }
        assert_eq!(list.position(std::ptr::null(), filled), 0);
        assert_eq!(list.position(head.wrapping_byte_add(4096 * 64), filled), 0);
    }
}
