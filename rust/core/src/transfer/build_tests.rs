//! All ways that iovs may take make the same requests, and bad iovs are refused on each.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use proptest::prelude::*;

use super::region_resolver::chunk;
use super::*;
use crate::control::wire::RegionEntry;
use crate::fabric::{Access, SoftwareOptions, software};
use crate::memory::{LocalRange, MemoryKind, Recent, RegionId, Registry, RemoteRegions};
use crate::pool::RequestList;

const REGION: u64 = 1 << 16;
const BASE: u64 = 1 << 40;

/// Two regions of ours with a gap between them, and two of a peer that touch.
struct Scene {
    memory: Vec<u8>,
    regions: [RegionId; 2],
    registry: Registry,
    remote: RemoteRegions,
}

impl Scene {
    fn new() -> Self {
        Self::with(Access::FULL, false)
    }

    /// With such rights to our second region, and the peer's second one for reading only or not.
    fn with(second: Access, read_only: bool) -> Self {
        let device = software::open(&SoftwareOptions::default()).unwrap().remove(0);
        let registry = Registry::new(device);
        let memory = vec![0_u8; 3 * REGION as usize];
        let start = memory.as_ptr().expose_provenance() as u64;
        let regions = [0, 2].map(|n| {
            let range = (start + n * REGION, REGION);
            let access = if n == 0 { Access::FULL } else { second };
            registry.register(range, MemoryKind::Host, access, true, None, None).unwrap()
        });
        let remote = |n: u64| RegionEntry {
            base: BASE + n * REGION,
            size: REGION,
            rkey: 7 + n as u32,
            id: 0,
            read_only: n == 1 && read_only,
            continues: false,
            gpu_flush: false,
        };
        Self { memory, regions, registry, remote: RemoteRegions::new(&[remote(0), remote(1)]) }
    }

    fn local(&self, region: usize) -> u64 {
        self.memory.as_ptr().addr() as u64 + 2 * region as u64 * REGION
    }

    fn is_held(&self, region: usize) -> bool {
        self.registry.snapshot().by_id(self.regions[region]).unwrap().in_use()
    }
}

/// Where an iov lies: in which regions, behind the one before or not, how long, and whether it names its region.
#[derive(Clone, Copy, Debug)]
struct Step {
    regions: (usize, usize),
    behind: (bool, bool),
    length: u64,
    named: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let resolver = prop::sample::select(vec![(0, 0), (0, 0), (0, 0), (1, 0), (0, 1), (1, 1)]);
    let behind = prop::sample::select(vec![(true, true), (false, true), (true, false), (false, false)]);
    let length = prop_oneof![8 => 1u64..200, 1 => Just(0u64), 1 => 200u64..2000];
    let step = (resolver, behind, length, any::<bool>()).prop_map(|(regions, behind, length, named)| Step {
        regions,
        behind,
        length,
        named,
    });
    // Runs of equal steps are what the fast paths are for.
    prop::collection::vec((step, 1usize..8), 1..12).prop_map(|runs| {
        runs.into_iter().flat_map(|(step, times)| std::iter::repeat_n(step, times)).collect()
    })
}

fn pieces(scene: &Scene, steps: &[Step]) -> Vec<Iov> {
    let (mut local, mut remote) = ([0u64; 2], [0u64; 2]);
    steps
        .iter()
        .filter_map(|step| {
            let (near, far) = step.regions;
            local[near] += if step.behind.0 { 0 } else { 64 };
            remote[far] += if step.behind.1 { 0 } else { 64 };
            let (at, to) = (local[near], remote[far]);
            if at + step.length > REGION || to + step.length > REGION {
                return None;
            }
            local[near] += step.length;
            remote[far] += step.length;
            Some(Iov {
                local: scene.local(near) + at,
                length: step.length,
                region: step.named.then_some(scene.regions[near]),
                remote: RemoteRange {
                    address: BASE + far as u64 * REGION + to,
                    size: step.length as u32,
                    rkey: 7 + far as u32,
                },
            })
        })
        .collect()
}

