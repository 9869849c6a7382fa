//! Registries of further NICs, which have what that of the first one has.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU32;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::fabric::{Access, DeviceAttributes, DmaBuf, FabricError, MemoryRange, MemoryRegion};
use crate::fabric::{Device, SoftwareOptions, software};
use crate::memory::delegating_device::delegate_to_inner;
use crate::memory::{Allocation, MemoryKind, RegistryError, is_allocated, region_in_process};

const LIMIT: Duration = Duration::from_secs(20);

/// A software device that keeps count of what is registered.
#[derive(Debug)]
struct Nic {
    inner: Arc<dyn Device>,
    attributes: DeviceAttributes,
    /// Starts of what is registered now.
    live: Arc<Mutex<BTreeSet<u64>>>,
    /// The inodes of the dma-bufs that came.
    dma_bufs: Mutex<Vec<u64>>,
    /// How many ranges came with a file of this process.
    own_files: AtomicU32,
    /// The range with this start is refused.
    refuses: Option<u64>,
    /// With this error, while it is not 0; how often it has.
    errno: AtomicU32,
    refused: AtomicU32,
    /// All keys are this one, if it is not 0.
    key: AtomicU32,
    /// A registration passes `begun`, then `may_go`.
    gate: Option<Gate>,
}

#[derive(Debug)]
struct Gate {
    begun: Barrier,
    may_go: Barrier,
}

#[derive(Debug)]
struct Counted {
    inner: Arc<dyn MemoryRegion>,
    live: Arc<Mutex<BTreeSet<u64>>>,
    start: u64,
    key: u32,
}

fn nic(name: &str) -> Nic {
    let inner = software::open(&SoftwareOptions::default()).unwrap().remove(0);
    let attributes = DeviceAttributes { name: name.to_owned(), ..inner.attributes().clone() };
    let (live, dma_bufs, key, own_files, refused) = Default::default();
    let errno = AtomicU32::new(libc::EINVAL as u32);
    Nic { inner, attributes, live, dma_bufs, own_files, refuses: None, errno, refused, key, gate: None }
}

fn with_gate(name: &str) -> Arc<Nic> {
    let gate = Gate { begun: Barrier::new(2), may_go: Barrier::new(2) };
    Arc::new(Nic { gate: Some(gate), ..nic(name) })
}

impl Device for Nic {
    fn attributes(&self) -> &DeviceAttributes {
        &self.attributes
    }
    delegate_to_inner!();
    fn register(&self, range: &MemoryRange) -> Result<Arc<dyn MemoryRegion>, FabricError> {
        assert!(range.length <= self.attributes.max_region);
        if let Some(gate) = &self.gate {
            gate.begun.wait();
            gate.may_go.wait();
        }
        let errno = self.errno.load(Ordering::Relaxed) as i32;
        if self.refuses == Some(range.address) && errno != 0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(FabricError::call("register memory", self.attributes.name.as_str(), errno));
        }
        if range.file.is_some_and(|file| file.is_own) {
            self.own_files.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(buffer) = range.dma_buf {
            #[allow(unsafe_code, reason = "borrows what the registration has borrowed")]
            // SAFETY: open during the call, or the system call fails.
            let inode = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(buffer.fd) }).unwrap().st_ino;
            self.dma_bufs.lock().unwrap().push(inode);
        }
        let inner = self.inner.register(&MemoryRange { dma_buf: None, ..*range })?;
        assert!(self.live.lock().unwrap().insert(range.address), "registered twice");
        let (live, start, key) = (Arc::clone(&self.live), range.address, self.key.load(Ordering::Relaxed));
        Ok(Arc::new(Counted { inner, live, start, key }))
    }
}

impl MemoryRegion for Counted {
    fn lkey(&self) -> u32 {
        if self.key == 0 { self.inner.lkey() } else { self.key }
    }
    fn rkey(&self) -> u32 {
        self.lkey()
    }
    fn revoke(&self, deadline: Instant) -> Result<(), FabricError> {
        self.live.lock().unwrap().remove(&self.start);
        self.inner.revoke(deadline)
    }
}

