//! Memory that a peer of this host maps: what goes wrong, and what becomes of it.
//!
//! Most cases run in a process of their own, because they take rights or room away from it; each starts the peer as another one.
#![allow(unsafe_code, reason = "limits and users of processes, and memory by address")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

#[path = "../chaos/seccomp.rs"]
#[allow(dead_code, unreachable_pub, reason = "a part of it is used")]
mod seccomp;

#[path = "../conformance/mod.rs"]
mod conformance;
mod limits;
mod remote;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::initiator::{pattern, reads, request, writes};
use conformance::memory::mapped_regions;
use conformance::remote::{RemotePeer, address_from_text, address_to_text};
use conformance::{Initiator, Kind, LocalPeer, PATIENCE, Peer, Rig, Window, peer};
use flagcx_p2p::internals::fabric::{
    Access, CompletionStatus, Device, FabricError, PathKind, SoftwareOptions, software,
};
use rustix::process::{Pid, Signal, kill_process};

/// In the environment of a case's process: its name.
const CASE: &str = "FLAGCX_P2P_TEST_MAPPED_CASE";
const LENGTH: usize = 64 << 10;
/// Longer than what is left of the address space where that is limited.
const LONG: usize = 32 << 20;
/// How long a holding initiator has a region pinned before each copy.
const HOLD: Duration = Duration::from_millis(300);

fn device(force: Option<PathKind>, faults: &str) -> Arc<dyn Device> {
    let options = SoftwareOptions { force, faults: faults.to_owned(), ..SoftwareOptions::default() };
    software::open(&options).unwrap().remove(0)
}

/// This side and a peer process that plays `role`; `force` is of this side.
fn rig(role: &str, force: Option<PathKind>, path: PathKind) -> (Rig, u32) {
    let remote = RemotePeer::start("peer_process", role);
    let pid = remote.pid();
    (Rig { device: device(force, ""), peer: Box::new(remote), path }, pid)
}

fn forced(role: &str) -> (Rig, u32) {
    rig(role, Some(PathKind::Shared), PathKind::Shared)
}

/// Not a test of its own: what the other process of the tests below runs.
#[test]
fn peer_process() {
    remote::play();
}

/// WRITEs bytes of this side to the peer's buffer and READs them back; the status of the first that fails.
fn round_trip(rig: &Rig, side: &mut Initiator, address: u64, rkey: u32) -> Result<(), CompletionStatus> {
    let source = Window::patterned(&rig.device, LENGTH);
    let target = Window::new(&rig.device, LENGTH, 0);
    let requests = [request(address, rkey, 0)];
    let (from, to) = ([source.sge(0, LENGTH)], [target.sge(0, LENGTH)]);
    for batch in [writes(1, &requests, &from), reads(1, &requests, &to)] {
        side.post_all(&batch);
        let status = side.wait(1)[0].status;
        if status != CompletionStatus::Success {
            return Err(status);
        }
    }
    assert_eq!(target.bytes(), pattern(LENGTH));
    Ok(())
}

/// WRITEs many pieces in a row, and READs them back in another order.
fn burst(rig: &Rig, side: &mut Initiator, address: u64, rkey: u32) {
    const PIECES: usize = 32;
    const PIECE: usize = LENGTH / PIECES;
    let source = Window::patterned(&rig.device, LENGTH);
    let target = Window::new(&rig.device, LENGTH, 0);
    let order = |step: usize| (0..PIECES).map(move |index| index * step % PIECES * PIECE);
    let requests = |step| -> Vec<_> {
        let one = |(index, offset)| request(address + offset as u64, rkey, index as u32);
        order(step).enumerate().map(one).collect()
    };
    let entries =
        |window: &Window, step| -> Vec<_> { order(step).map(|offset| window.sge(offset, PIECE)).collect() };
    side.post_all(&writes(1, &requests(1), &entries(&source, 1)));
    side.post_all(&reads(100, &requests(7), &entries(&target, 7)));
    let all = side.wait(2 * PIECES);
    assert!(all.iter().all(|completion| completion.status == CompletionStatus::Success), "{all:?}");
    assert_eq!(target.bytes(), pattern(LENGTH));
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid as i32).unwrap()
}

