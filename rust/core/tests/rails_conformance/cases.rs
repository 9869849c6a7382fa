//! The cases.

use flagcx_p2p::internals::fabric::{Access, Opcode};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};

use crate::bench::Bench;
use crate::support::pattern;
use crate::window::{Kind, Kinds, Window};

type Case = fn(&Bench, Kinds);

/// Every case with its name: those of the provider's suite.
pub(crate) const CASES: &[(&str, Case)] = &[
    ("transfers keep to their windows", transfers_keep_to_their_windows),
    ("large transfers arrive whole", large_transfers_arrive_whole),
    ("scatter and gather", scatter_and_gather),
    ("zero length", zero_length),
    ("what is done is there for the next one", what_is_done_is_there_for_the_next_one),
    ("more than queues hold", more_than_queues_hold),
    ("wrong key", wrong_key),
    ("out of bounds", out_of_bounds),
    ("rights", rights),
    ("stale key after deregistering", stale_key_after_deregistering),
    ("memory that is not announced", memory_that_is_not_announced),
    ("cancelled", cancelled),
];

const OPCODES: [Opcode; 2] = [Opcode::Write, Opcode::Read];
const SENTINEL: u8 = 0xa5;

/// The window where bytes come from, and the one where they go.
struct Ends {
    near: Window,
    far: Window,
    opcode: Opcode,
    bytes: Vec<u8>,
}

impl Ends {
    fn new(bench: &Bench, kinds: Kinds, opcode: Opcode, length: usize) -> Self {
        let bytes = pattern(length as u64 + 1, length);
        let guards = vec![SENTINEL; length];
        let (near, far) = if opcode == Opcode::Write { (&bytes, &guards) } else { (&guards, &bytes) };
        let near = Window::new(&bench.client, kinds.here, near);
        let far = Window::new(&bench.server, kinds.there, far);
        Self { near, far, opcode, bytes }
    }

    /// Where it goes holds the pieces and nothing else, and where it came from what it held.
    fn check(&self, bench: &Bench, pieces: &[(u64, u64, u64)]) {
        let mut expected = vec![SENTINEL; self.bytes.len()];
        for &(near, far, length) in pieces {
            let (from, to) = if self.opcode == Opcode::Write { (near, far) } else { (far, near) };
            let (from, to, length) = (from as usize, to as usize, length as usize);
            expected[to..to + length].copy_from_slice(&self.bytes[from..from + length]);
        }
        let (source, target) =
            if self.opcode == Opcode::Write { (&self.near, &self.far) } else { (&self.far, &self.near) };
        assert!(target.bytes() == expected, "{}: {:?}: other bytes", bench.case(), self.opcode);
        assert!(source.bytes() == self.bytes, "{}: {:?}: the source changed", bench.case(), self.opcode);
    }

    fn iovs(&self, bench: &Bench, pieces: &[(u64, u64, u64)]) -> Vec<Iov> {
        pieces.iter().map(|piece| bench.iov(&self.near, &self.far, *piece)).collect()
    }

    fn move_pieces(&self, bench: &Bench, pieces: &[(u64, u64, u64)]) {
        bench.done(self.opcode, &self.iovs(bench, pieces));
        self.check(bench, pieces);
    }

    /// Nothing of it may be done, and nothing may change.
    fn refuse(&self, bench: &Bench, iovs: &[Iov]) {
        match bench.run(self.opcode, iovs) {
            Err(_) => {}
            Ok(Outcome::Failed(failure)) => {
                assert!(failure.iov <= failure.last_iov && failure.last_iov < iovs.len(), "{failure:?}");
            }
            Ok(other) => panic!("{}: {:?}: {other:?}", bench.case(), self.opcode),
        }
    }
}

fn transfers_keep_to_their_windows(bench: &Bench, kinds: Kinds) {
    for opcode in OPCODES {
        for length in [1, 7, 64, 4095, 4096, 4097, 70_000, (1 << 20) + 1] {
            let ends = Ends::new(bench, kinds, opcode, length + 64);
            ends.move_pieces(bench, &[(32, 17, length as u64)]);
        }
    }
}

