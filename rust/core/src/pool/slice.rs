//! Cutting pieces into work requests: pure, so that posting, replay and the search for a failed piece agree.

use super::piece::Piece;
use crate::fabric::{MAX_SGE, Opcode, Sge, WorkRequest};

/// How pieces are cut and joined.
#[derive(Clone, Copy, Debug)]
pub struct SlicePolicy {
    /// Bytes of one slice, at least 1.
    slice: u32,
    /// A last slice takes a remainder of up to this many bytes along.
    fragment: u32,
    /// No request is longer than this: the port's message limit.
    limit: u32,
    /// Scatter/gather entries that one request may carry.
    max_sge: usize,
    /// Payloads up to this many bytes go inline.
    max_inline: u32,
}

impl SlicePolicy {
    /// `slice_size` 0 cuts only at the port's limit.
    pub fn new(
        slice_size: usize,
        fragment_limit: usize,
        max_message: u32,
        max_sge: u32,
        max_inline: u32,
    ) -> Self {
        let limit = max_message.clamp(1, Piece::MAX_LENGTH);
        let wanted = u32::try_from(slice_size).unwrap_or(u32::MAX);
        let slice = if wanted == 0 { limit } else { wanted.min(limit) };
        let fragment = u32::try_from(fragment_limit).unwrap_or(u32::MAX);
        Self { slice, fragment, limit, max_sge: (max_sge as usize).clamp(1, MAX_SGE), max_inline }
    }

    /// The same policy on a queue pair that was granted less.
    pub fn granted(self, max_sge: u32, max_inline: u32) -> Self {
        Self {
            max_sge: self.max_sge.min(max_sge as usize).max(1),
            max_inline: self.max_inline.min(max_inline),
            ..self
        }
    }

    /// Bytes of the next slice when `left` bytes of a piece are left.
    #[inline]
    pub fn next_length(&self, left: u32) -> u32 {
        let longest = self.slice.saturating_add(self.fragment).min(self.limit);
        if left <= longest { left } else { self.slice }
    }

    /// Longest request that joining pieces may make.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Bytes of one slice.
    pub fn slice_size(&self) -> u32 {
        self.slice
    }
}

/// A position in a list of pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Index of the next piece.
    pub piece: usize,
    /// Bytes of it that are behind.
    pub offset: u32,
}

/// A list of requests ready to post. Reused, so that posting allocates nothing.
#[derive(Debug)]
pub struct Batch {
    /// The requests.
    pub requests: Vec<WorkRequest>,
    /// Their scatter/gather entries.
    pub entries: Vec<Sge>,
    /// Bytes of all requests.
    pub bytes: u64,
}

impl Batch {
    /// Room for lists of `capacity` requests.
    pub fn new(capacity: usize) -> Self {
        Self { requests: Vec::with_capacity(capacity), entries: Vec::with_capacity(capacity), bytes: 0 }
    }

    /// Replaces the content with the next at most `max` requests of `pieces`, numbering them from `first_id`, and
    /// moves the cursor behind them. The last one is signaled, and every `signal_every`-th.
    #[inline]
    #[allow(clippy::too_many_arguments, reason = "one call site; the arguments are one thought each")]
    pub fn fill(
        &mut self,
        pieces: &[Piece],
        cursor: &mut Cursor,
        policy: &SlicePolicy,
        opcode: Opcode,
        inline: bool,
        first_id: u64,
        max: usize,
        signal_every: u32,
    ) {
        self.requests.clear();
        self.entries.clear();
        self.bytes = 0;
        let inline_limit = if inline && opcode == Opcode::Write { policy.max_inline } else { 0 };
        let mut id = first_id;
        let mut until_signal = signal_every;
        while self.requests.len() < max {
            let first_sge = self.entries.len();
            // The entry index of a request is 16 bits wide.
            if first_sge + policy.max_sge > usize::from(u16::MAX) {
                break;
            }
            let Some(request) = next_request(pieces, cursor, policy, &mut self.entries) else { break };
            self.bytes += u64::from(request.length);
            until_signal -= 1;
            let signaled = until_signal == 0;
            if signaled {
                until_signal = signal_every;
            }
            self.requests.push(WorkRequest {
                id,
                remote_address: request.remote,
                rkey: request.rkey,
                first_sge: first_sge as u16,
                sge_count: (self.entries.len() - first_sge) as u8,
                opcode,
                signaled,
                inline: request.length <= inline_limit,
            });
            // The sequence number lives in the low 32 bits and wraps inside them.
            id = (id & !0xffff_ffff) | u64::from((id as u32).wrapping_add(1));
        }
        if let Some(last) = self.requests.last_mut() {
            last.signaled = true;
        }
    }
}

struct Request {
    remote: u64,
    rkey: u32,
    length: u32,
}