/// Runs a case in a process of its own.
fn run(case: &str) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "case_process", "--nocapture", "--test-threads=1"]);
    let output = command.env(CASE, case).stdin(Stdio::null()).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "case {case}:\n{text}");
    text
}

/// Not a test of its own: what the process of a case runs.
#[test]
fn case_process() {
    let Ok(case) = std::env::var(CASE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stdout).init();
    match case.as_str() {
        "denied" => copies_are_denied(),
        "descriptors" => nothing_left(limits::no_descriptor_left, "no descriptor left"),
        "addresses" => nothing_left(limits::no_addresses_left, "mmap"),
        "cache" => many_regions(),
        "ended" => end_of_a_region(),
        "another path" => another_path(),
        "another user" => owner_of_another_user(),
        other => panic!("unknown case {other}"),
    }
    std::io::stdout().flush().unwrap();
}

/// The kernel lets neither process reach the memory of the other: what is mapped is copied all the same, also while the peer is
/// stopped, and what is not goes over TCP.
#[test]
fn mapped_memory_needs_no_access_to_the_process() {
    run("denied");
}

fn copies_are_denied() {
    let (remote, heap) =
        (RemotePeer::start("peer_process", "own"), RemotePeer::start("peer_process", "heap"));
    let pid = remote.pid();
    seccomp::deny(&["process_vm_readv", "process_vm_writev"], libc::EPERM);
    let rig = |remote| Rig { device: device(None, ""), peer: Box::new(remote), path: PathKind::Tcp };
    let mut shared = rig(remote);
    let mut side = Initiator::new(&mut shared);
    let far = shared.peer.buffer(LENGTH, 0, Access::FULL);
    eventually("the region is mapped", || {
        // Some of them are on their way by TCP when others come to be copied.
        burst(&shared, &mut side, far.address, far.rkey);
        round_trip(&shared, &mut side, far.address, far.rkey).unwrap();
        mapped_regions(std::process::id()) == 1
    });
    kill_process(pid_of(pid), Signal::STOP).unwrap();
    for _ in 0..100 {
        round_trip(&shared, &mut side, far.address, far.rkey).unwrap();
    }
    kill_process(pid_of(pid), Signal::CONT).unwrap();
    let mut other = rig(heap);
    let mut side = Initiator::new(&mut other);
    let far = other.peer.buffer(LENGTH, 0, Access::FULL);
    round_trip(&other, &mut side, far.address, far.rkey).unwrap();
    assert_eq!(mapped_regions(std::process::id()), 1);
}

/// Without room for a descriptor or a mapping transfers go on as before, which is said once; the forced path refuses.
#[test]
fn a_process_without_room_for_a_mapping_takes_the_next_path() {
    for case in ["descriptors", "addresses"] {
        let output = run(case);
        let told = output.lines().filter(|line| line.contains("not mapped and takes another path")).count();
        assert_eq!(told, 2, "once for each of two peers:\n{output}");
    }
}

fn nothing_left(take_away: impl Fn(), reason: &str) {
    let (mut any, _) = rig("own", None, PathKind::CrossMemory);
    let (mut only, _) = forced("own");
    let (mut side, mut forced) = (Initiator::new(&mut any), Initiator::new(&mut only));
    let far = [&mut any, &mut only].map(|rig| rig.peer.buffer(LONG, 0, Access::FULL));
    let near = Window::patterned(&any.device, LENGTH);
    let near_forced = Window::patterned(&only.device, LENGTH);
    take_away();
    let write = [request(far[0].address, far[0].rkey, 0)];
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        side.post_all(&writes(1, &write, &[near.sge(0, LENGTH)]));
        assert_eq!(side.wait(1)[0].status, CompletionStatus::Success);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(any.peer.bytes(far[0].index)[..LENGTH], pattern(LENGTH));
    let write = [request(far[1].address, far[1].rkey, 0)];
    forced.post_all(&writes(1, &write, &[near_forced.sge(0, LENGTH)]));
    assert_eq!(forced.wait(1)[0].status, CompletionStatus::LocalQpOperation);
    let text = forced.queue_pair.error_text();
    assert!(text.contains("the forced path shared is not available") && text.contains(reason), "{text}");
    limits::descriptors_as_before();
    assert_eq!(mapped_regions(std::process::id()), 0);
}

