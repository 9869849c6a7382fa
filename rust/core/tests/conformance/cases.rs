//! The suite.

use std::time::{Duration, Instant};

use flagcx_p2p::internals::fabric::{
    Access, Batch, Completion, CompletionStatus, Opcode, Posted, QueuePairCaps, Sge, WorkRequest,
};

use super::initiator::{Initiator, PATIENCE, Window, pattern, reads, request, writes};
use super::{Rig, probes};

type Case = fn(&mut Rig);

/// Every case with its name.
pub const CASES: &[(&str, Case)] = &[
    ("write keeps to its window", write_keeps_to_its_window),
    ("read keeps to its window", read_keeps_to_its_window),
    ("large transfers arrive whole", large_transfers_arrive_whole),
    ("scatter and gather", scatter_and_gather),
    ("zero length", zero_length),
    ("no bytes and no entries", probes::no_bytes_and_no_entries),
    ("order within a queue pair", order_within_a_queue_pair),
    ("unsignaled requests give no completion", unsignaled_requests_give_no_completion),
    ("ids wrap", ids_wrap),
    ("wrong rkey", wrong_rkey),
    ("out of bounds", out_of_bounds),
    ("rights", rights),
    ("local errors", local_errors),
    ("stale key after revoke", stale_key_after_revoke),
    ("memory that is not announced", memory_that_is_not_announced),
    ("flush after set_error", flush_after_set_error),
    ("peer in error", peer_in_error),
    ("send queue full", send_queue_full),
    ("completion queue filled to its depth", completion_queue_filled_to_its_depth),
    ("inline", inline),
    ("two queue pairs share a completion queue", two_queue_pairs_share_a_completion_queue),
];

pub(super) const SENTINEL: u8 = 0xA5;

pub(super) fn success(id: u64) -> Completion {
    Completion { id, status: CompletionStatus::Success, vendor_error: 0 }
}