/// Cuts the next request: one slice of one piece, or several whole pieces whose remote ranges touch, gathered. Inlined
/// by force: as a call it cost a third of what the engine spends per piece.
#[inline(always)]
fn next_request(
    pieces: &[Piece],
    cursor: &mut Cursor,
    policy: &SlicePolicy,
    entries: &mut Vec<Sge>,
) -> Option<Request> {
    let piece = pieces.get(cursor.piece)?;
    let left = piece.length - cursor.offset;
    let take = policy.next_length(left);
    let offset = u64::from(cursor.offset);
    entries.push(Sge { address: piece.local + offset, length: take, lkey: piece.lkey });
    let mut request = Request { remote: piece.remote + offset, rkey: piece.rkey, length: take };
    if take < left {
        cursor.offset += take;
        return Some(request);
    }
    cursor.offset = 0;
    cursor.piece += 1;
    let mut count = 1;
    while count < policy.max_sge {
        let Some(next) = pieces.get(cursor.piece) else { break };
        let touches = next.remote == request.remote + u64::from(request.length) && next.rkey == request.rkey;
        if !touches || next.length == 0 || next.length > policy.slice.saturating_sub(request.length) {
            break;
        }
        entries.push(Sge { address: next.local, length: next.length, lkey: next.lkey });
        request.length += next.length;
        cursor.piece += 1;
        count += 1;
    }
    Some(request)
}

/// Where the cursor stands after `count` requests from `start` on: for rewinding and for naming a failed piece.
pub fn advance(pieces: &[Piece], start: Cursor, policy: &SlicePolicy, count: u32) -> Cursor {
    let mut cursor = start;
    let mut entries = Vec::with_capacity(policy.max_sge);
    for _ in 0..count {
        entries.clear();
        if next_request(pieces, &mut cursor, policy, &mut entries).is_none() {
            break;
        }
    }
    cursor
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(local: u64, remote: u64, length: u32) -> Piece {
        Piece { local, remote, length, lkey: 1, rkey: 2, iov: 0 }
    }

    #[test]
    fn a_slice_takes_a_small_remainder_along() {
        let policy = SlicePolicy::new(1000, 100, 1 << 30, 1, 0);
        assert_eq!(policy.next_length(1100), 1100);
        assert_eq!(policy.next_length(1101), 1000);
        assert_eq!(policy.next_length(1000), 1000);
        assert_eq!(policy.next_length(3), 3);
    }

    #[test]
    fn no_request_exceeds_the_message_limit() {
        let policy = SlicePolicy::new(1 << 30, 4096, 1 << 20, 1, 0);
        assert_eq!(policy.next_length((1 << 20) + 1), 1 << 20);
        assert_eq!(SlicePolicy::new(0, 0, 1 << 20, 1, 0).next_length(u32::MAX), 1 << 20);
    }

    proptest! {
        /// Every byte is covered once, in order, on both sides; limits hold; `advance` agrees with `fill`.
        #[test]
        fn requests_cover_the_pieces(
            lengths in prop::collection::vec(0u32..5000, 1..40),
            touching in prop::collection::vec(any::<bool>(), 40),
            slice in 1usize..3000, fragment in 0usize..500, limit in 1u32..4000, max_sge in 1u32..6, list in 1usize..9,
            signal_every in 1u32..5,
        ) {
            let mut pieces = Vec::new();
            let (mut local, mut remote) = (1 << 20, 1 << 30);
            for (length, touch) in lengths.iter().zip(&touching) {
                pieces.push(piece(local, remote, *length));
                local += u64::from(*length) + 64;
                remote += u64::from(*length) + if *touch { 0 } else { 64 };
            }
            let policy = SlicePolicy::new(slice, fragment, limit, max_sge, 32);
            let (mut cursor, mut batch, mut id) = (Cursor::default(), Batch::new(4), 0xffff_fff0u64);
            let mut covered = Vec::new();
            loop {
                let start = cursor;
                batch.fill(&pieces, &mut cursor, &policy, Opcode::Write, true, id, list, signal_every);
                let Some(last) = batch.requests.last() else { break };
                prop_assert!(last.signaled);
                prop_assert!(batch.requests.chunks(signal_every as usize).all(|c| c.last().unwrap().signaled));
                prop_assert_eq!(advance(&pieces, start, &policy, batch.requests.len() as u32), cursor);
                for request in &batch.requests {
                    prop_assert_eq!(request.id, id);
                    id = u64::from((id as u32).wrapping_add(1));
                    let first = usize::from(request.first_sge);
                    let entries = &batch.entries[first..first + usize::from(request.sge_count)];
                    prop_assert!(entries.len() <= max_sge as usize && !entries.is_empty());
                    let total: u32 = entries.iter().map(|e| e.length).sum();
                    prop_assert!(total <= limit);
                    prop_assert_eq!(request.inline, total <= 32);
                    let mut at = request.remote_address;
                    for entry in entries {
                        covered.push((entry.address, at, entry.length));
                        at += u64::from(entry.length);
                    }
                }
            }
            prop_assert_eq!(cursor, Cursor { piece: pieces.len(), offset: 0 });
            let mut expected = pieces.iter().map(|p| (p.local, p.remote, p.length)).collect::<Vec<_>>();
            expected.reverse();
            let mut open = expected.pop();
            for (from, to, length) in covered {
                let (l, r, left) = open.unwrap();
                prop_assert_eq!((from, to), (l, r));
                prop_assert!(length <= left);
                open = if length == left { expected.pop() } else { Some((l + u64::from(length), r + u64::from(length), left - length)) };
            }
            prop_assert!(open.is_none());
        }
    }
}