/// The owner cannot pass its file: its limit is named.
#[test]
fn an_owner_without_descriptors_is_named() {
    let (mut rig, _) = forced("own");
    let mut side = Initiator::new(&mut rig);
    let far = rig.peer.buffer(LENGTH, 0, Access::FULL);
    rig.peer.command("limit");
    assert_eq!(round_trip(&rig, &mut side, far.address, far.rkey), Err(CompletionStatus::LocalQpOperation));
    let text = side.queue_pair.error_text();
    assert!(text.contains("its owner cannot give its file") && text.contains("ulimit -n"), "{text}");
}

#[test]
fn memory_that_is_not_shared_is_refused_where_shared_is_forced() {
    let (mut rig, pid) = forced("heap");
    let mut side = Initiator::new(&mut rig);
    let far = rig.peer.buffer(LENGTH, 0, Access::FULL);
    assert_eq!(round_trip(&rig, &mut side, far.address, far.rkey), Err(CompletionStatus::LocalQpOperation));
    let text = side.queue_pair.error_text();
    let expected = format!("process {pid} is not shared: allocate it");
    assert!(text.contains("the forced path shared is not available") && text.contains(&expected), "{text}");
}

/// A process of another user is shown nothing, and so gives nothing to map.
#[test]
fn a_peer_of_another_user_is_reached_over_tcp() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can start a process of another user");
    }
    // It initiates, for root would be shown its tables.
    let mut owner = owner("another user");
    owner.let_write(3);
    assert_eq!(owner.remote.answer(), ["3", "Success"]);
    assert_eq!(owner.own.bytes(owner.buffer.index), vec![7; LENGTH]);
    assert_eq!(mapped_regions(owner.remote.pid()), 1, "its own");
}

/// Root is shown the tables of any user's process, and could map its memory.
#[test]
fn memory_of_another_user_is_not_mapped() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: only root can start a process of another user");
    }
    let output = run("another user");
    let told = output.lines().filter(|line| line.contains("not mapped and takes another path")).count();
    assert_eq!(told, 2, "once for each of two peers:\n{output}");
}

fn owner_of_another_user() {
    let (mut any, _) = rig("another user", None, PathKind::CrossMemory);
    writes_are_not_mapped(&mut any);
    let (mut only, _) = forced("another user");
    let mut side = Initiator::new(&mut only);
    let far = only.peer.buffer(LENGTH, 0, Access::FULL);
    assert_eq!(round_trip(&only, &mut side, far.address, far.rkey), Err(CompletionStatus::LocalQpOperation));
    let text = side.queue_pair.error_text();
    assert!(text.contains("another user"), "{text}");
    assert_eq!(mapped_regions(std::process::id()), 0);
}

/// Also memory that could be mapped is copied by the kernel where the operator wants that.
#[test]
fn nothing_is_mapped_where_another_path_is_forced() {
    run("another path");
}

fn another_path() {
    let (mut rig, _) = rig("own", Some(PathKind::CrossMemory), PathKind::CrossMemory);
    writes_are_not_mapped(&mut rig);
}