fn large_transfers_arrive_whole(bench: &Bench, kinds: Kinds) {
    const LENGTH: u64 = (5 << 20) + 12_345;
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, LENGTH as usize);
        for _ in 0..3 {
            ends.move_pieces(bench, &[(0, 0, LENGTH)]);
        }
    }
}

fn scatter_and_gather(bench: &Bench, kinds: Kinds) {
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, 300_000);
        // No two of them write the same bytes: pieces have no order.
        ends.move_pieces(bench, &[(9_000, 50, 1_000), (0, 2_000, 1), (100, 0, 0), (11_000, 10_000, 90_000)]);
        // Many, in the opposite order at the other end.
        let ends = Ends::new(bench, kinds, opcode, 300_000);
        let many: Vec<_> = (0..250).map(|at| (at * 1_200, (249 - at) * 1_200, 1_000)).collect();
        ends.move_pieces(bench, &many);
        // One of them has nearly all bytes.
        let ends = Ends::new(bench, kinds, opcode, 300_000);
        ends.move_pieces(bench, &[(0, 8, 3), (64, 128, 290_000), (299_000, 299_500, 500)]);
    }
}

fn zero_length(bench: &Bench, kinds: Kinds) {
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, 64);
        ends.move_pieces(bench, &[(0, 0, 0)]);
        ends.move_pieces(bench, &[(0, 64, 0), (64, 0, 0)]);
    }
}

/// Over whatever rails either goes.
fn what_is_done_is_there_for_the_next_one(bench: &Bench, kinds: Kinds) {
    const LENGTH: usize = 40_000;
    let far = Window::new(&bench.server, kinds.there, &[SENTINEL; LENGTH]);
    for round in 0..24 {
        let bytes = pattern(round, LENGTH);
        let (near, back) = (
            Window::new(&bench.client, kinds.here, &bytes),
            Window::new(&bench.client, kinds.here, &[0; LENGTH]),
        );
        bench.done(Opcode::Write, &[bench.iov(&near, &far, (0, 0, LENGTH as u64))]);
        bench.done(Opcode::Read, &[bench.iov(&back, &far, (0, 0, LENGTH as u64))]);
        assert!(back.bytes() == bytes && far.bytes() == bytes, "{}: round {round}", bench.case());
    }
}

fn more_than_queues_hold(bench: &Bench, kinds: Kinds) {
    const EACH: u64 = 6_000;
    const COUNT: u64 = 300;
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, (EACH * COUNT) as usize);
        let pieces: Vec<_> = (0..COUNT).map(|at| (at * EACH, at * EACH, EACH)).collect();
        let ids: Vec<_> = ends
            .iovs(bench, &pieces)
            .into_iter()
            .map(|iov| bench.here.submit(opcode, &[iov][..]).unwrap())
            .collect();
        for (number, id) in ids.into_iter().enumerate() {
            assert_eq!(bench.end(number % 4, id), Outcome::Done, "{}: {number}", bench.case());
        }
        ends.check(bench, &pieces);
    }
}

fn wrong_key(bench: &Bench, kinds: Kinds) {
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, 90_000);
        let good = bench.iov(&ends.near, &ends.far, (0, 0, 30_000));
        for rkey in [0, !0, good.remote.rkey ^ 0x8000_0000] {
            let bad = Iov { remote: RemoteRange { rkey, ..good.remote }, ..good };
            ends.refuse(bench, &[bad]);
            ends.check(bench, &[]);
            bench.expect_recovery();
        }
        ends.move_pieces(bench, &[(0, 0, 90_000)]);
    }
}

fn out_of_bounds(bench: &Bench, kinds: Kinds) {
    const LENGTH: u64 = 50_000;
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, LENGTH as usize);
        let good = bench.iov(&ends.near, &ends.far, (0, 0, LENGTH));
        let at = |address| Iov { remote: RemoteRange { address, ..good.remote }, ..good };
        let (start, wraps) = (good.remote.address, u64::MAX - LENGTH + 1);
        for bad in [at(start + 1), at(start.wrapping_sub(1)), at(start + LENGTH), at(0), at(wraps)] {
            ends.refuse(bench, &[bad]);
            ends.check(bench, &[]);
            bench.expect_recovery();
        }
        // The memory here.
        let region = Some(ends.near.region);
        for local in [good.local + 1, good.local - 1, good.local + LENGTH] {
            let refused = bench.run(opcode, &[Iov { local, region, ..good }]);
            assert!(refused.is_err(), "{}: {refused:?}", bench.case());
        }
        ends.check(bench, &[]);
        ends.move_pieces(bench, &[(0, 0, LENGTH)]);
    }
}

