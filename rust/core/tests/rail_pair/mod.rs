//! Two engines of this process with several software NICs each, and a connection with rails over them.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]
#![allow(missing_debug_implementations, missing_docs, reason = "helpers of tests")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::ops::Deref;
use std::time::Duration;

use flagcx_p2p::internals::engine::RegisteredBuffer;
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};

use crate::nics::{ENOUGH, Nics, PATIENT, carried, make_rails, moved, up, use_again};
use crate::support::{Pair, blocks, content, eventually, outcome};

/// Bytes of each buffer, but for those of [`RailPair::of_length`].
pub const LENGTH: usize = ENOUGH;

/// What the target of a transfer is filled with, to see what changes.
pub const GUARD: u8 = 0xa5;

/// Settings of both ends; those of a test come first, and win.
pub const SETTINGS: &[(&str, &str)] = &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "10000")];

/// So many transfers one after the other do not all avoid a rail that works.
const MOST_TURNS: u64 = 100;

/// A transfer of which a part waits.
pub struct Held {
    pub id: TransferId,
    pub bytes: Vec<u8>,
    /// Parts that were moved, and what each rail had carried, when it began.
    pub moved: u64,
    pub carried: Vec<u64>,
}

pub struct RailPair {
    pub near: Nics,
    pub far: Nics,
    pair: Pair,
}

impl Deref for RailPair {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl RailPair {
    /// So many NICs at each end.
    pub fn new(near: u32, far: u32) -> Self {
        Self::with([near, far], None, [&[], &[]])
    }

    /// The same; bytes take `path`, and each end has settings of its own.
    pub fn with(counts: [u32; 2], path: Option<PathKind>, settings: [&[(&str, &str)]; 2]) -> Self {
        Self::of_length(LENGTH, counts, path, settings)
    }

    /// The same, with buffers of so many bytes.
    pub fn of_length(
        length: usize,
        counts: [u32; 2],
        path: Option<PathKind>,
        settings: [&[(&str, &str)]; 2],
    ) -> Self {
        let [near, far] = counts.map(|count| Nics::on_path(count, path));
        let client = near.engine(&[settings[0], SETTINGS].concat());
        let server = far.engine(&[settings[1], SETTINGS].concat());
        Self { near, far, pair: Pair::between(client, server, length) }
    }

    /// The same, once all of the `count` rails are up.
    pub fn with_rails(near: u32, far: u32, count: usize) -> Self {
        let pair = Self::new(near, far);
        pair.make_rails(count);
        pair
    }

    /// The same; no rail is found silent by either end.
    pub fn patient(near: u32, far: u32, count: usize) -> Self {
        let pair = Self::with([near, far], None, [&[PATIENT]; 2]);
        pair.make_rails(count);
        pair
    }

    /// Moves bytes until there are `count` rails that are up.
    pub fn make_rails(&self, count: usize) {
        if self.source.len() >= ENOUGH {
            return make_rails(&self.here, &self.source, self.target.address(), count);
        }
        let (near, far) = (self.client.allocate(ENOUGH).unwrap(), self.server.allocate(ENOUGH).unwrap());
        make_rails(&self.here, &near, far.address(), count);
    }

    /// The end that was connected to moves bytes until there it has `count` rails that are up.
    pub fn make_rails_there(&self, count: usize) {
        let (length, region) = (self.target.len() as u64, Some(self.target.region()));
        let remote = self.there.describe_remote(self.source.address(), length as u32).unwrap();
        let iov = Iov { local: self.target.address(), length, region, remote };
        eventually("the rails are up", || {
            let id = self.there.submit(Opcode::Write, &[iov][..]).unwrap();
            assert_eq!(outcome(&self.there, id), Outcome::Done);
            up(&self.there).len() == count
        });
    }

    /// Where the bytes of `opcode` come from gets those of `seed`, and where they go guards.
    pub fn fill(&self, opcode: Opcode, seed: u64) -> Vec<u8> {
        let bytes = blocks(seed, self.source.len());
        let (from, to) = self.ends(opcode);
        assert!(from.write(0, &bytes) && to.write(0, &vec![GUARD; self.source.len()]));
        bytes
    }

    /// The buffer where the bytes come from, and the one where they go.
    pub fn ends(&self, opcode: Opcode) -> (&RegisteredBuffer, &RegisteredBuffer) {
        match opcode {
            Opcode::Write => (&self.source, &self.target),
            Opcode::Read => (&self.target, &self.source),
        }
    }

    pub fn submit(&self, opcode: Opcode, iovs: &[Iov]) -> TransferId {
        self.here.submit(opcode, iovs).unwrap()
    }

    /// All of the buffer.
    pub fn submit_all(&self, opcode: Opcode) -> TransferId {
        self.submit(opcode, &[self.iov(0, 0, self.source.len() as u64)])
    }

    /// Begins a transfer of all bytes of which `rail` has a part, and has that part wait: `hold` keeps a NIC of the rail silent, or lets it go on.
    /// Which rails a transfer takes depends on rates that were measured, so one that has met the others only is followed by another one.
    pub fn hold(&self, opcode: Opcode, rail: usize, seed: u64, hold: impl Fn(bool)) -> Held {
        for turn in 0..MOST_TURNS {
            let (moved, carried) = (moved(&self.here), carried(&self.here));
            let before = self.here.rails()[rail].moved_parts;
            let bytes = self.fill(opcode, seed + turn);
            hold(true);
            let id = self.submit_all(opcode);
            let found = &self.here.rails()[rail];
            // On a busy machine its silence may have been found already.
            if found.in_flight_bytes > 0 || found.moved_parts > before {
                return Held { id, bytes, moved, carried };
            }
            self.check_done(opcode, id, &bytes, Duration::ZERO);
            hold(false);
            // A question may have found it silent: then it is left for a moment, and avoided for longer.
            use_again(&self.here, rail, || self.check_all(Opcode::Write, seed + turn));
        }
        panic!("no part came to rail {rail}: {:#?}", self.here.rails())
    }

    fn move_all(&self, opcode: Opcode) {
        assert_eq!(outcome(&self.here, self.submit_all(opcode)), Outcome::Done);
    }

    /// All of the buffer arrives, every byte of it.
    pub fn check_all(&self, opcode: Opcode, seed: u64) {
        let bytes = self.fill(opcode, seed);
        self.move_all(opcode);
        assert!(content(self.ends(opcode).1) == bytes, "{opcode:?} {seed}: other bytes");
    }

    /// Waits for `id`, which must be done and whole. Then the target is other memory: nothing may change it for `quiet`.
    pub fn check_done(&self, opcode: Opcode, id: TransferId, bytes: &[u8], quiet: Duration) {
        let ended = outcome(&self.here, id);
        assert_eq!(ended, Outcome::Done, "{opcode:?}: {:#?}", self.here.rails());
        let to = self.ends(opcode).1;
        assert!(content(to) == bytes, "{opcode:?}: done, and other bytes are there");
        assert!(to.write(0, &vec![GUARD; self.source.len()]));
        std::thread::sleep(quiet);
        self.check_guards(opcode);
    }

    /// Nothing of the target has changed since it got guards.
    pub fn check_guards(&self, opcode: Opcode) {
        let found = content(self.ends(opcode).1);
        let is_whole = found == vec![GUARD; found.len()];
        let touched = || found.iter().filter(|byte| **byte != GUARD).count();
        assert!(is_whole, "{opcode:?}: {} bytes were written after the end of the transfer", touched());
    }
}