/// Pages to be registered one by one.
struct Memory(Vec<u8>);

impl Memory {
    fn new() -> Self {
        Self(vec![0; 64 * 4096])
    }

    fn start(&self, page: u64) -> u64 {
        self.0.as_ptr().expose_provenance() as u64 + 4096 * page
    }

    fn register(&self, registry: &Registry, page: u64, announced: bool) -> RegionId {
        let (range, access) = ((self.start(page), 4096), Access::FULL);
        registry.register(range, MemoryKind::Host, access, announced, None, None).unwrap()
    }
}

fn first() -> Registry {
    Registry::new(Arc::new(nic("first"))).with_further_nics()
}

fn follow(first: &Registry, device: Arc<Nic>) -> Arc<Registry> {
    let other = Arc::new(Registry::new(device));
    first.add_further_nic(Arc::clone(&other), |_| true).unwrap();
    other
}

fn of(registry: &Registry, id: RegionId) -> Option<Arc<Region>> {
    registry.snapshot().by_id(id).cloned()
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "not within {LIMIT:?}");
        thread::yield_now();
    }
}

/// What a registry announces, but for keys.
fn announced(registry: &Registry) -> Vec<(u64, u64, bool, bool)> {
    let (entries, _) = registry.announced().table();
    let mut seen: Vec<_> =
        entries.iter().map(|entry| (entry.base, entry.size, entry.read_only, entry.gpu_flush)).collect();
    seen.sort_unstable();
    seen
}

fn keys(registry: &Registry) -> BTreeSet<u32> {
    registry.announced().table().0.iter().map(|entry| entry.rkey).collect()
}

#[test]
fn two_further_nics_have_all_regions_with_the_same_ids_and_keys_of_their_own() {
    let (first, memory) = (first(), Memory::new());
    let earlier: Vec<_> = (0..5).map(|page| memory.register(&first, page, page != 2)).collect();
    let nics = [Arc::new(nic("second")), Arc::new(nic("third"))];
    let others = nics.each_ref().map(|nic| follow(&first, Arc::clone(nic)));
    let later: Vec<_> = (5..10).map(|page| memory.register(&first, page, page != 7)).collect();
    let read_only = (memory.start(10), 4096);
    let read_only = first.register(read_only, MemoryKind::Host, Access::READ_ONLY, true, None, None).unwrap();
    let all: Vec<_> = earlier.into_iter().chain(later).chain([read_only]).collect();
    for other in &others {
        until(|| all.iter().all(|id| of(other, *id).is_some()));
        for id in &all {
            let (ours, theirs) = (of(&first, *id).unwrap(), of(other, *id).unwrap());
            assert_eq!((ours.address, ours.length, ours.kind), (theirs.address, theirs.length, theirs.kind));
            assert_eq!((ours.access, ours.readable), (theirs.access, theirs.readable));
            assert_eq!((ours.anonymous, ours.announced), (theirs.anonymous, theirs.announced));
            assert_ne!(ours.rkey(), theirs.rkey());
            assert_eq!(other.snapshot().by_address(ours.address, 4096).unwrap().id, *id);
        }
        assert_eq!(announced(other).len(), 9);
        assert_eq!(announced(other), announced(&first));
        assert!(keys(other).is_disjoint(&keys(&first)));
    }
    assert_eq!(of(&first, all[0]).unwrap().on_further_nics().len(), 2);
    // What leaves the first one leaves all; the last of several owners counts.
    assert_eq!(memory.register(&first, 0, true), all[0]);
    assert!(first.remove(all[0]).unwrap().is_none() && of(&others[1], all[0]).is_some());
    let region = first.remove(all[0]).unwrap().unwrap();
    let further = region.on_further_nics();
    assert!(further.len() == 2 && further.iter().all(|region| region.hold().is_none()));
    for other in &others {
        assert!(of(other, all[0]).is_none() && of(other, all[1]).is_some());
        assert_eq!(announced(other), announced(&first));
    }
    first.remove_all();
    assert!(others.iter().all(|other| other.snapshot().regions().is_empty()));
    let late = first.add_further_nic(Arc::new(Registry::new(Arc::new(nic("late")))), |_| true);
    assert!(matches!(late, Err(FurtherNicError::Closed)));
}