proptest! {
    /// Whatever way the iovs take, runs or one by one, they make the requests that they make one by one, and exactly
    /// the regions that they use are held.
    #[test]
    fn runs_change_nothing(steps in steps(), shared: bool, policy in policies(), write: bool) {
        let scene = Scene::new();
        let pieces = pieces(&scene, &steps);
        prop_assume!(!pieces.is_empty());
        let opcode = if write { Opcode::Write } else { Opcode::Read };
        let scope = Scope { local: &scene.registry, remote: &scene.remote, policy: &policy, carries_gpu: true };
        let (mut list, mut recent) = (RequestList::default(), Recent::default());
        // Twice: the second time with what the first has left.
        for _ in 0..2 {
            list.clear();
            let share = Share::Range { start: 0, end: pieces.len() };
            build(&pieces[..], share, scope, opcode, &mut list, shared.then_some(&mut recent)).unwrap();
            let mut plain = RequestList::default();
            let mut cutter = Cutter::new(&mut plain, policy, opcode, 0);
            for (index, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.length > 0) {
                let snapshot = scene.registry.snapshot();
                let region = find_local(piece, index, opcode, &snapshot).unwrap();
                cutter.push(&chunk(piece, index as u32, &LocalRange::within(region, piece.local, piece.length).unwrap())).unwrap();
            }
            prop_assert_eq!(list.contents(), plain.contents());
            for region in [0, 1] {
                let used = steps.iter().any(|step| step.regions.0 == region);
                prop_assert!(scene.is_held(region) || !used, "region {} is not held", region);
                prop_assert!(!scene.is_held(region) || used, "region {} is held for nothing", region);
            }
        }
    }
}

proptest! {
    /// The fast path of a single piece makes the request that the other makes, and is only taken if that takes it.
    #[test]
    fn the_fast_path_makes_the_same_request(
        steps in steps(), policy in policies(), write: bool, off in (-70i64..70, -70i64..70), size in 0u32..300,
    ) {
        let scene = Scene::new();
        let pieces = pieces(&scene, &steps);
        prop_assume!(pieces.len() > 1);
        let opcode = if write { Opcode::Write } else { Opcode::Read };
        let scope = Scope { local: &scene.registry, remote: &scene.remote, policy: &policy, carries_gpu: true };
        let (mut list, mut recent) = (RequestList::default(), Recent::default());
        let all = Share::Range { start: 0, end: 1 };
        build(&pieces[..1], all, scope, opcode, &mut list, Some(&mut recent)).unwrap();
        for piece in &pieces[1..] {
            let remote = piece.remote.address.wrapping_add_signed(off.1);
            let shifted = Iov {
                local: piece.local.wrapping_add_signed(off.0),
                remote: RemoteRange { address: remote, size, ..piece.remote },
                ..*piece
            };
            for piece in [piece, &shifted] {
                let mut plain = RequestList::default();
                let built = build(std::slice::from_ref(piece), all, scope, opcode, &mut plain, None);
                list.clear();
                if build_one(piece, &policy, opcode, &mut list, &recent) {
                    prop_assert!(built.is_ok() && list.len() == 1 && list.lease.is_some());
                    prop_assert_eq!(list.contents(), plain.contents());
                } else {
                    prop_assert!(list.is_empty() && list.lease.is_none());
                }
            }
        }
    }
}

fn policies() -> impl Strategy<Value = SlicePolicy> {
    (1usize..3000, 0usize..200, 1u32..5, prop::sample::select(vec![0u32, 100]))
        .prop_map(|(slice, fragment, sge, inline)| SlicePolicy::new(slice, fragment, 1 << 30, sge, inline))
}