/// (id, status) of each, for completions of failures carry a vendor's code that differs by provider.
pub(super) fn brief(completions: &[Completion]) -> Vec<(u64, CompletionStatus)> {
    completions.iter().map(|completion| (completion.id, completion.status)).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write_keeps_to_its_window(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    for length in [1, 7, 64, 4095, 4096, 4097, 70_000] {
        let local = Window::patterned(&rig.device, length);
        let remote = rig.peer.buffer(length + 64, SENTINEL, Access::FULL);
        side.post_all(&writes(
            length as u64,
            &[request(remote.address + 32, remote.rkey, 0)],
            &[local.sge(0, length)],
        ));
        assert_eq!(side.wait(1), [success(length as u64)]);
        let bytes = rig.peer.bytes(remote.index);
        assert_eq!(bytes[32..32 + length], *local.bytes());
        assert!(bytes[..32].iter().chain(&bytes[32 + length..]).all(|byte| *byte == SENTINEL));
    }
}

fn read_keeps_to_its_window(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    for length in [1, 7, 64, 4095, 4096, 4097, 70_000] {
        let local = Window::new(&rig.device, length + 64, SENTINEL);
        let remote = rig.peer.buffer(length, 0, Access::FULL);
        rig.peer.set_bytes(remote.index, &pattern(length));
        side.post_all(&reads(
            length as u64,
            &[request(remote.address, remote.rkey, 0)],
            &[local.sge(32, length)],
        ));
        assert_eq!(side.wait(1), [success(length as u64)]);
        let bytes = local.bytes();
        assert_eq!(bytes[32..32 + length], pattern(length));
        assert!(bytes[..32].iter().chain(&bytes[32 + length..]).all(|byte| *byte == SENTINEL));
    }
}

fn large_transfers_arrive_whole(rig: &mut Rig) {
    const LENGTH: usize = (5 << 20) + 12_345;
    let mut side = Initiator::new(rig);
    let source = Window::patterned(&rig.device, LENGTH);
    let back = Window::new(&rig.device, LENGTH, 0);
    let remote = rig.peer.buffer(LENGTH, 0, Access::FULL);
    let whole = [request(remote.address, remote.rkey, 0)];
    for first_id in [1, 3] {
        side.post_all(&writes(first_id, &whole, &[source.sge(0, LENGTH)]));
        side.post_all(&reads(first_id + 1, &whole, &[back.sge(0, LENGTH)]));
    }
    assert_eq!(side.wait(4), [success(1), success(2), success(3), success(4)]);
    assert!(back.bytes() == source.bytes());
    assert!(rig.peer.bytes(remote.index) == source.bytes());
}

fn scatter_and_gather(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::patterned(&rig.device, 10_000);
    let remote = rig.peer.buffer(10_000, SENTINEL, Access::FULL);
    let entries = [local.sge(9_000, 1_000), local.sge(0, 1), local.sge(100, 0), local.sge(5_000, 3_000)];
    let write = WorkRequest { sge_count: 4, ..request(remote.address + 50, remote.rkey, 0) };
    side.post_all(&writes(1, &[write], &entries));
    assert_eq!(side.wait(1), [success(1)]);
    let expected = [&local.bytes()[9_000..], &local.bytes()[..1], &local.bytes()[5_000..8_000]].concat();
    let bytes = rig.peer.bytes(remote.index);
    assert_eq!(bytes[50..4_051], expected);
    assert!(bytes[..50].iter().chain(&bytes[4_051..]).all(|byte| *byte == SENTINEL));

    let back = Window::new(&rig.device, 5_000, SENTINEL);
    let entries = [Sge::default(), back.sge(4_000, 1), back.sge(10, 3_990), back.sge(4_990, 10)];
    let read = WorkRequest { sge_count: 3, ..request(remote.address + 50, remote.rkey, 1) };
    side.post_all(&reads(2, &[read], &entries));
    assert_eq!(side.wait(1), [success(2)]);
    let bytes = back.bytes();
    assert_eq!(bytes[4_000], expected[0]);
    assert_eq!(bytes[10..4_000], expected[1..3_991]);
    assert_eq!(bytes[4_990..], expected[3_991..4_001]);
    assert!(bytes[..10].iter().chain(&bytes[4_001..4_990]).all(|byte| *byte == SENTINEL));
}

fn zero_length(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::new(&rig.device, 64, SENTINEL);
    let remote = rig.peer.buffer(64, SENTINEL, Access::FULL);
    let empty = [request(remote.address, remote.rkey, 0)];
    side.post_all(&writes(1, &empty, &[local.sge(0, 0)]));
    side.post_all(&reads(2, &empty, &[local.sge(0, 0)]));
    assert_eq!(side.wait(2), [success(1), success(2)]);
    assert!(local.bytes().iter().chain(&rig.peer.bytes(remote.index)).all(|byte| *byte == SENTINEL));
}

fn order_within_a_queue_pair(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::patterned(&rig.device, 4_096);
    let back = Window::new(&rig.device, 4_096, 0);
    let remote = rig.peer.buffer(8, 0, Access::FULL);
    // Each WRITE overwrites the last one, and each READ sees the WRITE just before it.
    let whole = [request(remote.address, remote.rkey, 0)];
    for round in 0..32 {
        side.post_all(&writes(round * 2, &whole, &[local.sge(round as usize * 8, 8)]));
        side.post_all(&reads(round * 2 + 1, &whole, &[back.sge(round as usize * 8, 8)]));
    }
    let expected: Vec<_> = (0..64).map(success).collect();
    assert_eq!(side.wait(64), expected);
    assert_eq!(back.bytes()[..256], local.bytes()[..256]);
    // Of one batch, the last one stays.
    let entries: Vec<_> = (0..32).map(|round| local.sge(round * 8, 8)).collect();
    let requests: Vec<_> = (0..32).map(|round| request(remote.address, remote.rkey, round)).collect();
    side.post_all(&writes(0, &requests, &entries));
    assert_eq!(side.wait(32), expected[..32]);
    assert_eq!(rig.peer.bytes(remote.index), local.bytes()[248..256]);
}

fn unsignaled_requests_give_no_completion(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::patterned(&rig.device, 640);
    let remote = rig.peer.buffer(640, 0, Access::FULL);
    for round in 0..20 {
        // More than the ring holds in all, so that retiring by the signaled one is what makes room.
        let requests: Vec<_> = (0..10)
            .map(|index| request(remote.address + u64::from(index) * 64, remote.rkey, index))
            .collect();
        let entries: Vec<_> = (0..10).map(|index| local.sge(index * 64, 64)).collect();
        let batch = writes(round * 10, &requests, &entries);
        side.post_all(&Batch { signal_every: 0, ..batch });
        assert_eq!(side.wait(1), [success(round * 10 + 9)]);
        side.post_all(&Batch { signal_every: 4, ..batch });
        assert_eq!(side.wait(3), [3, 7, 9].map(|index| success(round * 10 + index)));
    }
    assert_eq!(rig.peer.bytes(remote.index), local.bytes());
    side.expect_none();
}

/// Ids count in their lower half only, which wraps.
fn ids_wrap(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let requests = [request(remote.address, remote.rkey, 0); 4];
    side.post_all(&writes(0xFFFF_FFFF_FFFF_FFFE, &requests, &[local.sge(0, 64)]));
    let expected = [0xFFFF_FFFE, 0xFFFF_FFFF, 0, 1].map(|low| success(0xFFFF_FFFF << 32 | low));
    assert_eq!(side.wait(4), expected);
}

/// Posts a good request, and then the bad one with two more, of which only the last is signaled; expects the bad one's
/// status.
fn expect_failure(
    rig: &mut Rig,
    opcode: Opcode,
    bad: &WorkRequest,
    entries: &[Sge],
    status: CompletionStatus,
) {
    let mut side = Initiator::new(rig);
    let good = Window::patterned(&rig.device, 16);
    let target = rig.peer.buffer(16, SENTINEL, Access::FULL);
    let mut all = entries.to_vec();
    all.push(good.sge(0, 16));
    let fine = request(target.address, target.rkey, entries.len() as u32);
    let late = rig.peer.buffer(16, SENTINEL, Access::FULL);
    let after = WorkRequest { remote_address: late.address, rkey: late.rkey, ..fine };
    side.post_all(&writes(1, &[fine], &all));
    side.post_all(&Batch { opcode, signal_every: 0, ..writes(2, &[*bad, after, after], &all) });
    let flushed = CompletionStatus::Flushed;
    let mut seen = brief(&side.wait(4));
    if is_soft_roce(rig) && seen[1].1 == CompletionStatus::LocalQpOperation {
        // Its name for a request that fails on this side before anything is sent.
        seen[1].1 = CompletionStatus::LocalProtection;
    }
    assert_eq!(seen, [(1, CompletionStatus::Success), (2, status), (3, flushed), (4, flushed)]);
    assert!(side.queue_pair.is_broken());
    assert_eq!(rig.peer.bytes(target.index), good.bytes());
    assert!(rig.peer.bytes(late.index).iter().all(|byte| *byte == SENTINEL));
    // What is posted to a queue pair in ERROR is accepted and flushed.
    side.post_all(&Batch { signal_every: 0, ..writes(5, &[after; 2], &all) });
    assert_eq!(brief(&side.wait(2)), [(5, flushed), (6, flushed)]);
    side.expect_none();
    // Soft-RoCE moves the responder to ERROR too, but raises no event about it.
    if status == CompletionStatus::RemoteAccess && !is_soft_roce(rig) {
        let counterpart = side.counterpart;
        until("the responder is in ERROR too", || rig.peer.is_broken(counterpart));
        let mut events = Vec::new();
        until("an event tells of it", || {
            events.extend(rig.peer.fatal_events());
            !events.is_empty()
        });
        assert_eq!(events.len(), 1);
    }
}

fn is_soft_roce(rig: &Rig) -> bool {
    rig.device.attributes().name.starts_with("rxe")
}

fn wrong_rkey(rig: &mut Rig) {
    let local = Window::new(&rig.device, 16, SENTINEL);
    let remote = rig.peer.buffer(16, 0, Access::FULL);
    for opcode in [Opcode::Write, Opcode::Read] {
        for rkey in [0, !0, remote.rkey ^ 1, remote.rkey ^ 0x8000_0000] {
            let bad = request(remote.address, rkey, 0);
            expect_failure(rig, opcode, &bad, &[local.sge(0, 16)], CompletionStatus::RemoteAccess);
        }
    }
    assert!(local.bytes().iter().all(|byte| *byte == SENTINEL));
    assert!(rig.peer.bytes(remote.index).iter().all(|byte| *byte == 0));
}

fn out_of_bounds(rig: &mut Rig) {
    let local = Window::new(&rig.device, 64, SENTINEL);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    for opcode in [Opcode::Write, Opcode::Read] {
        for address in
            [remote.address + 1, remote.address - 1, remote.address + 64, 0, u64::MAX - 63, u64::MAX]
        {
            let bad = request(address, remote.rkey, 0);
            expect_failure(rig, opcode, &bad, &[local.sge(0, 64)], CompletionStatus::RemoteAccess);
        }
    }
    assert!(local.bytes().iter().all(|byte| *byte == SENTINEL));
    assert!(rig.peer.bytes(remote.index).iter().all(|byte| *byte == 0));
}

fn rights(rig: &mut Rig) {
    let local = Window::new(&rig.device, 16, SENTINEL);
    let none = Access { remote_write: false, remote_read: false, remote_atomic: false, ..Access::FULL };
    let read_only = rig.peer.buffer(16, 0, Access { remote_read: true, ..none });
    let bad = request(read_only.address, read_only.rkey, 0);
    expect_failure(rig, Opcode::Write, &bad, &[local.sge(0, 16)], CompletionStatus::RemoteAccess);
    let write_only = rig.peer.buffer(16, 0, Access { remote_write: true, ..none });
    let bad = request(write_only.address, write_only.rkey, 0);
    expect_failure(rig, Opcode::Read, &bad, &[local.sge(0, 16)], CompletionStatus::RemoteAccess);
    assert!(local.bytes().iter().all(|byte| *byte == SENTINEL));
    assert!(rig.peer.bytes(read_only.index).iter().all(|byte| *byte == 0));
}

fn local_errors(rig: &mut Rig) {
    let local = Window::new(&rig.device, 64, SENTINEL);
    let constant = Window::with_access(
        &rig.device,
        64,
        SENTINEL,
        Access { local_write: false, remote_write: false, remote_atomic: false, ..Access::FULL },
    );
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let wrong_key = Sge { lkey: local.region.lkey() ^ 1, ..local.sge(0, 64) };
    let too_long = Sge { length: 65, ..local.sge(0, 64) };
    let too_early = Sge { address: local.address() - 1, ..local.sge(0, 8) };
    let cases = [
        (Opcode::Write, wrong_key),
        (Opcode::Read, wrong_key),
        (Opcode::Write, too_early),
        (Opcode::Read, constant.sge(0, 64)),
    ];
    for (opcode, entry) in cases {
        let bad = request(remote.address, remote.rkey, 0);
        expect_failure(rig, opcode, &bad, &[entry], CompletionStatus::LocalProtection);
    }
    let roomy = rig.peer.buffer(128, 0, Access::FULL);
    let bad = request(roomy.address, roomy.rkey, 0);
    expect_failure(rig, Opcode::Write, &bad, &[too_long], CompletionStatus::LocalProtection);
    assert!(constant.bytes().iter().chain(local.bytes()).all(|byte| *byte == SENTINEL));
    assert!(rig.peer.bytes(remote.index).iter().all(|byte| *byte == 0));
}

fn stale_key_after_revoke(rig: &mut Rig) {
    let local = Window::new(&rig.device, 16, 1);
    let mut side = Initiator::new(rig);
    let remote = rig.peer.buffer(16, 0, Access::FULL);
    let write = request(remote.address, remote.rkey, 0);
    side.post_all(&writes(0, &[write], &[local.sge(0, 16)]));
    assert_eq!(side.wait(1), [success(0)]);
    rig.peer.revoke(remote.index);
    let again = rig.peer.buffer(16, 0, Access::FULL);
    assert_ne!(again.rkey, remote.rkey);
    local_fill(rig, remote.index, 7);
    expect_failure(rig, Opcode::Write, &write, &[local.sge(0, 16)], CompletionStatus::RemoteAccess);
    assert!(rig.peer.bytes(remote.index).iter().all(|byte| *byte == 7));
}

/// The program got its key by other means.
fn memory_that_is_not_announced(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::new(&rig.device, 64, 1);
    let announced = rig.peer.buffer(16, SENTINEL, Access::FULL);
    let [first, second] = [2, 3].map(|fill| rig.peer.unannounced(16, fill));
    let places = [announced, first, announced, second];
    let all: Vec<_> = (0..).zip(places).map(|(at, place)| request(place.address, place.rkey, at)).collect();
    let entries: Vec<_> = (0..4).map(|at| local.sge(16 * at, 16)).collect();
    for round in 0..2 {
        side.post_all(&reads(4 * round, &all, &entries));
        assert_eq!(side.wait(4), (0..4).map(|at| success(4 * round + at)).collect::<Vec<_>>());
        assert_eq!(*local.bytes(), [[SENTINEL; 16], [2; 16], [SENTINEL; 16], [3; 16]].concat());
    }
    let write = request(first.address, first.rkey, 0);
    side.post_all(&writes(9, &[write], &entries));
    assert_eq!(side.wait(1), [success(9)]);
    assert_eq!(rig.peer.bytes(first.index), [SENTINEL; 16]);
    let beyond = request(first.address + 1, first.rkey, 0);
    expect_failure(rig, Opcode::Read, &beyond, &entries[..1], CompletionStatus::RemoteAccess);
    rig.peer.revoke(first.index);
    expect_failure(rig, Opcode::Write, &write, &entries[1..2], CompletionStatus::RemoteAccess);
    assert_eq!(rig.peer.bytes(first.index), [SENTINEL; 16]);
    side.post_all(&reads(10, &all[3..], &entries));
    assert_eq!(side.wait(1), [success(10)]);
}

fn local_fill(rig: &mut Rig, index: usize, value: u8) {
    let length = rig.peer.bytes(index).len();
    rig.peer.set_bytes(index, &vec![value; length]);
}

fn flush_after_set_error(rig: &mut Rig) {
    const LENGTH: usize = 8 << 20;
    let mut side = Initiator::new(rig);
    let local = Window::new(&rig.device, LENGTH, 1);
    let remote = rig.peer.buffer(LENGTH, 0, Access::FULL);
    let requests = [request(remote.address, remote.rkey, 0); 10];
    let entries = [local.sge(0, LENGTH)];
    side.post_all(&Batch { signal_every: 2, ..writes(0, &requests, &entries) });
    side.queue_pair.set_error().unwrap();
    side.queue_pair.set_error().unwrap();
    assert!(side.queue_pair.is_broken());
    // Some may have been done before; from the first flushed one on, each completes, signaled or not.
    // A device that works while it is posted to has done them all, so one more is sure to be flushed.
    side.post_all(&writes(10, &requests[..1], &entries));
    let mut last = side.wait(1)[0];
    while last.status == CompletionStatus::Success {
        last = side.wait(1)[0];
    }
    let mut expected = last.id;
    loop {
        assert_eq!((last.id, last.status), (expected, CompletionStatus::Flushed));
        expected += 1;
        if expected == 11 {
            break;
        }
        last = side.wait(1)[0];
    }
    side.expect_none();
    // Nothing touches the memory any more, so ending its registration takes no time.
    local.region.revoke(Instant::now() + Duration::from_secs(1)).unwrap();
}

fn peer_in_error(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::new(&rig.device, 64, 1);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    rig.peer.set_error(side.counterpart);
    let write = request(remote.address, remote.rkey, 0);
    side.post_all(&writes(1, &[write; 2], &[local.sge(0, 64)]));
    assert_eq!(brief(&side.wait(2)), [(1, CompletionStatus::RetryExceeded), (2, CompletionStatus::Flushed)]);
    assert!(rig.peer.bytes(remote.index).iter().all(|byte| *byte == 0));
}

fn send_queue_full(rig: &mut Rig) {
    let mut side = Initiator::with(rig, &QueuePairCaps { send_depth: 8, max_sge: 1, max_inline: 0 }, 1024);
    let depth = side.queue_pair.caps().send_depth as usize;
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let requests = vec![request(remote.address, remote.rkey, 0); depth + 5];
    let entries = [local.sge(0, 64)];
    let posted = side.post(&Batch { signal_every: depth as u32, ..writes(0, &requests, &entries) });
    assert_eq!(posted, Posted::cut(depth, libc::ENOMEM));
    assert_eq!(side.wait(1), [success(depth as u64 - 1)]);
    side.post_all(&Batch { signal_every: 0, ..writes(0, &requests[..depth], &entries) });
    assert_eq!(side.wait(1), [success(depth as u64 - 1)]);
}

fn completion_queue_filled_to_its_depth(rig: &mut Rig) {
    let mut side = Initiator::with(rig, &QueuePairCaps { send_depth: 16, max_sge: 1, max_inline: 0 }, 16);
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    for _ in 0..8 {
        let requests = [request(remote.address, remote.rkey, 0); 16];
        side.post_all(&writes(0, &requests, &[local.sge(0, 64)]));
        // Time for a device that works by itself to fill its queue.
        std::thread::sleep(Duration::from_millis(2));
        let expected: Vec<_> = (0..16).map(success).collect();
        assert_eq!(side.wait(16), expected);
    }
}

fn inline(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let room = side.queue_pair.caps().max_inline as usize;
    if room == 0 {
        println!("conformance: this provider grants no inline data, so inline is not tested");
        return;
    }
    let remote = rig.peer.buffer(256, SENTINEL, Access::FULL);
    let local = Window::patterned(&rig.device, room);
    let write = WorkRequest { inline: true, ..request(remote.address + 8, remote.rkey, 0) };
    side.post_all(&writes(1, &[write], &[local.sge(0, room)]));
    assert_eq!(side.wait(1), [success(1)]);
    let seen = rig.peer.bytes(remote.index);
    assert_eq!(seen[8..8 + room], *local.bytes());
    assert!(seen[..8].iter().chain(&seen[8 + room..]).all(|byte| *byte == SENTINEL));
}

fn two_queue_pairs_share_a_completion_queue(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let mut second = std::sync::Arc::clone(&rig.device)
        .create_queue_pair(&side.completions.handle(), &super::caps())
        .unwrap();
    let (counterpart, address) = rig.peer.queue_pair();
    second.connect(&address, &super::peer::path()).unwrap();
    rig.peer.connect(counterpart, &second.address());
    let local = Window::patterned(&rig.device, 4096);
    let remote = rig.peer.buffer(4096, 0, Access::FULL);
    for id in 0..32 {
        let write = request(remote.address, remote.rkey, 0);
        side.post_all(&writes(id, &[write], &[local.sge(0, 2048)]));
        let write = request(remote.address + 2048, remote.rkey, 0);
        assert_eq!(second.post(&writes(1000 + id, &[write], &[local.sge(2048, 2048)])).accepted, 1);
    }
    let found = side.wait(64);
    let ids = |high: bool| -> Vec<u64> {
        found.iter().map(|completion| completion.id).filter(|id| (*id >= 1000) == high).collect()
    };
    assert!(found.iter().all(|completion| completion.status == CompletionStatus::Success));
    assert_eq!(ids(false), (0..32).collect::<Vec<_>>());
    assert_eq!(ids(true), (1000..1032).collect::<Vec<_>>());
    assert_eq!(rig.peer.bytes(remote.index), local.bytes());
    // A queue pair that goes takes nothing of its neighbour's with it.
    drop(second);
    side.post_all(&reads(7, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
    assert_eq!(side.wait(1), [success(7)]);
}