/// Longer than a mapping takes to come.
fn writes_are_not_mapped(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let far = rig.peer.buffer(LENGTH, 0, Access::FULL);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(200) {
        round_trip(rig, &mut side, far.address, far.rkey).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(mapped_regions(std::process::id()), 0);
}

/// Its file is truncated while it is mapped, whatever was said of it: an error, and no signal.
#[test]
fn a_file_that_shrinks_is_an_error() {
    for role in ["foreign", "claimed"] {
        let (mut rig, _) = forced(role);
        let mut side = Initiator::new(&mut rig);
        let [address, rkey] = numbers(&rig.peer.command("file"));
        round_trip(&rig, &mut side, address, rkey as u32).unwrap();
        rig.peer.command("resize 4096");
        let ended = round_trip(&rig, &mut side, address, rkey as u32);
        assert_eq!(ended, Err(CompletionStatus::RemoteAccess), "{role}");
    }
}

/// It has shrunk before it is mapped.
#[test]
fn a_file_that_is_too_short_is_not_mapped() {
    let (mut rig, _) = forced("claimed");
    let mut side = Initiator::new(&mut rig);
    let [address, rkey] = numbers(&rig.peer.command("file"));
    rig.peer.command("resize 4096");
    assert_eq!(round_trip(&rig, &mut side, address, rkey as u32), Err(CompletionStatus::LocalQpOperation));
    assert!(
        side.queue_pair.error_text().contains("shorter than the region"),
        "{}",
        side.queue_pair.error_text()
    );
}

#[test]
fn a_hole_in_a_file_is_zeroes() {
    let (mut rig, _) = forced("foreign");
    let mut side = Initiator::new(&mut rig);
    let [address, rkey] = numbers(&rig.peer.command("file"));
    round_trip(&rig, &mut side, address, rkey as u32).unwrap();
    rig.peer.command("punch 4096 8192");
    let target = Window::new(&rig.device, LENGTH, 0xAA);
    side.post_all(&reads(1, &[request(address, rkey as u32, 0)], &[target.sge(0, LENGTH)]));
    assert_eq!(side.wait(1)[0].status, CompletionStatus::Success);
    let mut expected = pattern(LENGTH);
    expected[4096..12288].fill(0);
    assert_eq!(target.bytes(), expected);
    round_trip(&rig, &mut side, address, rkey as u32).unwrap();
}

/// More regions than a link keeps mapped: each transfer arrives, and the mappings are bounded.
#[test]
fn more_regions_than_the_cache_holds() {
    run("cache");
}

fn many_regions() {
    let (mut rig, _) = rig("own", None, PathKind::CrossMemory);
    let mut side = Initiator::new(&mut rig);
    let regions: Vec<_> = (0..300).map(|_| rig.peer.buffer(4096, 0, Access::FULL)).collect();
    let mut source = Window::new(&rig.device, 4096, 0);
    let mut round = 0_u8;
    let mut write_all = || {
        round = round.wrapping_add(1);
        for (index, region) in regions.iter().enumerate() {
            source.set(&[round.wrapping_mul(index as u8); 4096]);
            side.post_all(&writes(1, &[request(region.address, region.rkey, 0)], &[source.sge(0, 4096)]));
            assert_eq!(side.wait(1)[0].status, CompletionStatus::Success);
        }
        let mapped = mapped_regions(std::process::id());
        assert!(mapped <= 256, "{mapped}");
        (mapped, round)
    };
    eventually("the cache is full", || write_all().0 == 256);
    let full_for = Instant::now();
    let mut last = 0;
    while full_for.elapsed() < Duration::from_millis(1300) {
        // Those that have gone for others may come back.
        last = write_all().1;
    }
    for (index, region) in regions.iter().enumerate() {
        assert_eq!(rig.peer.bytes(region.index), vec![last.wrapping_mul(index as u8); 4096]);
    }
}

#[test]
fn a_region_that_has_ended_is_unmapped() {
    run("ended");
}

fn end_of_a_region() {
    let (mut rig, _) = forced("own");
    let mut side = Initiator::new(&mut rig);
    let far = rig.peer.buffer(LENGTH, 0, Access::FULL);
    round_trip(&rig, &mut side, far.address, far.rkey).unwrap();
    assert_eq!(mapped_regions(std::process::id()), 1);
    rig.peer.revoke(far.index);
    eventually("the region is unmapped", || mapped_regions(std::process::id()) == 0);
    assert_eq!(round_trip(&rig, &mut side, far.address, far.rkey), Err(CompletionStatus::RemoteAccess));
}

/// The keys of a process that is gone give access to nothing of the one that takes its place.
#[test]
fn a_key_of_a_former_process_gives_no_access() {
    let (mut former, _) = forced("own");
    let mut side = Initiator::new(&mut former);
    let far = former.peer.buffer(LENGTH, 0, Access::FULL);
    round_trip(&former, &mut side, far.address, far.rkey).unwrap();
    drop((side, former));
    let (mut rig, _) = forced("own");
    let mut side = Initiator::new(&mut rig);
    let new = rig.peer.buffer(LENGTH, 0, Access::FULL);
    assert_eq!(round_trip(&rig, &mut side, new.address, far.rkey), Err(CompletionStatus::RemoteAccess));
    assert_eq!(rig.peer.bytes(new.index), vec![0; LENGTH]);
}

/// The peer initiates; this process owns the memory that it has mapped.
struct Owner {
    remote: RemotePeer,
    own: LocalPeer,
    buffer: peer::RemoteBuffer,
}

fn owner(role: &str) -> Owner {
    let mut remote = RemotePeer::start("peer_process", role);
    let mut own = LocalPeer::with_memory(device(None, ""), Kind::Own);
    let buffer = own.buffer(LENGTH, 1, Access::FULL);
    let (index, here) = own.queue_pair();
    own.connect(index, &address_from_text(&remote.ask("initiator_address")[0]));
    remote.ask(&format!("initiator_connect {}", address_to_text(&here)));
    Owner { remote, own, buffer }
}

impl Owner {
    /// The peer WRITEs its buffer once and so many times more, or until one fails.
    fn let_write(&mut self, more: u64) {
        let peer::RemoteBuffer { address, rkey, .. } = self.buffer;
        self.remote.send(&format!("initiator_write {address} {rkey} {more}"));
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.remote.pid() as i32).unwrap()
    }
}