/// Neither a registration nor a deregistration waits for a device that is busy with an earlier region. What it has in hand for a
/// region that was taken out is ended before the region counts as unused.
#[test]
fn what_is_being_registered_for_a_region_that_was_taken_out_is_not_kept() {
    let (first, memory, device) = (first(), Memory::new(), with_gate("slow"));
    let other = follow(&first, Arc::clone(&device));
    let gate = device.gate.as_ref().unwrap();
    let id = memory.register(&first, 0, true);
    gate.begun.wait();
    let (second, third) = (memory.register(&first, 1, true), memory.register(&first, 2, true));
    let removed = first.remove(id).unwrap().unwrap();
    drop(first.remove(second).unwrap().unwrap());
    assert!(removed.in_use() && removed.user().contains("registering"));
    assert!(removed.on_further_nics().is_empty() && first.is_registering_further());
    gate.may_go.wait();
    until(|| !removed.in_use());
    assert!(device.live.lock().unwrap().is_empty() && of(&other, id).is_none());
    // The next one that it is told of is the third: the second was gone before its turn.
    gate.begun.wait();
    gate.may_go.wait();
    until(|| of(&other, third).is_some());
    assert_eq!(*device.live.lock().unwrap(), [memory.start(2)].into());
    until(|| !first.is_registering_further());
    assert_eq!(announced(&other), announced(&first));
}

#[test]
fn a_nic_that_refuses_a_region_has_the_others() {
    let (first, memory) = (first(), Memory::new());
    let refusing = follow(&first, Arc::new(Nic { refuses: Some(memory.start(1)), ..nic("refusing") }));
    let second = follow(&first, Arc::new(nic("second")));
    let ids = [0, 1, 2].map(|page| memory.register(&first, page, true));
    until(|| of(&refusing, ids[2]).is_some() && of(&second, ids[2]).is_some());
    assert!(of(&refusing, ids[0]).is_some() && of(&refusing, ids[1]).is_none());
    assert_eq!((announced(&refusing).len(), announced(&second).len()), (2, 3));
    let region = first.remove(ids[1]).unwrap().unwrap();
    assert!(!region.in_use() && region.on_further_nics().len() == 1);
}

#[test]
fn a_nic_is_asked_which_regions_it_takes() {
    let (first, memory) = (first(), Memory::new());
    let (device, skipped) = (Arc::new(nic("choosy")), memory.start(0));
    let other = Arc::new(Registry::new(Arc::clone(&device) as _));
    first.add_further_nic(Arc::clone(&other), move |region| region.address != skipped).unwrap();
    let ids = [0, 1].map(|page| memory.register(&first, page, true));
    until(|| of(&other, ids[1]).is_some());
    assert!(of(&other, ids[0]).is_none() && device.live.lock().unwrap().len() == 1);
}

#[test]
fn a_transfer_over_a_further_nic_keeps_the_region() {
    let (first, memory) = (first(), Memory::new());
    let other = follow(&first, Arc::new(nic("second")));
    let id = memory.register(&first, 0, true);
    until(|| of(&other, id).is_some());
    let hold = of(&other, id).unwrap().hold().unwrap();
    let region = first.remove(id).unwrap().unwrap();
    assert!(region.in_use() && region.user().contains("transfer"));
    drop(hold);
    assert!(!region.in_use());
}

