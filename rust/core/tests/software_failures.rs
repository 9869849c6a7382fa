//! How the software fabric behaves when things go wrong: dead and stopped peers, ordered faults, other clients, overruns.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod conformance;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::initiator::{request, writes};
use conformance::remote::{ROLE, RemotePeer, address_from_text, address_to_text, serve};
use conformance::{Initiator, LocalPeer, Peer, Rig, Window, caps, peer};
use flagcx_p2p::internals::fabric::software::{self, SoftwareDevice};
use flagcx_p2p::internals::fabric::{
    Access, Backing, Batch, Completion, CompletionQueue, CompletionStatus, Device, DeviceEvent, MemoryRange,
    Opcode, PathKind, Posted, QpAddress, QueuePairCaps, Sge, SoftwareOptions,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

const PATHS: [PathKind; 3] = [PathKind::InProcess, PathKind::CrossMemory, PathKind::Tcp];

fn open(options: SoftwareOptions) -> Arc<SoftwareDevice> {
    software::open_software(&options).unwrap().remove(0)
}

fn forced(path: PathKind) -> SoftwareOptions {
    SoftwareOptions { force: Some(path), ..SoftwareOptions::default() }
}

/// This side on a device with `options`, the other one on a plain device of this process.
fn rig(options: SoftwareOptions) -> (Rig, Arc<SoftwareDevice>) {
    let path = options.force.unwrap();
    let device = open(options);
    let peer = Box::new(LocalPeer::new(open(forced(path))));
    (Rig { device: Arc::clone(&device) as Arc<dyn Device>, peer, path }, device)
}

fn remote_rig(path: PathKind) -> (Rig, Pid) {
    let remote = RemotePeer::start("peer_process", &path.to_string());
    let pid = Pid::from_raw(i32::try_from(remote.pid()).unwrap()).unwrap();
    (Rig { device: open(forced(path)), peer: Box::new(remote), path }, pid)
}

/// Not a test of its own: what the other process of the tests below runs.
#[test]
fn peer_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let options = match role.as_str() {
        "tcp" => forced(PathKind::Tcp),
        "holding initiator" => {
            SoftwareOptions { faults: "hold=us:60000000".to_owned(), ..forced(PathKind::CrossMemory) }
        }
        _ => SoftwareOptions::default(),
    };
    let device: Arc<dyn Device> = open(options);
    let mut completions = Arc::clone(&device).create_completion_queue(16).unwrap();
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
    let local = Window::new(&device, 64, 7);
    serve(LocalPeer::new(device), |_, words| match words[0] {
        // A child that holds every descriptor of this process.
        "fork" => {
            // By the system call, for handlers of the C library close the sockets of a child.
            // SAFETY: the child does nothing but wait to be killed.
            match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
                0 => loop {
                    std::thread::sleep(Duration::from_secs(60));
                },
                child => child.to_string(),
            }
        }
        "initiator_address" => address_to_text(&queue_pair.address()),
        "initiator_connect" => {
            queue_pair.connect(&address_from_text(words[1]), &peer::path()).unwrap();
            String::new()
        }
        // Writes and then holds for a minute: the write pins its region that long.
        "initiator_write" => {
            let write = request(words[1].parse().unwrap(), words[2].parse().unwrap(), 0);
            assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
            completions.poll(&mut [Completion::default()]).unwrap();
            String::new()
        }
        other => panic!("unknown command {other}"),
    });
}

fn statuses(completions: &[Completion]) -> Vec<CompletionStatus> {
    completions.iter().map(|completion| completion.status).collect()
}

fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    started.elapsed()
}

