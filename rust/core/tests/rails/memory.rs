//! Regions: before and after the rails were made, several of them, some that come and go, and some that are not announced.

use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange};

use crate::alone;
use crate::nics::carried;
use crate::rail_pair::RailPair;
use crate::support::{blocks, eventually, outcome};

pub(crate) const MIB: usize = 1 << 20;

/// Memory of the program's, registered by its address.
pub(crate) struct Memory(Vec<u8>);

impl Memory {
    pub(crate) fn new(length: usize) -> Self {
        Self(vec![0; length])
    }

    pub(crate) fn of(seed: u64, length: usize) -> Self {
        Self(blocks(seed, length))
    }

    fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    pub(crate) fn register(&self, engine: &Engine, announced: bool) -> RegionId {
        let options = RegisterOptions { kind: MemoryKind::Host, announced, ..RegisterOptions::default() };
        // SAFETY: mapped until the region is deregistered or its engine closed, and read past the compiler's back only.
        unsafe { engine.register(self.address(), self.0.len() as u64, options) }.unwrap()
    }

    /// A WRITE of all of `source` to this memory, which the server registers and does not announce: it is reached over the first rail alone.
    pub(crate) fn iov_of_hidden(&self, source: &Self, local: RegionId, pair: &RailPair) -> Iov {
        let hidden = self.register(&pair.server, false);
        iov(source, local, pair.server.describe(hidden, self.address(), self.0.len() as u64).unwrap())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        std::hint::black_box(&self.0).clone()
    }
}

pub(crate) fn remote(pair: &RailPair, memory: &Memory) -> RemoteRange {
    pair.here.describe_remote(memory.address(), memory.0.len() as u32).unwrap()
}

pub(crate) fn iov(from: &Memory, region: RegionId, remote: RemoteRange) -> Iov {
    Iov { local: from.address(), length: from.0.len() as u64, region: Some(region), remote }
}

/// A region that a rail does not know yet takes the others: nothing waits, and nothing fails.
#[test]
fn regions_of_before_and_after_the_rails_are_reached() {
    let _alone = alone();
    let pair = RailPair::new(8, 8);
    let (source, target) = (Memory::of(1, 24 * MIB), Memory::new(24 * MIB));
    let local = source.register(&pair.client, true);
    target.register(&pair.server, true);
    pair.make_rails(8);
    let id = pair.submit(Opcode::Write, &[iov(&source, local, remote(&pair, &target))]);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(target.bytes() == source.bytes());

    let (later, later_target) = (Memory::of(2, 24 * MIB), Memory::new(24 * MIB));
    let local = later.register(&pair.client, true);
    later_target.register(&pair.server, true);
    let id = pair.submit(Opcode::Write, &[iov(&later, local, remote(&pair, &later_target))]);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(later_target.bytes() == later.bytes());
    // And all rails get to know it.
    let before = carried(&pair.here);
    eventually("each rail carries some of a region that was registered later", || {
        let id = pair.submit(Opcode::Write, &[iov(&later, local, remote(&pair, &later_target))]);
        assert_eq!(outcome(&pair.here, id), Outcome::Done);
        carried(&pair.here).iter().zip(&before).all(|(now, before)| now > before)
    });
    pair.client.close();
    pair.server.close();
}

#[test]
fn one_transfer_names_many_regions_of_both_ends() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    let sources: Vec<_> = (0..32).map(|seed| Memory::of(seed, MIB + 4096 * seed as usize)).collect();
    let targets: Vec<_> = sources.iter().map(|source| Memory::new(source.0.len())).collect();
    let regions: Vec<_> = sources.iter().map(|source| source.register(&pair.client, true)).collect();
    for target in &targets {
        target.register(&pair.server, true);
    }
    for round in 0..3 {
        let iovs: Vec<_> =
            (0..32).map(|at| iov(&sources[at], regions[at], remote(&pair, &targets[at]))).collect();
        assert_eq!(outcome(&pair.here, pair.submit(Opcode::Write, &iovs)), Outcome::Done);
        let whole = sources.iter().zip(&targets).all(|(source, target)| source.bytes() == target.bytes());
        assert!(whole, "round {round}");
    }
    pair.client.close();
    pair.server.close();
}

/// The peer has a key for the first rail alone.
#[test]
fn memory_that_is_not_announced_is_reached_over_the_first_rail() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    let (source, target) = (Memory::of(3, 16 * MIB), Memory::new(16 * MIB));
    let local = source.register(&pair.client, true);
    let iov = target.iov_of_hidden(&source, local, &pair);
    let before = carried(&pair.here);
    let id = pair.submit(Opcode::Write, &[iov]);
    assert_eq!(outcome(&pair.here, id), Outcome::Done);
    assert!(target.bytes() == source.bytes());
    let shares: Vec<_> = carried(&pair.here).iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(shares[0], 16 * MIB as u64, "{shares:?}");
    assert!(shares[1..].iter().all(|share| *share == 0), "{shares:?}");
    pair.client.close();
    pair.server.close();
}

/// Registered, used once, deregistered, while large transfers of other memory are under way.
#[test]
fn regions_come_and_go_during_traffic() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    let bytes = pair.fill(Opcode::Write, 4);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            for _ in 0..20 {
                assert_eq!(outcome(&pair.here, pair.submit_all(Opcode::Write)), Outcome::Done);
            }
        });
        // Each at an address of its own: the removal of a region that was at the same address would race.
        let (mut seed, mut used) = (10, Vec::new());
        while !traffic.is_finished() || seed < 30 {
            seed += 1;
            let (source, target) = (Memory::of(seed, 2 * MIB), Memory::new(2 * MIB));
            let (near, far) = (source.register(&pair.client, true), target.register(&pair.server, true));
            let id = pair.submit(Opcode::Write, &[iov(&source, near, remote(&pair, &target))]);
            assert_eq!(outcome(&pair.here, id), Outcome::Done, "seed {seed}");
            assert!(source.bytes() == target.bytes(), "seed {seed}");
            // Nothing touches it any more, on any NIC.
            assert!(pair.client.deregister(near) && pair.server.deregister(far), "seed {seed}");
            used.push((source, target));
        }
    });
    assert!(crate::support::content(&pair.target) == bytes);
}

/// A key of a region that is gone is refused or fails, on every rail, and touches nothing.
#[test]
fn a_region_that_was_deregistered_is_reached_over_no_rail() {
    let _alone = alone();
    let pair = RailPair::with_rails(8, 8, 8);
    let (source, target) = (Memory::of(5, 8 * MIB), Memory::new(8 * MIB));
    let local = source.register(&pair.client, true);
    for round in 0..20 {
        let region = target.register(&pair.server, true);
        let stale = remote(&pair, &target);
        assert!(pair.server.deregister(region));
        if let Ok(id) = pair.here.submit(Opcode::Write, &[iov(&source, local, stale)]) {
            assert!(matches!(outcome(&pair.here, id), Outcome::Failed(_)), "round {round}");
        }
        assert!(target.bytes().iter().all(|byte| *byte == 0), "round {round}");
        eventually("the lanes are back", || {
            pair.here.rails().iter().all(|rail| rail.healthy_lanes == rail.lanes)
        });
    }
    pair.client.close();
    pair.server.close();
}