/// Of NICs that give the same keys: the process knows the regions of the first one alone, and counts no other.
#[test]
fn further_nics_are_not_among_the_regions_of_the_process() {
    let (device, memory) = (Arc::new(nic("first")), Memory::new());
    device.key.store(0x7357, Ordering::Relaxed);
    let first = Registry::new(device).with_further_nics();
    let (same, different) = (nic("same"), nic("different"));
    same.key.store(0x7357, Ordering::Relaxed);
    let others = [same, different].map(|nic| follow(&first, Arc::new(nic)));
    let id = memory.register(&first, 0, true);
    until(|| others.iter().all(|other| of(other, id).is_some()));
    let is_known = |key| region_in_process(key, memory.start(0), 4096).is_some();
    let other_key = of(&others[1], id).unwrap().rkey();
    assert!(is_known(0x7357) && !is_known(other_key));
    // The further ones go, and what they have dropped is not the first one's.
    others.iter().for_each(|other| other.take_out_as_first(id));
    assert!(is_known(0x7357));
    drop(first.remove(id).unwrap());
    assert!(!is_known(0x7357));
}

#[test]
fn a_dma_buf_may_be_closed_after_the_call_and_a_range_is_cut_as_each_nic_needs_it() {
    let (first_nic, memory) = (Arc::new(nic("first")), Memory::new());
    let first = Registry::new(Arc::clone(&first_nic) as _).with_further_nics();
    let file = tempfile::tempfile().unwrap();
    let dma_buf = Some(DmaBuf { fd: file.as_raw_fd(), offset: 0 });
    let inode = rustix::fs::fstat(&file).unwrap().st_ino;
    let range = (memory.start(0), 64 * 4096);
    let id = first.register(range, MemoryKind::Host, Access::FULL, true, dma_buf, None).unwrap();
    drop(file);
    let limited = nic("limited");
    let attributes = DeviceAttributes { max_region: 16 * 4096, ..limited.attributes.clone() };
    let limited = Arc::new(Nic { attributes, ..limited });
    let other = follow(&first, Arc::clone(&limited));
    until(|| of(&other, id).is_some());
    let (whole, cut) = (of(&first, id).unwrap(), of(&other, id).unwrap());
    // Where pages begin decides between four and five.
    assert!(whole.segment_count() == 1 && cut.segment_count() >= 4);
    assert_eq!(announced(&other).len(), cut.segment_count());
    assert_eq!(*first_nic.dma_bufs.lock().unwrap(), [inode]);
    assert_eq!(*limited.dma_bufs.lock().unwrap(), vec![inode; cut.segment_count()]);
}

/// An allocation is unmapped with its first NIC's registration: those of further NICs are not counted.
#[test]
fn a_further_nic_is_no_use_of_an_allocation() {
    let (first, allocation) = (first(), Allocation::shared(4096, false, false).unwrap());
    let device = Arc::new(nic("second"));
    let other = follow(&first, Arc::clone(&device));
    let range = (allocation.address(), 4096);
    let id = first.register(range, MemoryKind::Host, Access::FULL, true, None, None).unwrap();
    until(|| of(&other, id).is_some());
    assert_eq!(device.own_files.load(Ordering::Relaxed), 1, "peers can map it there too");
    assert!(allocation.close_unless_used(1).is_ok());
    allocation.reopen();
    let region = first.remove(id).unwrap().unwrap();
    let further = region.on_further_nics().remove(0);
    allocation.release();
    drop(further);
    assert!(is_allocated(range.0, 4096), "until the first one says that it has ended");
    region.end_allocation_use(true);
    assert!(!is_allocated(range.0, 4096));
}

#[test]
fn a_registry_of_the_only_nic_keeps_nothing_for_others() {
    let (first, memory) = (Registry::new(Arc::new(nic("first"))), Memory::new());
    let id = memory.register(&first, 0, true);
    assert!(!of(&first, id).unwrap().has_recipe());
    let refused = first.register((memory.start(0), 1), MemoryKind::Host, Access::FULL, true, None, None);
    assert!(matches!(refused, Err(RegistryError::OtherLength { .. })));
}