#[test]
fn a_killed_peer_fails_what_is_outstanding_within_a_second() {
    const LENGTH: usize = 4 << 20;
    for path in [PathKind::CrossMemory, PathKind::Tcp] {
        let (mut rig, pid) = remote_rig(path);
        let mut side =
            Initiator::with(&mut rig, &QueuePairCaps { send_depth: 256, max_sge: 1, max_inline: 0 }, 256);
        let local = Window::new(&rig.device, LENGTH, 1);
        let remote = rig.peer.buffer(LENGTH, 0, Access::FULL);
        let requests = [request(remote.address, remote.rkey, 0); 256];
        side.post_all(&writes(0, &requests, &[local.sge(0, LENGTH)]));
        assert_eq!(side.wait(2)[1].status, CompletionStatus::Success);
        kill_process(pid, Signal::KILL).unwrap();
        let killed = Instant::now();
        let rest = statuses(&side.wait(254));
        assert!(killed.elapsed() < Duration::from_secs(1), "{path}: {:?}", killed.elapsed());
        let failed = rest.iter().position(|status| *status != CompletionStatus::Success).unwrap();
        assert_eq!(rest[failed], CompletionStatus::RetryExceeded, "{path}");
        assert!(rest[failed + 1..].iter().all(|status| *status == CompletionStatus::Flushed), "{path}");
        assert!(side.queue_pair.is_broken());
    }
}

#[test]
fn a_killed_peer_is_noticed_by_an_idle_queue_pair_within_a_second() {
    for path in [PathKind::CrossMemory, PathKind::Tcp] {
        let (mut rig, pid) = remote_rig(path);
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        assert!(!side.queue_pair.is_broken());
        kill_process(pid, Signal::KILL).unwrap();
        // No thread polls: the responder's thread detects it.
        within(Duration::from_secs(1), "the queue pair is broken", || side.queue_pair.is_broken());
        let write = request(remote.address, remote.rkey, 0);
        side.post_all(&writes(1, &[write; 2], &[local.sge(0, 64)]));
        assert_eq!(statuses(&side.wait(2)), [CompletionStatus::RetryExceeded, CompletionStatus::Flushed]);
    }
}

#[test]
fn a_killed_peer_is_noticed_though_its_child_keeps_its_sockets_open() {
    let mut remote = RemotePeer::start("peer_process", "cross-memory");
    let child: i32 = remote.ask("fork")[0].parse().unwrap();
    let pid = Pid::from_raw(i32::try_from(remote.pid()).unwrap()).unwrap();
    let path = PathKind::CrossMemory;
    let mut rig = Rig { device: open(forced(path)), peer: Box::new(remote), path };
    let mut side = Initiator::new(&mut rig);
    let local = Window::new(&rig.device, 64, 1);
    let buffer = rig.peer.buffer(64, 0, Access::FULL);
    // The first child was forked before there were any; this one holds the sockets of the connection.
    let second = rig.peer.command("fork")[0].parse().unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    within(Duration::from_secs(1), "the queue pair is broken", || side.queue_pair.is_broken());
    side.post_all(&writes(1, &[request(buffer.address, buffer.rkey, 0)], &[local.sge(0, 64)]));
    assert_eq!(statuses(&side.wait(1)), [CompletionStatus::RetryExceeded]);
    for child in [child, second] {
        kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
    }
}

#[test]
fn a_side_that_connects_later_finds_what_was_posted_before() {
    for path in PATHS {
        let (mut rig, _) = rig(forced(path));
        let mut completions = Arc::clone(&rig.device).create_completion_queue(16).unwrap();
        let mut queue_pair =
            Arc::clone(&rig.device).create_queue_pair(&completions.handle(), &caps()).unwrap();
        let (counterpart, address) = rig.peer.queue_pair();
        let local = Window::patterned(&rig.device, 64);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])), Posted::cut(0, libc::EINVAL));
        queue_pair.connect(&address, &peer::path()).unwrap();
        assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
        let mut out = [Completion::default()];
        for _ in 0..20 {
            assert_eq!(completions.poll(&mut out).unwrap(), 0);
            // The time for another look may come between the two.
            let mut again = 0;
            while !completions.arm().unwrap() {
                again += 1;
                assert!(again < 3, "polling would not help, so one may sleep");
                assert_eq!(completions.poll(&mut out).unwrap(), 0);
            }
            std::thread::sleep(Duration::from_millis(1));
            completions.acknowledge().unwrap();
        }
        rig.peer.connect(counterpart, &queue_pair.address());
        within(Duration::from_secs(2), "the write is done", || {
            if completions.arm().unwrap() {
                assert!(becomes_readable(&*completions), "the sleeper is woken");
                completions.acknowledge().unwrap();
            }
            completions.poll(&mut out).unwrap() == 1
        });
        assert_eq!(out[0].status, CompletionStatus::Success, "{path}");
        assert_eq!(rig.peer.bytes(remote.index), local.bytes());
    }
}