/// Peers write without end; from the end of the registration on no byte changes.
#[test]
fn nothing_is_written_after_the_end_of_a_region() {
    for _ in 0..3 {
        let mut owner = owner("initiator");
        owner.let_write(u64::MAX);
        let (own, index) = (&mut owner.own, owner.buffer.index);
        eventually("it writes", || own.bytes(index)[LENGTH - 1] == 7);
        own.revoke(index);
        own.set_bytes(index, &pattern(LENGTH));
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(own.bytes(index), pattern(LENGTH));
        assert_eq!(owner.remote.answer()[1], "RemoteAccess");
    }
}

/// A peer is stopped with a pin in its hand: the region's end is refused in time, the memory is given up all the same, and what the
/// peer writes when it goes on reaches nothing of this process.
#[test]
fn a_stopped_peer_writes_into_pages_that_only_it_has() {
    let mut owner = owner("holding initiator");
    let pid = owner.pid();
    owner.let_write(u64::MAX);
    eventually("it has written once", || owner.own.bytes(owner.buffer.index)[0] == 7);
    std::thread::sleep(HOLD / 2);
    kill_process(pid, Signal::STOP).unwrap();
    let region = Arc::clone(&owner.own.window(owner.buffer.index).region);
    let begun = Instant::now();
    let ended = region.revoke(begun + Duration::from_millis(200));
    assert!(matches!(ended, Err(FabricError::StillInUse { .. })), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    // What the memory is given up by: its pages are the file's, which only the peer has mapped from then on.
    let address = owner.buffer.address as *mut libc::c_void;
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: replaces the buffer's own mapping, which nothing refers to meanwhile.
    let fresh = unsafe { libc::mmap(address, LENGTH, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_eq!(fresh, address);
    kill_process(pid, Signal::CONT).unwrap();
    let answer = owner.remote.answer();
    assert_eq!(answer[1], "RemoteAccess", "{answer:?}");
    assert_eq!(owner.own.bytes(owner.buffer.index), vec![0; LENGTH], "the new memory at the same address");
    region.revoke(Instant::now() + PATIENCE).unwrap();
}

/// A peer is killed with a pin in its hand: that is void.
#[test]
fn a_killed_peer_holds_nothing() {
    let mut owner = owner("holding initiator");
    owner.let_write(u64::MAX);
    eventually("it has written once", || owner.own.bytes(owner.buffer.index)[0] == 7);
    std::thread::sleep(HOLD / 2);
    kill_process(owner.pid(), Signal::KILL).unwrap();
    let begun = Instant::now();
    owner.own.revoke(owner.buffer.index);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

fn numbers(words: &[String]) -> [u64; 2] {
    [words[0].parse().unwrap(), words[1].parse().unwrap()]
}
