//! The verbs provider over the stand-in libibverbs: conformance, refusals, limits, leaks.
#![cfg(feature = "verbs")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod conformance;
mod nullverbs;

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conformance::initiator::{request, writes};
use conformance::{Initiator, LocalPeer, Rig, Window, caps, run};
use flagcx_p2p::internals::fabric::*;
use nullverbs::{Live, Standin};

/// Tests that count file descriptors must not run beside others, so none does.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(standin: &Standin) -> Vec<Arc<dyn Device>> {
    verbs::open(&standin.options()).unwrap()
}

fn rig(from: &Arc<dyn Device>, to: &Arc<dyn Device>) -> Rig {
    Rig { device: Arc::clone(from), peer: Box::new(LocalPeer::new(Arc::clone(to))), path: PathKind::Rdma }
}

fn path() -> PathOptions {
    PathOptions {
        rd_atomic_initiator: 16,
        rd_atomic_responder: 16,
        deadline: Instant::now() + Duration::from_secs(5),
    }
}

fn refusal(options: &VerbsOptions) -> String {
    let error = verbs::open(options).expect_err("nothing here can be opened").to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    error
}

fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn conformance_on_one_device() {
    let _alone = alone();
    let device = &open(&Standin::new(&[]))[0];
    run(|| rig(device, device));
}

#[test]
fn conformance_between_two_devices() {
    let _alone = alone();
    let devices = open(&Standin::new(&[("devs", 2)]));
    run(|| rig(&devices[0], &devices[1]));
}

#[test]
fn conformance_with_late_completions() {
    let _alone = alone();
    let device = &open(&Standin::new(&[("delay_ns", 300_000)]))[0];
    run(|| rig(device, device));
}

#[test]
fn infiniband_is_addressed_by_lid() {
    let _alone = alone();
    let devices = open(&Standin::new(&[("link_layer", 1), ("devs", 2)]));
    let port = devices[1].port().unwrap();
    assert_eq!((port.link_layer, port.lid, port.gid_index), (LINK_INFINIBAND, 2, 0));
    run(|| rig(&devices[0], &devices[1]));
}

#[test]
fn attributes_say_what_the_library_says() {
    let _alone = alone();
    let devices = open(&Standin::new(&[("devs", 3)]));
    assert_eq!(devices.len(), 3);
    let attributes = devices[2].attributes();
    assert_eq!((attributes.name.as_str(), attributes.port, attributes.provider), ("nv2", 1, Provider::Verbs));
    assert_eq!(attributes.guid, 0x0200_0000_00ab_cd02);
    assert_eq!(attributes.pci_path, None, "it has no files in /sys, which must do no harm");
    assert_eq!((attributes.max_queue_depth, attributes.max_sge), (32768, 30));
    assert_eq!((attributes.max_rd_atomic_initiator, attributes.max_rd_atomic_responder), (16, 16));
    let port = devices[2].port().unwrap();
    assert_eq!(
        (port.active, port.link_layer, port.mtu, port.speed_mbps),
        (true, LINK_ETHERNET, 4096, 100_000)
    );
    assert_eq!(port.gid_index, 1, "the IPv4-mapped one, not the link-local one: {}", port.gid_reason);
}

#[test]
fn devices_are_chosen_by_the_list() {
    let _alone = alone();
    let standin = Standin::new(&[("devs", 3)]);
    let names = |hca: &str| -> Vec<String> {
        let options = VerbsOptions { hca: hca.to_owned(), ..standin.options() };
        verbs::open(&options).unwrap().iter().map(|device| device.attributes().name.clone()).collect()
    };
    assert_eq!(names("nv1"), ["nv1"]);
    assert_eq!(names("^=nv1"), ["nv0", "nv2"]);
    assert_eq!(names("nv2:1,nv0:1,nv1:2"), ["nv0", "nv2"]);
}