fn becomes_readable(queue: &dyn CompletionQueue) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(queue.fd(), PollFlags::IN)];
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    poll(&mut fds, Some(&second)).unwrap() == 1
}

#[test]
fn a_stopped_peer_keeps_what_it_pinned_until_it_is_gone() {
    let device = open(forced(PathKind::CrossMemory));
    let mut target = LocalPeer::new(Arc::clone(&device) as Arc<dyn Device>);
    let mut remote = RemotePeer::start("peer_process", "holding initiator");
    let pid = Pid::from_raw(i32::try_from(remote.pid()).unwrap()).unwrap();
    let (queue_pair, address) = target.queue_pair();
    let other = address_from_text(&remote.ask("initiator_address")[0]);
    remote.ask(&format!("initiator_connect {}", address_to_text(&address)));
    target.connect(queue_pair, &other);

    let window = Window::new(&(Arc::clone(&device) as Arc<dyn Device>), 64, 0);
    let untouched = Window::new(&(Arc::clone(&device) as Arc<dyn Device>), 64, 0);
    let rkey = window.region.rkey();
    remote.send(&format!("initiator_write {} {rkey}", window.address()));
    // The peer pins and then sleeps, so from some moment on the region cannot be revoked.
    let mut message = String::new();
    std::thread::sleep(Duration::from_millis(200));
    kill_process(pid, Signal::STOP).unwrap();
    let started = Instant::now();
    if let Err(error) = window.region.revoke(started + Duration::from_millis(100)) {
        message = error.to_string();
    }
    assert!(message.contains(&format!("process {}", remote.pid())), "{message}");
    assert!(started.elapsed() < Duration::from_secs(1));
    untouched.region.revoke(Instant::now()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    window.region.revoke(Instant::now() + Duration::from_secs(1)).unwrap();
    assert!(window.bytes().iter().all(|byte| *byte == 0));
}

#[test]
fn ordered_failures_come_on_every_path_and_are_counted() {
    for path in PATHS {
        let (mut rig, device) =
            rig(SoftwareOptions { faults: "fail=at:3:remote-operation".to_owned(), ..forced(path) });
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        side.post_all(&writes(1, &[write; 5], &[local.sge(0, 64)]));
        let expected = [
            CompletionStatus::Success,
            CompletionStatus::Success,
            CompletionStatus::RemoteOperation,
            CompletionStatus::Flushed,
            CompletionStatus::Flushed,
        ];
        assert_eq!(statuses(&side.wait(5)), expected, "{path}");
        assert_eq!(device.faults_injected(), 1, "{path}");
    }
}

#[test]
fn a_post_is_refused_where_ordered_and_a_peer_dropped_where_ordered() {
    for path in PATHS {
        let faults = "refuse=at:3;drop-peer=after:4".to_owned();
        let (mut rig, device) = rig(SoftwareOptions { faults, ..forced(path) });
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        let entries = [local.sge(0, 64)];
        assert_eq!(side.post(&writes(1, &[write; 6], &entries)), Posted::cut(2, libc::ENOMEM));
        side.post_all(&writes(1, &[write; 4], &entries));
        let found = statuses(&side.wait(6));
        // On TCP, requests that were sent and not yet answered go down with the connection.
        let failed = found.iter().position(|status| *status != CompletionStatus::Success).unwrap();
        assert!(failed == 4 || (failed < 4 && path == PathKind::Tcp), "{path}: {found:?}");
        assert_eq!(found[failed], CompletionStatus::RetryExceeded, "{path}");
        assert!(found[failed + 1..].iter().all(|status| *status == CompletionStatus::Flushed));
        assert_eq!(device.faults_injected(), 2, "{path}");
        let counterpart = side.counterpart;
        within(Duration::from_secs(1), "the other side notices", || rig.peer.is_broken(counterpart));
    }
}

#[test]
fn delays_delay() {
    for path in PATHS {
        let (mut rig, _) = rig(SoftwareOptions { faults: "delay=us:20000".to_owned(), ..forced(path) });
        let mut side = Initiator::new(&mut rig);
        let local = Window::new(&rig.device, 64, 1);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let write = request(remote.address, remote.rkey, 0);
        let started = Instant::now();
        side.post_all(&writes(1, &[write; 5], &[local.sge(0, 64)]));
        side.wait(5);
        assert!(started.elapsed() >= Duration::from_millis(100), "{path}: {:?}", started.elapsed());
    }
}

#[test]
fn more_outstanding_requests_than_the_completion_queue_holds_are_fatal() {
    let (mut rig, device) = rig(forced(PathKind::InProcess));
    let mut side = Initiator::with(&mut rig, &caps(), 4);
    let local = Window::new(&rig.device, 64, 1);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let write = request(remote.address, remote.rkey, 0);
    side.post_all(&writes(1, &[write; 5], &[local.sge(0, 64)]));
    assert!(side.completions.poll(&mut [Completion::default(); 8]).is_err());
    assert_eq!(device.poll_event(), Some(DeviceEvent::CompletionQueueFatal));
    assert!(side.queue_pair.is_broken());
}

#[test]
fn silent_requests_count_for_the_completion_queue_once_they_are_flushed() {
    let (mut rig, device) = rig(forced(PathKind::InProcess));
    let mut side = Initiator::with(&mut rig, &caps(), 4);
    let local = Window::new(&rig.device, 64, 1);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let (requests, entries) = ([request(remote.address, remote.rkey, 0); 8], [local.sge(0, 64)]);
    let silent = Batch { signal_every: 0, ..writes(1, &requests, &entries) };
    side.post_all(&silent);
    assert_eq!(side.completions.poll(&mut [Completion::default(); 8]).unwrap(), 1, "the last one's");
    side.post_all(&silent);
    side.queue_pair.set_error().unwrap();
    // Eight completions are due now, and the queue holds four.
    while side.completions.poll(&mut [Completion::default(); 1]).is_ok() {}
    assert_eq!(device.poll_event(), Some(DeviceEvent::CompletionQueueFatal));
}

#[test]
fn other_clients_of_the_data_listener_disturb_no_peer() {
    let (mut rig, _) = rig(forced(PathKind::Tcp));
    let mut side = Initiator::new(&mut rig);
    let address = side.queue_pair.address();
    let listener = SocketAddr::new(address.ip(), address.lid as u16);
    let mut silent = TcpStream::connect(listener).unwrap();
    for bytes in [b"GET / HTTP/1.1\r\n".repeat(8), vec![0; 4096], vec![0xFF; 1]] {
        let mut client = TcpStream::connect(listener).unwrap();
        client.write_all(&bytes).unwrap();
        if bytes.len() > 100 {
            // Closed without a word.
            client.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            assert!(matches!(client.read(&mut [0; 64]), Ok(0) | Err(_)));
        }
    }
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    side.post_all(&writes(1, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
    assert_eq!(statuses(&side.wait(1)), [CompletionStatus::Success]);
    // A silent one is closed.
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(silent.read(&mut [0; 64]), Ok(0)));
}

#[test]
fn a_path_that_cannot_be_had_is_an_error_that_says_why() {
    let (mut other, _) = remote_rig(PathKind::Tcp);
    let (_, address) = other.peer.queue_pair();
    let connect = |options, address| {
        let device: Arc<dyn Device> = open(options);
        let completions = Arc::clone(&device).create_completion_queue(4).unwrap();
        let mut queue_pair = device.create_queue_pair(&completions.handle(), &caps()).unwrap();
        queue_pair.connect(&address, &peer::path()).map_err(|error| error.to_string())
    };
    let error = connect(forced(PathKind::InProcess), address).unwrap_err();
    assert!(error.contains("forced path in-process"), "{error}");
    let missing = QpAddress { qpn: 0xABCDEF, ..address };
    let error = connect(SoftwareOptions::default(), missing).unwrap_err();
    assert!(error.contains("no such queue pair"), "{error}");
    let closed = QpAddress { lid: 1, ..address };
    let error = connect(SoftwareOptions::default(), closed).unwrap_err();
    assert!(error.contains("refused") && error.contains("the peer announced this address"), "{error}");
    let ethernet = QpAddress { link_layer: 2, ..address };
    let error = connect(SoftwareOptions::default(), ethernet).unwrap_err();
    assert!(error.contains("link layer"), "{error}");
    assert!(software::open(&forced(PathKind::Rdma)).is_err());
}

#[test]
fn revoked_memory_can_be_unmapped_while_peers_keep_writing() {
    const LENGTH: usize = 1 << 20;
    for path in PATHS {
        let (rig, _) = rig(forced(path));
        let local = Window::new(&rig.device, 32 * LENGTH, 1);
        let target = open(forced(path));
        for round in 0..12 {
            // SAFETY: a fresh private mapping, unmapped below, after its registration has ended.
            let address = unsafe {
                rustix::mm::mmap_anonymous(
                    std::ptr::null_mut(),
                    LENGTH,
                    rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                    rustix::mm::MapFlags::PRIVATE,
                )
            }
            .unwrap() as u64;
            let range = MemoryRange {
                address,
                length: LENGTH as u64,
                access: Access::FULL,
                dma_buf: None,
                file: None,
                cpu_address: None,
                backing: Backing::Unknown,
                announced: true,
            };
            let region = (Arc::clone(&target) as Arc<dyn Device>).register(&range).unwrap();
            let mut peer = LocalPeer::new(Arc::clone(&target) as Arc<dyn Device>);
            let (counterpart, peer_address) = peer.queue_pair();
            let mut completions = Arc::clone(&rig.device).create_completion_queue(64).unwrap();
            let mut queue_pair =
                Arc::clone(&rig.device).create_queue_pair(&completions.handle(), &caps()).unwrap();
            queue_pair.connect(&peer_address, &peer::path()).unwrap();
            peer.connect(counterpart, &queue_pair.address());
            let opcode = if round % 2 == 0 { Opcode::Write } else { Opcode::Read };
            let requests: Vec<_> =
                (0..32).map(|index| request(range.address, region.rkey(), index)).collect();
            let entries: Vec<_> = (0..32).map(|index| local.sge(index * LENGTH, LENGTH)).collect();
            assert_eq!(queue_pair.post(&Batch { opcode, ..writes(0, &requests, &entries) }).accepted, 32);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_micros(500 * round));
                    region.revoke(Instant::now() + Duration::from_secs(10)).unwrap();
                    // SAFETY: the registration has ended, and with it every use of the memory.
                    unsafe { rustix::mm::munmap(address as *mut _, LENGTH) }.unwrap();
                });
                let mut found = Vec::new();
                let deadline = Instant::now() + Duration::from_secs(20);
                while found.len() < 32 {
                    let mut out = [Completion::default(); 32];
                    let new = completions.poll(&mut out).unwrap();
                    found.extend_from_slice(&out[..new]);
                    assert!(Instant::now() < deadline, "{path}: {found:?}");
                }
                let found = statuses(&found);
                let first =
                    found.iter().position(|status| *status != CompletionStatus::Success).unwrap_or(32);
                if first < 32 {
                    assert_eq!(found[first], CompletionStatus::RemoteAccess, "{path}, round {round}");
                    assert!(found[first + 1..].iter().all(|status| *status == CompletionStatus::Flushed));
                }
            });
        }
        drop(rig.peer);
    }
}