/// Wherever a piece stands, and whatever the lane's last transfer was: a READ into a region that is for reading only is
/// refused, and a WRITE to one; the other way they go.
#[test]
fn what_is_for_reading_only_is_not_written() {
    let scene = Scene::with(Access::READ_ONLY, true);
    let policy = SlicePolicy::new(0, 0, 1 << 30, 4, 0);
    let scope = Scope { local: &scene.registry, remote: &scene.remote, policy: &policy, carries_gpu: true };
    let step = |regions| Step { regions, behind: (false, false), length: 64, named: true };
    // Of each side the second region is for reading only.
    let [plain, from, to] = [(0, 0), (1, 0), (0, 1)].map(|regions| pieces(&scene, &[step(regions)])[0]);
    let mut recent = Recent::default();
    let mut start = |pieces: &[Iov], opcode| {
        let mut list = RequestList::default();
        build(&[plain], Share::Range { start: 0, end: 1 }, scope, opcode, &mut list, Some(&mut recent))?;
        for piece in pieces {
            list.clear();
            // The fast path does not ask what a region is for.
            if build_one(piece, &policy, opcode, &mut list, &recent) {
                assert_eq!((piece.region, piece.remote.rkey), (plain.region, plain.remote.rkey));
            }
        }
        list.clear();
        let share = Share::Range { start: 0, end: pieces.len() };
        build(pieces, share, scope, opcode, &mut list, Some(&mut recent))
    };
    for _ in 0..3 {
        start(&[plain, from, plain, from], Opcode::Write).unwrap();
        start(&[plain, to, plain, to], Opcode::Read).unwrap();
        for before in 0..3 {
            let mut mixed = vec![plain; before];
            mixed.push(from);
            let error = start(&mixed, Opcode::Read).unwrap_err();
            assert!(matches!(error, SubmitError::Local { iov, .. } if iov == before), "{error}");
            assert!(error.to_string().contains("for reading only"), "{error}");
            mixed[before] = to;
            let error = start(&mixed, Opcode::Write).unwrap_err();
            assert!(matches!(error, SubmitError::Remote { iov, .. } if iov == before), "{error}");
            assert!(error.to_string().contains("for reading only"), "{error}");
        }
    }
}

