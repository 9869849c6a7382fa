//! Memory that goes away under requests.

use super::*;

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