#[test]
fn what_cannot_be_used_is_refused_in_one_line() {
    let _alone = alone();
    let none = Standin::new(&[("devs", 0)]);
    expect(&refusal(&none.options()), &["no RDMA device", "ib_uverbs"]);

    let standin = Standin::new(&[("devs", 2)]);
    let options = standin.options();
    let list = VerbsOptions { hca: "mlx5_0".to_owned(), ..options.clone() };
    expect(&refusal(&list), &["nv0, nv1", "FLAGCX_IB_HCA=\"mlx5_0\""]);
    let unreadable = VerbsOptions { hca: "mlx5_0:one".to_owned(), ..options.clone() };
    expect(&refusal(&unreadable), &["mlx5_0:one", "name[:port]"]);
    let port = VerbsOptions { port: Some(2), ..options.clone() };
    expect(&refusal(&port), &["nv0 port 1 is not the port asked for"]);
    let gid = VerbsOptions { gid_index: Some(5), ..options.clone() };
    expect(&refusal(&gid), &["FLAGCX_IB_GID_INDEX=5", "nv0 port 1", "ends at index 1", "0, 1"]);
    let range = VerbsOptions { address_range: "198.51.100.0/24".to_owned(), ..options.clone() };
    expect(&refusal(&range), &["no usable GID", "198.51.100.0/24", "[1] ::ffff:"]);
    let mtu = VerbsOptions { max_mtu: 9000, ..options };
    expect(&refusal(&mtu), &["9000", "256, 512, 1024, 2048 or 4096"]);

    let down = Standin::new(&[("port_state", 1)]);
    expect(&refusal(&down.options()), &["nv0 port 1 is DOWN, not ACTIVE"]);
}

#[test]
fn a_library_that_is_none_is_refused() {
    let _alone = alone();
    let missing =
        VerbsOptions { library: Some("/nonexistent/libibverbs.so".to_owned()), ..VerbsOptions::default() };
    expect(&refusal(&missing), &["/nonexistent/libibverbs.so", "install libibverbs1"]);
    let other = VerbsOptions { library: Some("libc.so.6".to_owned()), ..VerbsOptions::default() };
    expect(&refusal(&other), &["libc.so.6", "ibv_get_device_list"]);
}

/// Before the first device is opened, once, and only where the library reports that it is needed.
#[test]
fn fork_support_of_the_library_is_enabled_where_needed() {
    let _alone = alone();
    let unneeded = Standin::new(&[]);
    drop(open(&unneeded));
    assert_eq!(unneeded.fork_inits(), 0);
    let needed = Standin::new(&[("fork_status", 0)]);
    drop((open(&needed), open(&needed)));
    assert_eq!(needed.fork_inits(), 1);
    // A failure is logged, and the devices are used nevertheless.
    let refused = Standin::new(&[("fork_status", 0), ("fork_errno", libc::EINVAL as u64)]);
    assert_eq!(open(&refused).len(), 1);
    assert_eq!(refused.fork_inits(), 1);
}

#[test]
fn limits_are_named() {
    let _alone = alone();
    let device = &open(&Standin::new(&[("max_depth", 128), ("max_region", 1 << 20)]))[0];
    let queue = Arc::clone(device).create_completion_queue(16).unwrap();
    let deep = QueuePairCaps { send_depth: 129, ..caps() };
    let error = Arc::clone(device).create_queue_pair(&queue.handle(), &deep).unwrap_err().to_string();
    expect(&error, &["129", "nv0", "128", "max_qp_wr"]);
    let wide = QueuePairCaps { max_sge: 31, ..caps() };
    let error = Arc::clone(device).create_queue_pair(&queue.handle(), &wide).unwrap_err().to_string();
    expect(&error, &["31", "30", "max_sge"]);
    let error = Arc::clone(device).create_completion_queue(1 << 30).unwrap_err().to_string();
    expect(&error, &["1073741824", "max_cqe", "FLAGCX_P2P_CQ_DEPTH"]);
    let large = MemoryRange {
        address: 4096,
        length: (1 << 20) + 1,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Unknown,
        announced: true,
    };
    let error = device.register(&large).unwrap_err().to_string();
    expect(&error, &["1048577", "1048576", "max_mr_size"]);
}