/// Three requests that are copied by one call: memory of the second one has gone, the third one has a wrong key.
#[test]
fn a_request_that_stops_a_copy_has_its_own_status_and_not_that_of_one_behind_it() {
    const PAGE: usize = 4096;
    for path in [PathKind::InProcess, PathKind::CrossMemory] {
        let (mut rig, _) = rig(forced(path));
        let target: Arc<dyn Device> = open(forced(path));
        rig.peer = Box::new(LocalPeer::new(Arc::clone(&target)));
        let mut side = Initiator::new(&mut rig);
        let local = Window::with_backing(&rig.device, 3 * PAGE, 1, Access::FULL, Backing::Mapped);
        // SAFETY: a fresh private mapping, which nothing else uses.
        let address = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                3 * PAGE,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE,
            )
        }
        .unwrap() as u64;
        let region = target
            .register(&MemoryRange {
                address,
                length: 3 * PAGE as u64,
                access: Access::FULL,
                dma_buf: None,
                file: None,
                cpu_address: None,
                backing: Backing::Mapped,
                announced: true,
            })
            .unwrap();
        // SAFETY: of the mapping above; what is to be copied there fails.
        unsafe { rustix::mm::munmap((address + PAGE as u64) as *mut _, PAGE) }.unwrap();
        let at = |index: u32| request(address + u64::from(index) * PAGE as u64, region.rkey(), index);
        let entries = [0, 1, 2].map(|index| local.sge(index * PAGE, PAGE));
        let entries = [entries[0], entries[1], Sge { lkey: 0, ..entries[2] }];
        side.post_all(&writes(1, &[at(0), at(1), at(2)], &entries));
        let expected = [CompletionStatus::Success, CompletionStatus::RemoteAccess, CompletionStatus::Flushed];
        assert_eq!(statuses(&side.wait(3)), expected, "{path}");
    }
}