/// Threads that register and deregister, while NICs are being opened, leave nothing registered on any of them.
#[test]
fn what_comes_and_goes_meanwhile_leaves_nothing_behind() {
    let (first, memory) = (first(), Memory::new());
    let nics = [0, 1, 2].map(|_| Arc::new(nic("further")));
    let kept = thread::scope(|scope| {
        let work = |thread: u64| {
            let (first, memory) = (&first, &memory);
            move || {
                for round in 0..100 {
                    let id = memory.register(first, thread * 8 + round % 8, true);
                    let region = first.remove(id).unwrap().unwrap();
                    until(|| !region.in_use());
                    let now = Instant::now();
                    let all = region.on_further_nics().into_iter().chain([region]);
                    all.for_each(|region| region.segments().for_each(|segment| segment.revoke(now).unwrap()));
                }
                memory.register(first, thread * 8, true)
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(work(thread))).collect();
        nics.iter().for_each(|nic| drop(follow(&first, Arc::clone(nic))));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let starts: BTreeSet<_> = (0..4).map(|thread| memory.start(thread * 8)).collect();
    for nic in &nics {
        until(|| *nic.live.lock().unwrap() == starts);
    }
    let region = of(&first, kept[0]).unwrap();
    until(|| region.on_further_nics().len() == 3);
}

/// A device that has no room now may have some later, or after others have given theirs back.
#[test]
fn what_is_refused_for_a_passing_reason_is_registered_later() {
    let memory = Memory::new();
    for errno in [libc::ENOMEM, libc::EAGAIN] {
        let (first, refusing) = (first(), Nic { refuses: Some(memory.start(1)), ..nic("second") });
        refusing.errno.store(errno as u32, Ordering::Relaxed);
        let refusing = Arc::new(refusing);
        let second = follow(&first, Arc::clone(&refusing));
        let ids = [0, 1, 2].map(|page| memory.register(&first, page, true));
        // The others do not wait for it.
        until(|| of(&second, ids[2]).is_some());
        until(|| refusing.refused.load(Ordering::Relaxed) >= 2);
        until(|| !first.is_registering_further());
        assert!(of(&second, ids[1]).is_none());
        refusing.errno.store(0, Ordering::Relaxed);
        until(|| of(&second, ids[1]).is_some());
    }
}

#[test]
fn what_is_refused_for_good_is_not_tried_again() {
    let memory = Memory::new();
    let (first, refusing) = (first(), Arc::new(Nic { refuses: Some(memory.start(0)), ..nic("second") }));
    let second = follow(&first, Arc::clone(&refusing));
    let ids = [0, 1].map(|page| memory.register(&first, page, true));
    until(|| of(&second, ids[1]).is_some());
    thread::sleep(3 * FIRST_PAUSE);
    assert_eq!(refusing.refused.load(Ordering::Relaxed), 1);
}

/// One command for each pause, whatever the number of regions, and none for those that are gone.
#[test]
fn a_device_without_room_is_asked_more_and_more_seldom() {
    let (memory, first) = (Memory::new(), first());
    let ids: Vec<_> = (0..8).map(|page| memory.register(&first, page, true)).collect();
    let regions: Vec<_> = ids.iter().map(|id| of(&first, *id).unwrap()).collect();
    let (mut queue, begin) = (Queue::default(), Instant::now());
    regions.iter().for_each(|region| push(&mut queue.waiting, region));
    let (mut now, mut asked) = (begin, Vec::new());
    while now < begin + 40 * LONGEST_PAUSE {
        match queue.next(now) {
            Ok(next) => {
                asked.push((next.region.id, next.is_again, now - begin));
                queue.put_off(&next, now);
            }
            Err(at) => now = at.unwrap(),
        }
    }
    let again: Vec<_> = asked.iter().filter(|(_, is_again, _)| *is_again).collect();
    assert_eq!((asked.len() - again.len(), again[0].2, again[1].2), (8, FIRST_PAUSE, 3 * FIRST_PAUSE));
    assert!((40..52).contains(&again.len()), "{}", again.len());
    assert_eq!(again[8].0, again[0].0, "each has its turn");
    // There is room: all of them at once.
    let mut taken = 0;
    now += LONGEST_PAUSE;
    while let Ok(next) = queue.next(now) {
        taken += usize::from(next.is_again);
    }
    assert_eq!((taken, queue.next(now).err()), (8, Some(None)));
    assert_eq!(queue.pause, Duration::ZERO);
}