#[test]
fn inline_room_shrinks_to_what_there_is() {
    let _alone = alone();
    let device = &open(&Standin::new(&[]))[0];
    let queue = Arc::clone(device).create_completion_queue(16).unwrap();
    let wanted = QueuePairCaps { max_inline: 5000, ..caps() };
    let queue_pair = Arc::clone(device).create_queue_pair(&queue.handle(), &wanted).unwrap();
    assert_eq!(queue_pair.caps().max_inline, 625);
}

#[test]
fn failed_registrations_say_what_to_do() {
    let _alone = alone();
    let standin = Standin::new(&[("locked_bytes", 1 << 16)]);
    let device = &open(&standin)[0];
    let bytes = vec![0_u8; 1 << 17];
    let range = |length| MemoryRange {
        address: bytes.as_ptr() as u64,
        length,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Unknown,
        announced: true,
    };
    let error = device.register(&range(1 << 17)).unwrap_err();
    assert!(matches!(error, FabricError::Call { errno: libc::ENOMEM, .. }), "{error:?}");
    expect(&error.to_string(), &["131072", "RLIMIT_MEMLOCK"]);

    let unmapped = MemoryRange {
        address: 0x1000,
        length: 4096,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Unknown,
        announced: true,
    };
    let error = device.register(&unmapped).unwrap_err();
    assert!(matches!(error, FabricError::Call { errno: libc::EFAULT, .. }), "{error:?}");
    expect(&error.to_string(), &["0x1000+4096 is not mapped"]);
    let past_the_end = MemoryRange { address: u64::MAX - 10, ..range(4096) };
    assert!(matches!(device.register(&past_the_end), Err(FabricError::Call { errno: libc::EINVAL, .. })));
    assert!(matches!(device.register(&range(0)), Err(FabricError::Call { errno: libc::EINVAL, .. })));
    let buffer = MemoryRange { dma_buf: Some(DmaBuf { fd: 0, offset: 0 }), ..range(4096) };
    expect(&device.register(&buffer).unwrap_err().to_string(), &["ibv_reg_dmabuf_mr", "dma-buf"]);

    let region = device.register(&range(4096)).unwrap();
    region.revoke(Instant::now()).unwrap();
    region.revoke(Instant::now()).unwrap();
    assert_eq!(standin.live().regions, 0);
}

#[test]
fn unlike_peers_are_refused_before_anything_happens() {
    let _alone = alone();
    let device = &open(&Standin::new(&[]))[0];
    let queue = Arc::clone(device).create_completion_queue(16).unwrap();
    let mut queue_pair = Arc::clone(device).create_queue_pair(&queue.handle(), &caps()).unwrap();
    let like = queue_pair.address();
    let software = QpAddress { link_layer: LINK_SOFTWARE, ..like };
    let error = queue_pair.connect(&software, &path()).unwrap_err().to_string();
    expect(&error, &["software fabric", "nv0 port 1 is Ethernet"]);
    let mtu = QpAddress { mtu: 9, ..like };
    expect(&queue_pair.connect(&mtu, &path()).unwrap_err().to_string(), &["MTU number 9"]);
    let late = PathOptions { deadline: Instant::now(), ..path() };
    assert!(matches!(queue_pair.connect(&like, &late), Err(FabricError::TimedOut { .. })));
    assert_eq!(queue_pair.path(), PathKind::None);

    // The peer's port number is its own affair, and what may be outstanding is cut to what the device can do.
    let other_port = QpAddress { port: 9, ..like };
    let greedy = PathOptions { rd_atomic_initiator: 255, rd_atomic_responder: 255, ..path() };
    queue_pair.connect(&other_port, &greedy).unwrap();
    assert_eq!(queue_pair.path(), PathKind::Rdma);
}