#[test]
fn closing_devices_leaves_no_thread_and_no_descriptor() {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let cycle = || {
        for path in PATHS {
            let (mut rig, _) = rig(forced(path));
            let mut side = Initiator::new(&mut rig);
            let local = Window::new(&rig.device, 64, 1);
            let remote = rig.peer.buffer(64, 0, Access::FULL);
            side.post_all(&writes(1, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
            side.wait(1);
            // Still outstanding when everything goes.
            side.post_all(&writes(1, &[request(remote.address, remote.rkey, 0)], &[local.sge(0, 64)]));
        }
    };
    // Other tests of this process come and go meanwhile, hence in a process of its own.
    if std::env::var(ROLE).as_deref() != Ok("leak check") {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "closing_devices_leaves_no_thread_and_no_descriptor", "--test-threads=1"])
            .env(ROLE, "leak check")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    cycle();
    let before = (count("fd"), count("task"));
    (0..10).for_each(|_| cycle());
    assert_eq!((count("fd"), count("task")), before);
}

/// More queue pairs than sockets stay open of a completion queue: those that connect later have none until something is posted.
#[test]
fn a_socket_at_rest_is_closed_and_opened_again() {
    const COUNT: usize = 36;
    let (mut rig, _) = rig(forced(PathKind::Tcp));
    let mut completions = Arc::clone(&rig.device).create_completion_queue(4 * COUNT as u32).unwrap();
    let mut queue_pairs = Vec::new();
    let mut counterparts = Vec::new();
    for _ in 0..COUNT {
        let handle = completions.handle();
        let mut queue_pair = Arc::clone(&rig.device).create_queue_pair(&handle, &caps()).unwrap();
        let (counterpart, address) = rig.peer.queue_pair();
        queue_pair.connect(&address, &peer::path()).unwrap();
        rig.peer.connect(counterpart, &queue_pair.address());
        queue_pairs.push(queue_pair);
        counterparts.push(counterpart);
    }
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64 * COUNT, 0, Access::FULL);
    let mut wait = |what: &str| {
        let mut out = [Completion::default()];
        within(Duration::from_secs(5), what, || completions.poll(&mut out).unwrap() == 1);
        out[0].status
    };
    // Twice: over a socket that is opened, and one that is open.
    for _ in 0..2 {
        for (number, queue_pair) in queue_pairs.iter_mut().enumerate() {
            let write = request(remote.address + 64 * number as u64, remote.rkey, 0);
            assert_eq!(queue_pair.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
            assert_eq!(wait("the write is done"), CompletionStatus::Success, "{number}");
            assert!(!queue_pair.is_broken());
        }
    }
    assert_eq!(rig.peer.bytes(remote.index), local.bytes().repeat(COUNT));
    // At rest again, and the counterpart fails meanwhile: the next request finds that out.
    let last = queue_pairs.last_mut().unwrap();
    std::thread::sleep(Duration::from_millis(600));
    for _ in 0..3 {
        completions.poll(&mut [Completion::default()]).unwrap();
        std::thread::sleep(Duration::from_millis(600));
    }
    assert!(!last.is_broken() && !rig.peer.is_broken(counterparts[COUNT - 1]));
    rig.peer.set_error(counterparts[COUNT - 1]);
    let write = request(remote.address, remote.rkey, 0);
    assert_eq!(last.post(&writes(1, &[write], &[local.sge(0, 64)])).accepted, 1);
    let mut out = [Completion::default()];
    within(Duration::from_secs(5), "the write fails", || completions.poll(&mut out).unwrap() == 1);
    assert_eq!(out[0].status, CompletionStatus::RetryExceeded);
    assert!(last.is_broken());
}

/// A listener in front of a device's: it closes the first `closed` handshakes after the hello and forwards the next one. Answers
/// how many have come.
fn closing_front(to: u32, closed: usize) -> (u32, std::thread::JoinHandle<usize>) {
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = front.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        for count in 1.. {
            let (mut client, _) = front.accept().unwrap();
            let mut hello = [0; 32];
            client.read_exact(&mut hello).unwrap();
            if count > closed {
                let mut server = TcpStream::connect(("127.0.0.1", u16::try_from(to).unwrap())).unwrap();
                server.write_all(&hello).unwrap();
                let (mut back, mut client_end) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut client_end));
                let _ = std::io::copy(&mut client, &mut server);
                return count;
            }
        }
        0
    });
    (u32::from(port), thread)
}