/// Behind the WRITEs of a list a byte is read of each region that asks for it, as batches of their own, however the list is
/// posted; READs and other regions go without.
#[test]
fn writes_to_regions_that_ask_for_it_are_flushed() {
    let remote = |n: u64| RegionEntry {
        base: BASE + n * REGION,
        size: REGION,
        rkey: 7 + n as u32,
        id: 0,
        read_only: false,
        gpu_flush: n > 0,
        continues: false,
    };
    let scene = Scene { remote: RemoteRegions::new(&[remote(0), remote(1), remote(2)]), ..Scene::new() };
    let policy = SlicePolicy::new(0, 0, 1 << 30, 4, 0);
    let scope = Scope { local: &scene.registry, remote: &scene.remote, policy: &policy, carries_gpu: true };
    let piece = |number: u64, length: u64| Iov {
        local: scene.local(0),
        length,
        region: Some(scene.regions[0]),
        remote: RemoteRange {
            address: BASE + number * REGION + 64,
            size: length as u32,
            rkey: 7 + number as u32,
        },
    };
    let (plain, first, second) = (piece(0, 64), piece(1, 64), piece(2, 64));
    // The last byte of the region, and nothing behind it.
    let empty =
        Iov { remote: RemoteRange { address: BASE + 2 * REGION, ..first.remote }, length: 0, ..first };
    let (mut list, mut recent) = (RequestList::default(), Recent::default());
    let mut posted = |pieces: &[Iov], opcode, most| {
        list.clear();
        let share = Share::Range { start: 0, end: pieces.len() };
        build(pieces, share, scope, opcode, &mut list, Some(&mut recent)).unwrap();
        let (mut at, mut all) = (0, Vec::new());
        while at < list.len() {
            let batch = list.batch(at, most, 0, 1);
            assert!(!batch.requests.is_empty());
            for request in batch.requests {
                let entry = batch.entries[request.first_sge as usize];
                all.push((batch.opcode, request.remote_address, request.rkey, entry.length, request.origin));
            }
            at += batch.requests.len();
        }
        all
    };
    let write = |number: u64, iov| (Opcode::Write, BASE + number * REGION + 64, 7 + number as u32, 64, iov);
    let gpu_flush = |number: u64, iov| (Opcode::Read, BASE + number * REGION + 64, 7 + number as u32, 1, iov);
    for most in [1, 2, 100] {
        for _ in 0..2 {
            assert_eq!(posted(&[plain], Opcode::Write, most), [write(0, 0)]);
            assert_eq!(posted(&[first], Opcode::Write, most), [write(1, 0), gpu_flush(1, 0)]);
            assert_eq!(posted(&[first], Opcode::Read, most).len(), 1);
            let mixed = [first, plain, second, first, second];
            let [a, b, c, d, e] = [(1, 0), (0, 1), (2, 2), (1, 3), (2, 4)].map(|(n, iov)| write(n, iov));
            assert_eq!(
                posted(&mixed, Opcode::Write, most),
                [a, b, c, d, e, gpu_flush(1, 0), gpu_flush(2, 2)]
            );
            assert_eq!(posted(&[empty], Opcode::Write, most), []);
            let last = (Opcode::Read, BASE + 2 * REGION - 1, 8, 1, 0);
            assert_eq!(posted(&[empty, plain], Opcode::Write, most), [write(0, 1), last]);
        }
    }
    // What is in no announced region may be such memory too, where the peer has any.
    let unknown = Iov { remote: RemoteRange { rkey: 99, ..first.remote }, ..first };
    assert_eq!(posted(&[unknown], Opcode::Write, 9).last().unwrap().0, Opcode::Read);
    assert!(scene.is_held(0) && list.holds.len() == 1, "and the byte that is read to");
}

#[test]
fn bad_iovs_are_refused_wherever_they_stand() {
    let scene = Scene::new();
    let policy = SlicePolicy::new(0, 0, 1 << 30, 4, 0);
    let scope = Scope { local: &scene.registry, remote: &scene.remote, policy: &policy, carries_gpu: true };
    let step = |_| Step { regions: (0, 0), behind: (false, false), length: 64, named: true };
    let good = pieces(&scene, &(0..12).map(step).collect::<Vec<_>>());
    let outside = scene.local(0) + REGION - 63;
    let far = |address, size, rkey| RemoteRange { address, size, rkey };
    for at in [0, 1, 5, 11] {
        let bad = [
            Iov { local: outside, ..good[at] },
            Iov { local: outside, region: None, ..good[at] },
            Iov { region: Some(RegionId(0)), ..good[at] },
            Iov { region: Some(scene.regions[1]), ..good[at] },
            Iov { length: u64::MAX, ..good[at] },
            Iov { remote: far(BASE + REGION - 63, 64, 7), ..good[at] },
            Iov { remote: far(BASE, 63, 7), ..good[at] },
            Iov { remote: far(BASE, 64, 8), ..good[at] },
            Iov { remote: far(u64::MAX - 62, 64, 9), ..good[at] },
        ];
        for bad in bad {
            let mut pieces = good.clone();
            pieces[at] = bad;
            let (mut list, mut recent) = (RequestList::default(), Recent::default());
            let share = Share::Range { start: 0, end: pieces.len() };
            let built = build(&pieces[..], share, scope, Opcode::Write, &mut list, Some(&mut recent));
            let (SubmitError::Local { iov, .. } | SubmitError::Remote { iov, .. }) = built.unwrap_err()
            else {
                panic!("{bad:?}")
            };
            assert_eq!(iov, at, "{bad:?}");
        }
    }
}