#[test]
fn a_queue_pair_needs_a_queue_of_its_device() {
    let _alone = alone();
    let devices = open(&Standin::new(&[("devs", 2)]));
    let queue = Arc::clone(&devices[0]).create_completion_queue(16).unwrap();
    let error = Arc::clone(&devices[1]).create_queue_pair(&queue.handle(), &caps()).unwrap_err().to_string();
    expect(&error, &["completion queue of nv1"]);
}

#[test]
fn nothing_is_posted_before_connecting_and_nothing_malformed_after() {
    let _alone = alone();
    let device = &open(&Standin::new(&[]))[0];
    let mut rig = rig(device, device);
    let local = Window::patterned(device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let good = WorkRequest {
        remote_address: remote.address,
        rkey: remote.rkey,
        first_sge: 0,
        origin: 0,
        sge_count: 1,
        inline: false,
    };
    let entries = [local.sge(0, 64)];
    let queue = Arc::clone(device).create_completion_queue(16).unwrap();
    let mut idle = Arc::clone(device).create_queue_pair(&queue.handle(), &caps()).unwrap();
    assert_eq!(idle.post(&writes(1, &[good], &entries)), Posted::cut(0, libc::EINVAL));
    assert_eq!(idle.post(&writes(1, &[], &entries)), Posted { accepted: 0, errno: None });

    let mut side = Initiator::new(&mut rig);
    for bad in [
        WorkRequest { first_sge: 1, ..good },
        WorkRequest { sge_count: 2, ..good },
        WorkRequest { sge_count: 0, ..good },
    ] {
        let posted = side.post(&writes(1, &[good, good, bad, good], &entries));
        assert_eq!(posted, Posted::cut(2, libc::EINVAL));
        assert_eq!(side.wait(2).len(), 2);
    }
    side.expect_none();
    assert_eq!(rig.peer.bytes(remote.index), local.bytes());
}

/// A library that has accepted a list and cannot notify the device, as rdma-core's rxe, names no request that it did
/// not accept: all of them are posted, and their completions follow.
#[test]
fn a_list_that_was_taken_before_the_post_failed_counts_as_posted() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let device = &open(&standin)[0];
    let mut rig = rig(device, device);
    let local = Window::patterned(device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let good = request(remote.address, remote.rkey, 0);
    let entries = [local.sge(0, 64)];
    let mut side = Initiator::new(&mut rig);
    for (errno, errno_of_post) in [(libc::EINVAL, libc::EINVAL), (libc::ENOMEM, libc::EIO)] {
        for count in [1, 3] {
            standin.set("doorbell_errno", errno as u64);
            assert_eq!(
                side.post(&writes(1, &vec![good; count], &entries)),
                Posted::cut(count, errno_of_post)
            );
            standin.set("doorbell_errno", 0);
            assert!(side.queue_pair.is_broken());
            assert_eq!(side.wait(count).len(), count);
        }
    }
}

#[test]
fn lists_longer_than_one_call_go_in_order() {
    let _alone = alone();
    const COUNT: usize = 2500;
    let device = &open(&Standin::new(&[]))[0];
    let mut rig = rig(device, device);
    let deep = QueuePairCaps { send_depth: COUNT as u32, max_sge: 1, max_inline: 0 };
    let mut side = Initiator::with(&mut rig, &deep, COUNT as u32);
    let local = Window::patterned(device, COUNT * 8);
    let remote = rig.peer.buffer(COUNT * 8, 0, Access::FULL);
    let entries: Vec<_> = (0..COUNT).map(|index| local.sge(index * 8, 8)).collect();
    let requests: Vec<_> = (0..COUNT as u64)
        .map(|index| WorkRequest {
            remote_address: remote.address + index * 8,
            rkey: remote.rkey,
            first_sge: index as u32,
            origin: 0,
            sge_count: 1,
            inline: false,
        })
        .collect();
    side.post_all(&writes(0, &requests, &entries));
    let ids: Vec<_> = side.wait(COUNT).iter().map(|completion| completion.id).collect();
    assert_eq!(ids, (0..COUNT as u64).collect::<Vec<_>>());
    assert_eq!(rig.peer.bytes(remote.index), local.bytes());
    // Every so many are signaled, and the last of each call.
    side.post_all(&Batch { signal_every: 999, ..writes(0, &requests, &entries) });
    let ids: Vec<_> = side.wait(5).iter().map(|completion| completion.id).collect();
    assert_eq!(ids, [998, 1023, 2022, 2047, 2499]);
    side.expect_none();
    // One more than there is room for: the refusal's position counts over the calls.
    let mut requests = requests;
    requests.push(requests[0]);
    let posted = side.post(&writes(0, &requests, &entries));
    assert_eq!(posted, Posted::cut(COUNT, libc::ENOMEM));
}

#[test]
fn the_descriptor_wakes_once_per_arming() {
    let _alone = alone();
    let device = &open(&Standin::new(&[]))[0];
    let mut rig = rig(device, device);
    let local = Window::patterned(device, 64);
    let remote = rig.peer.buffer(64, 0, Access::FULL);
    let mut side = Initiator::new(&mut rig);
    let write = request(remote.address, remote.rkey, 0);
    let mut out = [Completion::default(); 4];

    assert!(!readable(&*side.completions));
    assert!(side.completions.arm().unwrap(), "an empty queue may be slept on");
    side.post_all(&writes(1, &[write; 2], &[local.sge(0, 64)]));
    assert!(readable(&*side.completions));
    side.completions.acknowledge().unwrap();
    side.completions.acknowledge().unwrap();
    assert!(!readable(&*side.completions));
    assert!(!side.completions.arm().unwrap(), "two completions wait, so no thread may sleep");
    assert_eq!(side.completions.poll(&mut out[..1]).unwrap(), 1);
    assert!(!side.completions.arm().unwrap(), "one is left");
    assert_eq!(side.completions.poll(&mut out).unwrap(), 1);
    assert_eq!(side.completions.poll(&mut out).unwrap(), 0);
}

fn readable(queue: &dyn CompletionQueue) -> bool {
    let mut poll = libc::pollfd { fd: queue.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, alive for the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

#[test]
fn objects_keep_what_they_were_made_from() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let device = open(&standin).remove(0);
    let bytes = vec![0_u8; 4096];
    let range = MemoryRange {
        address: bytes.as_ptr() as u64,
        length: 4096,
        access: Access::FULL,
        dma_buf: None,
        file: None,
        cpu_address: None,
        backing: Backing::Unknown,
        announced: true,
    };
    let region = device.register(&range).unwrap();
    let queue = Arc::clone(&device).create_completion_queue(16).unwrap();
    let queue_pair = Arc::clone(&device).create_queue_pair(&queue.handle(), &caps()).unwrap();
    drop(device);
    drop(queue);
    assert_eq!(
        standin.live(),
        Live { contexts: 1, domains: 1, regions: 1, completion_queues: 1, queue_pairs: 1 }
    );
    drop(queue_pair);
    assert_eq!(
        standin.live(),
        Live { contexts: 1, domains: 1, regions: 1, completion_queues: 0, queue_pairs: 0 }
    );
    drop(region);
    assert_eq!(standin.live(), Live::default());
}

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let _alone = alone();
    let standin = Standin::new(&[]);
    let devices = open(&standin);
    devices[0].check_use().unwrap();
    let (live, files) = (standin.live(), open_files());
    for round in 0..1000_u64 {
        let mut rig = rig(&devices[0], &devices[0]);
        let mut side = Initiator::new(&mut rig);
        let local = Window::patterned(&devices[0], 64);
        let remote = rig.peer.buffer(64, 0, Access::FULL);
        let rkey = if round % 2 == 0 { remote.rkey } else { !remote.rkey };
        side.post_all(&writes(round, &[request(remote.address, rkey, 0)], &[local.sge(0, 64)]));
        assert!(side.completions.arm().is_ok());
        assert_eq!(side.wait(1)[0].id, round);
    }
    assert_eq!((standin.live(), open_files()), (live, files));
    drop(devices);
    assert_eq!(standin.live(), Live::default());
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