fn rights(bench: &Bench, kinds: Kinds) {
    const LENGTH: usize = 30_000;
    let bytes = pattern(1, LENGTH);
    let only = |remote_write, remote_read| Access { remote_write, remote_read, ..Access::FULL };
    for (opcode, access) in [(Opcode::Write, only(false, true)), (Opcode::Read, only(true, false))] {
        if opcode == Opcode::Read && bench.is_flushed {
            continue;
        }
        let near = Window::new(&bench.client, kinds.here, &[SENTINEL; LENGTH]);
        let far = Window::with(&bench.server, kinds.there, &bytes, access, true);
        let other = if opcode == Opcode::Write { Opcode::Read } else { Opcode::Write };
        let iov = [bench.iov(&near, &far, (0, 0, LENGTH as u64))];
        let ended = bench.run(opcode, &iov);
        assert!(!matches!(ended, Ok(Outcome::Done)), "{}: {opcode:?}: {ended:?}", bench.case());
        assert!(near.bytes() == [SENTINEL; LENGTH] && far.bytes() == bytes, "{}", bench.case());
        bench.expect_recovery();
        bench.done(other, &iov);
        assert!(near.bytes() == far.bytes(), "{}", bench.case());
    }
    // A READ into memory here that may not be written.
    let near = Window::with(
        &bench.client,
        kinds.here,
        &[SENTINEL; LENGTH],
        Access { local_write: false, remote_write: false, remote_atomic: false, ..Access::FULL },
        true,
    );
    let far = Window::new(&bench.server, kinds.there, &bytes);
    let ended = bench.run(Opcode::Read, &[bench.iov(&near, &far, (0, 0, LENGTH as u64))]);
    assert!(!matches!(ended, Ok(Outcome::Done)), "{}: {ended:?}", bench.case());
    assert!(near.bytes() == [SENTINEL; LENGTH], "{}", bench.case());
}

fn stale_key_after_deregistering(bench: &Bench, kinds: Kinds) {
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, 60_000);
        let iov = [bench.iov(&ends.near, &ends.far, (0, 0, 60_000))];
        // Memory of the engine's is gone with its registration.
        if kinds.there != Kind::Allocated {
            ends.far.deregister();
            ends.refuse(bench, &iov);
            ends.check(bench, &[]);
        }
        bench.expect_recovery();
    }
}

/// The peer's key for it is that of the first rail alone.
fn memory_that_is_not_announced(bench: &Bench, kinds: Kinds) {
    const LENGTH: usize = 200_000;
    let bytes = pattern(9, LENGTH);
    let near = Window::new(&bench.client, kinds.here, &bytes);
    let far = Window::with(&bench.server, kinds.there, &[SENTINEL; LENGTH], Access::FULL, false);
    let remote = bench.server.describe(far.region, far.address(), LENGTH as u64).unwrap();
    let iov = Iov { local: near.address(), length: LENGTH as u64, region: Some(near.region), remote };
    bench.done(Opcode::Write, &[iov]);
    assert!(far.bytes() == bytes, "{}", bench.case());
}

/// It ends, as it may; nothing of it comes after that, and the next one is done.
fn cancelled(bench: &Bench, kinds: Kinds) {
    const LENGTH: u64 = 1 << 20;
    for opcode in OPCODES {
        let ends = Ends::new(bench, kinds, opcode, LENGTH as usize);
        let iov = [bench.iov(&ends.near, &ends.far, (0, 0, LENGTH))];
        let id = bench.here.submit(opcode, &iov[..]).unwrap();
        bench.here.cancel(id);
        let ended = bench.end(0, id);
        assert!(matches!(ended, Outcome::Done | Outcome::Cancelled), "{}: {ended:?}", bench.case());
        bench.expect_recovery();
        ends.move_pieces(bench, &[(0, 0, LENGTH)]);
    }
}