/// As one that has lost patience over a link that loses packets, or is short of places.
#[test]
fn a_listener_that_closes_handshakes_is_asked_again() {
    let (here, there) = (open(forced(PathKind::Tcp)), open(forced(PathKind::Tcp)));
    let ends = [here, there].map(|device| {
        let completions = Arc::clone(&device).create_completion_queue(16).unwrap();
        let queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
        (completions, queue_pair)
    });
    let [(_here, mut initiator), (_there, target)] = ends;
    let (port, front) = closing_front(target.address().lid, 2);
    initiator.connect(&QpAddress { lid: port, ..target.address() }, &peer::path()).unwrap();
    drop((initiator, target));
    assert_eq!(front.join().unwrap(), 3, "two were closed, and the third one was welcome");
}

#[test]
fn a_listener_that_closes_every_handshake_is_named_with_what_was_awaited() {
    let device = open(forced(PathKind::Tcp));
    let completions = Arc::clone(&device).create_completion_queue(16).unwrap();
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
    let (port, _front) = closing_front(1, usize::MAX);
    let begin = Instant::now();
    let error = queue_pair.connect(&QpAddress { lid: port, ..queue_pair.address() }, &peer::path());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("waiting for its hello") && text.contains(&port.to_string()), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

/// The data thread polls between two requests, unless it is told to sleep at once: then it sleeps before each.
#[test]
fn a_data_thread_that_is_to_sleep_at_once_polls_for_nothing() {
    const WRITES: u64 = 200;
    // Shorter than it polls, longer than it takes to fall asleep.
    const PAUSE: Duration = Duration::from_micros(100);
    let options = SoftwareOptions { sleeps_at_once: true, ..forced(PathKind::Tcp) };
    let device = open(forced(PathKind::Tcp));
    let peer = Box::new(LocalPeer::new(open(options)));
    let mut rig = Rig { device: Arc::clone(&device) as Arc<dyn Device>, peer, path: PathKind::Tcp };
    let mut side = Initiator::new(&mut rig);
    let local = Window::new(&rig.device, 64, 7);
    let target = rig.peer.buffer(64, 0, Access::FULL);
    let before = sleeps_of_data_threads();
    for id in 0..WRITES {
        let write = request(target.address, target.rkey, 0);
        side.post_all(&writes(id, &[write], &[local.sge(0, 64)]));
        let begin = Instant::now();
        while side.completions.poll(&mut [Completion::default()]).unwrap() == 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "write {id} is not done");
        }
        let done = Instant::now();
        while done.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
    }
    let sleeps = sleeps_of_data_threads() - before;
    assert!(sleeps >= WRITES * 9 / 10, "they slept {sleeps} times in {WRITES} requests");
}

/// How often the data threads of this process have gone to sleep.
fn sleeps_of_data_threads() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_data_thread = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "p2p-sw0")
    };
    let sleeps = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    tasks.filter(is_data_thread).map(sleeps).sum()
}
