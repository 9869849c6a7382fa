//! Regions that are registered, deregistered and registered again while a connection lives.
#![allow(unsafe_code, reason = "registers memory by address")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod region_dialogue;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::control::wire::{
    AnnouncedRegion, Change, Features, NicList, NicRecord, RegionChanges,
};
use flagcx_p2p::internals::control::{RegionFrame, encode_nics};
use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::fabric::{CompletionStatus, Opcode};
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, SubmitError};
use region_dialogue::Dialogue;
use support::{Pair, connect, eventually, outcome};

const PAGE: u64 = 4096;

/// Memory that regions are registered in.
struct Memory(Vec<u8>);

impl Memory {
    fn new(length: usize) -> Self {
        Self(vec![0x5a; length])
    }

    fn address(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    fn register(&self, engine: &Engine, offset: u64, length: u64) -> RegionId {
        let options = RegisterOptions { kind: MemoryKind::Host, ..RegisterOptions::default() };
        self.register_with(engine, offset, length, options)
    }

    fn register_with(&self, engine: &Engine, offset: u64, length: u64, options: RegisterOptions) -> RegionId {
        assert!(offset + length <= self.0.len() as u64);
        // SAFETY: mapped until the tests have ended, and looked at past the compiler's back only.
        unsafe { engine.register(self.address() + offset, length, options) }.unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::hint::black_box(&self.0).clone()
    }
}

fn write(pair: &Pair, remote: RemoteRange) -> Result<Outcome, SubmitError> {
    let length = u64::from(remote.size);
    let iov = Iov { local: pair.source.address(), length, region: None, remote };
    pair.here.submit(Opcode::Write, &[iov][..]).map(|id| outcome(&pair.here, id))
}

#[test]
fn a_region_registered_after_the_connect_is_found_at_once() {
    let pair = Pair::new(PAGE as usize);
    assert!(pair.source.write(0, &support::pattern(1, PAGE as usize)));
    let memory = Memory::new(8 * PAGE as usize);
    for page in 0..8 {
        assert_eq!(pair.here.remote_key(memory.address() + page * PAGE, PAGE), None);
        memory.register(&pair.server, page * PAGE, PAGE);
        // Nothing in between: what is registered before the question is found.
        let remote = pair.here.describe_remote(memory.address() + page * PAGE, PAGE as u32).unwrap();
        assert_eq!(write(&pair, remote).unwrap(), Outcome::Done);
    }
    assert_eq!(memory.bytes(), support::pattern(1, PAGE as usize).repeat(8));
    // In the other direction as well.
    let other = Memory::new(PAGE as usize);
    other.register(&pair.client, 0, PAGE);
    assert!(pair.there.describe_remote(other.address(), 1).is_some());
}

/// And the key that it had before is refused at once, also by a lane that has just used it.
#[test]
fn a_region_registered_again_at_the_same_address_is_found_under_its_new_key() {
    let pair = Pair::new(PAGE as usize);
    let memory = Memory::new(PAGE as usize);
    let mut region = memory.register(&pair.server, 0, PAGE);
    let mut before = pair.here.describe_remote(memory.address(), 64).unwrap();
    for _ in 0..100 {
        assert_eq!(write(&pair, before).unwrap(), Outcome::Done);
        assert!(pair.server.deregister(region));
        eventually("the peer has the removal", || {
            pair.here.describe_remote(memory.address(), 64) != Some(before)
        });
        let refused = write(&pair, before).unwrap_err();
        assert!(refused.to_string().contains("is in a region that the peer has deregistered"), "{refused}");
        region = memory.register(&pair.server, 0, PAGE);
        let now = pair.here.describe_remote(memory.address(), 64).unwrap();
        assert_ne!(now.rkey, before.rkey);
        assert!(write(&pair, before).is_err());
        before = now;
    }
    assert_eq!(write(&pair, before).unwrap(), Outcome::Done);
}

/// A look-up may be faster than the announcement of both: then the transfer is refused or fails, and the next look-up finds the new key.
#[test]
fn pieces_of_memory_that_was_registered_again_are_found_again_at_once() {
    let pair = Pair::new(PAGE as usize);
    assert!(pair.source.write(0, &support::pattern(2, PAGE as usize)));
    let memory = Memory::new(2 * PAGE as usize);
    let stays = memory.register(&pair.server, PAGE, PAGE);
    let mut region = memory.register(&pair.server, 0, PAGE);
    let piece = |page: u64| {
        let remote = pair.here.describe_remote(memory.address() + page * PAGE, 64).unwrap();
        Iov { local: pair.source.address(), length: 64, region: None, remote }
    };
    let mut pieces = [piece(0), piece(1)];
    let again = |pieces: &mut [Iov]| pair.here.find_again(pieces, support::LIMIT);
    for _ in 0..100 {
        assert!(!again(&mut pieces), "no region has changed");
        let before = pieces;
        assert!(pair.server.deregister(region));
        region = memory.register(&pair.server, 0, PAGE);
        assert_ne!(write(&pair, before[0].remote).ok(), Some(Outcome::Done));
        assert!(again(&mut pieces), "the first has another key");
        assert_ne!(pieces[0].remote.rkey, before[0].remote.rkey);
        assert_eq!(pieces[1].remote, before[1].remote);
        for piece in &pieces {
            assert_eq!(write(&pair, piece.remote).unwrap(), Outcome::Done);
        }
    }
    assert!(pair.server.deregister(region));
    assert!(!again(&mut pieces), "one lies in no region");
    assert!(pair.server.deregister(stays));
    assert!(!again(&mut pieces));
}

/// A transfer may be faster than the announcement of the removal: then the fabric refuses it, and the new memory is
/// untouched.
#[test]
fn a_transfer_that_meets_the_end_of_its_region_fails_as_remote_access() {
    let pair = Pair::new(PAGE as usize);
    assert!(pair.source.write(0, &[0xee; PAGE as usize]));
    let memory = Memory::new(PAGE as usize);
    let (mut refused, mut failed) = (0, 0);
    for _ in 0..200 {
        let region = memory.register(&pair.server, 0, PAGE);
        let old = pair.here.describe_remote(memory.address(), PAGE as u32).unwrap();
        assert!(pair.server.deregister(region));
        let region = memory.register(&pair.server, 0, PAGE);
        match write(&pair, old) {
            Err(SubmitError::Remote { .. }) => refused += 1,
            Ok(Outcome::Failed(failure)) => {
                assert_eq!(failure.status, CompletionStatus::RemoteAccess, "{failure:?}");
                failed += 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(pair.server.deregister(region));
    }
    assert!(memory.bytes().iter().all(|byte| *byte == 0x5a), "bytes of another region were written");
    println!("{refused} refused at once, {failed} failed as remote access");
    eventually("the lanes are back", || pair.here.info().healthy_lanes == pair.here.info().lanes);
}

/// Also with the key of memory that is not announced, which a device may reuse.
#[test]
fn unannounced_memory_is_reached_by_its_descriptor_as_ever() {
    let pair = Pair::new(PAGE as usize);
    let memory = Memory::new(PAGE as usize);
    let options = RegisterOptions { kind: MemoryKind::Host, announced: false, ..RegisterOptions::default() };
    let region = memory.register_with(&pair.server, 0, PAGE, options);
    assert_eq!(pair.here.describe_remote(memory.address(), 64), None);
    let desc = pair.server.describe(region, memory.address(), 64).unwrap();
    assert_eq!(write(&pair, desc).unwrap(), Outcome::Done);
}

#[test]
fn more_regions_than_a_handshake_carries_are_found() {
    const COUNT: u64 = 65_536 + 100;
    let pair = Pair::new(PAGE as usize);
    let memory = Memory::new(64 * COUNT as usize);
    for number in 0..COUNT {
        memory.register(&pair.server, 64 * number, 64);
    }
    let (here, _there) = connect(&pair.client, &pair.server);
    for number in [0, 65_534, 65_535, 65_536, COUNT - 1] {
        let remote = here.describe_remote(memory.address() + 64 * number, 64).unwrap();
        let iov = Iov { local: pair.source.address(), length: 64, region: None, remote };
        let id = here.submit(Opcode::Write, &[iov][..]).unwrap();
        assert_eq!(outcome(&here, id), Outcome::Done, "region {number}");
    }
    assert_eq!(here.known_regions().0 as u64, COUNT + 1);
}

/// A peer that was started again has other regions, registered before or after it is found.
#[test]
fn a_restarted_peer_is_asked_as_well() {
    let client = support::engine(&[]);
    for round in 0..3 {
        let server = support::engine(&[]);
        let (here, _there) = connect(&client, &server);
        let memory = Memory::new(PAGE as usize);
        memory.register(&server, 0, PAGE);
        assert!(here.describe_remote(memory.address(), 64).is_some(), "round {round}");
        server.close();
        let start = Instant::now();
        eventually("the end is noticed", || !here.is_usable());
        assert_eq!(here.describe_remote(memory.address() + PAGE, 64), None);
        assert!(start.elapsed() < Duration::from_millis(900), "a connection that has ended is not asked");
    }
}

#[test]
fn many_misses_share_their_questions() {
    let pair = Pair::new(PAGE as usize);
    let memory = Memory::new(64 * PAGE as usize);
    std::thread::scope(|scope| {
        for page in 0..64 {
            let (pair, memory) = (&pair, &memory);
            scope.spawn(move || {
                memory.register(&pair.server, page * PAGE, PAGE);
                assert!(pair.here.describe_remote(memory.address() + page * PAGE, 64).is_some());
            });
        }
    });
}

/// A connection to a peer that sends the test's frames.
fn is_alive(dialogue: &Dialogue) -> bool {
    dialogue.follower.is_usable()
}

#[test]
fn a_peer_that_does_not_answer_costs_a_look_up_one_second() {
    let dialogue = Dialogue::new();
    let start = Instant::now();
    assert_eq!(dialogue.follower.describe_remote(0x1000, 1), None);
    let took = start.elapsed();
    assert!((900..2000).contains(&took.as_millis()), "{took:?}");
    assert_eq!(dialogue.receive(), RegionFrame::Sync(1));
    // Wrong answers are none, and the right one is one even if it is late.
    dialogue.send(&RegionFrame::Synced(7));
    dialogue.send(&RegionFrame::Synced(1));
    let late = std::thread::scope(|scope| {
        let asked = scope.spawn(|| dialogue.follower.describe_remote(0x1000, 1));
        assert_eq!(dialogue.receive(), RegionFrame::Sync(2));
        let region =
            AnnouncedRegion { id: 5, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(9), first_rkey: None };
        let changes = RegionChanges { version: 5, rail: 0, change: Change::Add, entries: vec![region] };
        dialogue.send(&RegionFrame::Changes(changes));
        dialogue.send(&RegionFrame::Synced(2));
        asked.join().unwrap()
    });
    assert_eq!(late.map(|desc| desc.rkey), Some(9));
}

/// Of regions side by side, only those that the peer calls segments of one are entered from the one before.
#[test]
fn a_range_over_two_regions_is_described_only_if_they_are_segments_of_one() {
    let first =
        AnnouncedRegion { id: 5, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(9), first_rkey: None };
    for (flags, expected) in [(0, None), (AnnouncedRegion::CONTINUES, Some(9))] {
        let second = AnnouncedRegion { id: 6, base: 0x2000, flags, rkey: Some(10), ..first };
        let dialogue = Dialogue::new();
        let changes =
            RegionChanges { version: 6, rail: 0, change: Change::Add, entries: vec![first, second] };
        dialogue.send(&RegionFrame::Changes(changes));
        let follower = &dialogue.follower;
        eventually("both are known", || follower.known_regions().0 == 2);
        assert_eq!(follower.known_region(0x1800, 0x1000).map(|region| region.rkey), expected);
        let text = follower.not_announced(0x1800, 0x1000);
        assert!(text.contains("one ends at 0x2000, where another"), "{text}");
        assert!(!follower.not_announced(0x2800, 0x1000).contains("another"));
    }
}

/// They may be early. The first rail has no part in them.
#[test]
fn changes_of_a_rail_that_is_not_there_are_dropped() {
    let dialogue = Dialogue::new();
    let region =
        AnnouncedRegion { id: 5, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(9), first_rkey: None };
    let of_rail = |rail, version| RegionChanges { version, rail, change: Change::Add, entries: vec![region] };
    dialogue.send(&RegionFrame::Changes(of_rail(3, 900)));
    dialogue.send(&RegionFrame::Changes(RegionChanges {
        rail: 7,
        change: Change::Reset,
        entries: Vec::new(),
        ..of_rail(7, 1)
    }));
    let other = AnnouncedRegion { id: 6, base: 0x8000, ..region };
    dialogue.send(&RegionFrame::Changes(RegionChanges { entries: vec![other], ..of_rail(0, 6) }));
    eventually("that of the first rail is known", || dialogue.follower.known_regions() == (1, 6));
    assert_eq!(dialogue.follower.known_region(0x1000, 1), None);
    assert!(is_alive(&dialogue));
}

/// With one NIC, or one rail, a handshake is as it was without rails.
#[test]
fn an_engine_offers_rails_only_with_a_further_device() {
    for (devices, rails, offered) in [("1", "8", 0), ("2", "1", 0), ("2", "2", Features::RAILS)] {
        let dialogue =
            Dialogue::with(&[("FLAGCX_P2P_SOFTWARE_DEVICES", devices), ("FLAGCX_P2P_RAILS", rails)]);
        assert_eq!(dialogue.offered & Features::RAILS, offered, "{devices} devices, {rails} rails");
    }
}

/// A peer that has not the feature may send one all the same.
#[test]
fn a_list_of_nics_that_was_not_due_is_skipped() {
    let dialogue = Dialogue::new();
    let nic = NicRecord { speed_mbps: 0, link_layer: 2, mtu: 5, name: "a".to_owned(), networks: Vec::new() };
    dialogue.send_bytes(&encode_nics(&NicList::new(0, vec![nic]).unwrap()));
    dialogue.send(&RegionFrame::Sync(1));
    assert_eq!(dialogue.receive(), RegionFrame::Synced(1));
    assert!(is_alive(&dialogue));
}

#[test]
fn malformed_region_frames_end_their_connection_and_no_other() {
    let region =
        AnnouncedRegion { id: 5, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(9), first_rkey: None };
    let frame = |version, change, entries: &[AnnouncedRegion]| {
        RegionFrame::Changes(RegionChanges { version, rail: 0, change, entries: entries.to_vec() }).encode()
    };
    let good = frame(5, Change::Add, &[region]);
    let mut absurd = good.clone();
    absurd[24..28].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long = good.clone();
    long[8..12].copy_from_slice(&65_537_u32.to_le_bytes());
    let older = [good.clone(), frame(4, Change::Add, &[])].concat();
    let wrapping = frame(5, Change::Add, &[AnnouncedRegion { base: u64::MAX, ..region }]);
    let mut no_rail = good;
    no_rail[21] = 8;
    for bytes in [absurd, long, older, wrapping, no_rail] {
        let other = Dialogue::new();
        let dialogue = Dialogue::new();
        dialogue.send_bytes(&bytes);
        eventually("it is noticed", || !is_alive(&dialogue));
        assert!(is_alive(&other));
    }
}

/// Its changes wait in the history alone.
#[test]
fn a_peer_that_never_reads_delays_no_caller() {
    let dialogue = Dialogue::new();
    let memory = Memory::new(64 << 10);
    let (_other, there) = {
        let client = support::engine(&[]);
        let (here, there) = connect(&client, &dialogue.engine);
        ((client, here), there)
    };
    dialogue.take(4096);
    let start = Instant::now();
    // Each round announces as many added and removed regions, in more bytes than the sockets accept.
    for _ in 0..5 {
        let regions: Vec<_> = (0..2048).map(|at| memory.register(&dialogue.engine, at * 16, 16)).collect();
        for region in regions {
            assert!(dialogue.engine.deregister(region));
        }
    }
    let took = start.elapsed();
    let last = memory.register(&dialogue.engine, 0, PAGE);
    assert!(took < support::LIMIT, "{took:?}");
    // Longer than any other frame may wait.
    std::thread::sleep(Duration::from_millis(3500));
    assert!(is_alive(&dialogue) && there.is_usable());
    // Once it reads, it learns what there is. With so small a buffer TCP would take half a minute for it.
    dialogue.take(1 << 20);
    let known = dialogue.listen(|regions| regions.table().find(memory.address(), PAGE).is_some());
    assert_eq!(known.table().len(), 1);
    assert!(dialogue.engine.deregister(last));
}

/// A peer that asks without end gets one answer at a time.
#[test]
fn a_peer_that_asks_without_end_is_answered_and_no_more() {
    let dialogue = Dialogue::new();
    for number in 1..=10_000 {
        dialogue.send(&RegionFrame::Sync(number));
    }
    let mut answers = 0;
    loop {
        match dialogue.receive() {
            RegionFrame::Synced(number) => {
                answers += 1;
                if number == 10_000 {
                    break;
                }
            }
            RegionFrame::Changes(_) | RegionFrame::Sync(_) => {}
        }
    }
    println!("{answers} answers to 10,000 questions");
    assert!(is_alive(&dialogue));
}

fn fan(server: &Arc<Engine>, count: usize) -> Vec<(Arc<Engine>, Arc<Connection>, Arc<Connection>)> {
    (0..count)
        .map(|_| {
            let client = support::engine(&[]);
            let (here, there) = connect(&client, server);
            (client, here, there)
        })
        .collect()
}

/// Both ends of all ten connections share one event loop here. In an optimised build as many as the issue is about.
#[test]
fn many_regions_are_announced_to_many_peers() {
    const COUNT: u64 = if cfg!(debug_assertions) { 5000 } else { 100_000 };
    let server = support::engine(&[]);
    let memory = Memory::new(16 * COUNT as usize);
    let peers = fan(&server, 10);
    let knows_all = |here: &Connection| here.known_regions().0 as u64 == COUNT;
    let start = Instant::now();
    for number in 0..COUNT {
        memory.register(&server, 16 * number, 16);
    }
    let registered = start.elapsed();
    for (_, here, _) in &peers {
        eventually("the peer has all regions", || knows_all(here));
    }
    let known = start.elapsed() - registered;
    assert!(
        peers.iter().all(|(_, here, _)| here.remote_key(memory.address() + 16 * (COUNT - 1), 16).is_some())
    );
    println!("{COUNT} regions registered in {registered:?}, known to 10 peers {known:?} later");
    assert!(known < Duration::from_secs(1), "{known:?}");

    // All of them at once: the table of the handshake, and the rest behind it.
    let start = Instant::now();
    let peers = fan(&server, 10);
    for (_, here, _) in &peers {
        eventually("the peer has all regions", || knows_all(here));
    }
    println!("{COUNT} regions announced to 10 new peers, with their connects, in {:?}", start.elapsed());
}

#[test]
fn a_miss_that_finds_costs_one_round_trip() {
    let pair = Pair::new(PAGE as usize);
    let memory = Memory::new(16 * 1000);
    let mut times: Vec<_> = (0..1000)
        .map(|number| {
            memory.register(&pair.server, 16 * number, 16);
            let start = Instant::now();
            assert!(pair.here.remote_key(memory.address() + 16 * number, 16).is_some());
            start.elapsed()
        })
        .collect();
    times.sort();
    let address = memory.address();
    let start = Instant::now();
    for number in 0..100_000 {
        assert!(pair.here.remote_key(address + 16 * (number % 1000), 16).is_some());
    }
    let known = start.elapsed() / 100_000;
    println!(
        "a miss that finds: {:?} at the median, {:?} at the 99th percentile; a hit: {known:?}",
        times[500], times[990]
    );
    assert!(times[500] < Duration::from_millis(20), "{:?}", times[500]);
}
