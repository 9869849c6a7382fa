//! Memory that is not all of the ordinary kind: what registers, as what, and what transfers of it do on each path.
#![allow(unsafe_code, reason = "maps memory and registers it by address")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

#[cfg(feature = "verbs")]
mod nullverbs;
mod pages;
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::engine::{AllocateOptions, Engine, EngineError, EngineOptions, RegisterOptions};
use flagcx_p2p::internals::fabric::{Access, CompletionStatus, DeviceList, Opcode, SharedFile};
use flagcx_p2p::internals::memory::{InaccessibleReason, MemoryKind, RegionId, RegistryError};
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, SubmitError};
use pages::{Pages, Rights, page_bytes};
use support::{Pair, eventually, outcome, pattern};

fn region_length() -> u64 {
    4 * page_bytes()
}

/// One way for the bytes, and the stand-in NIC that it needs, if it does.
struct Way {
    name: &'static str,
    devices: Option<Arc<DeviceList>>,
    #[cfg(feature = "verbs")]
    _standin: Option<nullverbs::Standin>,
}

impl Way {
    fn pair(&self) -> Pair {
        let path: &[(&str, &str)] = match self.name {
            "verbs" => &[],
            path => &[("FLAGCX_P2P_PATH", path)],
        };
        let path = [&[("FLAGCX_P2P_BIND", "127.0.0.1")], path].concat();
        let Some(devices) = &self.devices else { return Pair::with(region_length() as usize, &path) };
        let config = support::config(&path);
        let engine = || {
            let options = EngineOptions { gpu_index: 0, devices: Some(Arc::clone(devices)) };
            Engine::open(Arc::clone(&config), options).unwrap()
        };
        Pair::between(engine(), engine(), region_length() as usize)
    }
}

fn ways() -> Vec<Way> {
    let software = |name| Way {
        name,
        devices: None,
        #[cfg(feature = "verbs")]
        _standin: None,
    };
    let mut ways: Vec<_> = ["in-process", "cross-memory", "tcp"].map(software).into();
    #[cfg(feature = "verbs")]
    {
        let standin = nullverbs::Standin::new(&[]);
        let devices = flagcx_p2p::internals::fabric::verbs::open(&standin.options()).unwrap();
        ways.push(Way {
            name: "verbs",
            devices: Some(Arc::new(DeviceList::of(devices))),
            _standin: Some(standin),
        });
    }
    ways
}

/// Memory that registers for reading only: by its mapping, or by the flag.
fn read_only_kinds() -> Vec<(&'static str, Pages, Access)> {
    let content = pattern(5, region_length() as usize);
    let protected = |pages: Pages| {
        pages.fill(&content);
        pages.protect(0, region_length(), Rights::READ);
        pages
    };
    let page_within = Pages::anonymous(region_length(), Rights::WRITE);
    page_within.fill(&content);
    page_within.protect(2 * page_bytes(), page_bytes(), Rights::READ);
    let flagged = Pages::anonymous(region_length(), Rights::WRITE);
    flagged.fill(&content);
    vec![
        ("anonymous", protected(Pages::anonymous(region_length(), Rights::WRITE)), Access::FULL),
        ("one page", page_within, Access::FULL),
        ("shared", protected(Pages::memfd(region_length(), region_length(), Rights::WRITE)), Access::FULL),
        ("file", Pages::file(&content, Rights::READ), Access::FULL),
        ("flag", flagged, Access::READ_ONLY),
    ]
}

fn register(
    engine: &Engine,
    (address, length): (u64, u64),
    kind: MemoryKind,
    access: Access,
    announced: bool,
) -> Result<RegionId, EngineError> {
    let options = RegisterOptions { kind, access, announced, dma_buf: None, file: None };
    // SAFETY: the tests keep what they register mapped until its engine is dropped, and look at it past the
    // compiler's back.
    unsafe { engine.register(address, length, options) }
}

fn submit(pair: &Pair, opcode: Opcode, iov: Iov) -> Result<Outcome, SubmitError> {
    pair.here.submit(opcode, &[iov][..]).map(|id| outcome(&pair.here, id))
}

/// As the peer's memory: READ gives its bytes; a WRITE is refused at once where the peer is known to have it for reading only, else
/// fails as remote access, and changes nothing.
#[test]
fn peers_read_what_is_for_reading_only_and_do_not_write_it() {
    for way in ways() {
        for ((name, memory, access), kind) in
            read_only_kinds().into_iter().zip([MemoryKind::Probe, MemoryKind::Host].into_iter().cycle())
        {
            let case = format!("{name}, {}", way.name);
            let pair = way.pair();
            let region = register(&pair.server, memory.range(), kind, access, true).unwrap();
            let remote = pair.here.describe_remote(memory.address(), region_length() as u32).unwrap();
            let whole = Iov { local: pair.source.address(), length: region_length(), region: None, remote };
            // Twice: the second finds what the first has left on the lane.
            for _ in 0..2 {
                assert!(pair.source.write(0, &vec![0xee; region_length() as usize]));
                assert_eq!(submit(&pair, Opcode::Read, whole).unwrap(), Outcome::Done, "{case}");
                assert_eq!(support::content(&pair.source), memory.bytes(), "{case}");
                let refused = submit(&pair, Opcode::Write, whole).unwrap_err();
                assert!(matches!(refused, SubmitError::Remote { iov: 0, .. }), "{case}: {refused}");
                assert!(refused.to_string().contains("for reading only"), "{case}: {refused}");
            }
            let before = memory.bytes();
            // For a region that is not announced, the peer learns it from the fabric.
            assert!(pair.server.deregister(region), "{case}");
            let region = register(&pair.server, memory.range(), kind, access, false).unwrap();
            let remote = pair.server.describe(region, memory.address() + 2 * page_bytes(), 64).unwrap();
            eventually("the peer has the removal of the announced one", || {
                pair.here.describe_remote(memory.address(), 64).is_none()
            });
            let small = Iov { local: pair.source.address(), length: 64, region: None, remote };
            assert!(pair.source.write(0, &[0xaa; 64]));
            match submit(&pair, Opcode::Write, small).unwrap() {
                Outcome::Failed(failure) => {
                    assert_eq!(failure.status, CompletionStatus::RemoteAccess, "{case}: {failure:?}");
                }
                other => panic!("{case}: {other:?}"),
            }
            assert_eq!(memory.bytes(), before, "{case}");
            assert_eq!(submit(&pair, Opcode::Read, small).unwrap(), Outcome::Done, "{case}");
            let at = 2 * page_bytes() as usize;
            assert_eq!(support::content(&pair.source)[..64], before[at..at + 64], "{case}");
        }
    }
}

/// As our own memory: a WRITE takes its bytes from it; a READ into it is refused before anything is posted.
#[test]
fn what_is_for_reading_only_is_sent_and_not_received_into() {
    for way in ways() {
        let pair = way.pair();
        for (name, memory, access) in read_only_kinds() {
            let case = format!("{name}, {}", way.name);
            let region = register(&pair.client, memory.range(), MemoryKind::Probe, access, true).unwrap();
            let before = memory.bytes();
            for (named, length) in
                [(None, region_length()), (Some(region), region_length()), (None, 48), (Some(region), 48)]
            {
                assert!(pair.target.write(0, &vec![0; region_length() as usize]));
                let remote: RemoteRange =
                    pair.here.describe_remote(pair.target.address(), length as u32).unwrap();
                let iov = Iov { local: memory.address(), length, region: named, remote };
                for _ in 0..2 {
                    assert_eq!(submit(&pair, Opcode::Write, iov).unwrap(), Outcome::Done, "{case}");
                    let refused = submit(&pair, Opcode::Read, iov).unwrap_err();
                    assert!(matches!(refused, SubmitError::Local { iov: 0, .. }), "{case}: {refused}");
                    assert!(refused.to_string().contains("for reading only"), "{case}: {refused}");
                    // A vector is refused whole.
                    let good = Iov { local: pair.source.address(), region: None, ..iov };
                    let refused = pair.here.submit(Opcode::Read, &[good, iov][..]).unwrap_err();
                    assert!(matches!(refused, SubmitError::Local { iov: 1, .. }), "{case}: {refused}");
                }
                assert_eq!(
                    support::content(&pair.target)[..length as usize],
                    before[..length as usize],
                    "{case}"
                );
            }
            assert_eq!(memory.bytes(), before, "{case}");
            assert_eq!(pair.here.info().healthy_lanes, pair.here.info().lanes, "{case}: nothing was posted");
        }
    }
}

/// And registers once it can be accessed.
#[test]
fn inaccessible_memory_is_refused_with_the_offset() {
    for way in ways() {
        let engine = way.pair().server;
        for kind in [MemoryKind::Host, MemoryKind::Probe] {
            // A NIC is asked about what may be memory of a device. The stand-in takes all that is mapped for reading
            // only, as the kernel does.
            let nic_decides = way.name == "verbs" && kind == MemoryKind::Probe;
            let access = if nic_decides { Access::READ_ONLY } else { Access::FULL };
            let check = |name: &str, memory: &Pages, offset: u64, reason: InaccessibleReason| {
                let case = format!("{name}, {kind:?}, {}", way.name);
                let error = register(&engine, memory.range(), kind, access, true).unwrap_err();
                let EngineError::Registry(RegistryError::Inaccessible(found)) = &error else {
                    panic!("{case}: {error}")
                };
                assert_eq!((found.offset, found.reason), (offset, reason), "{case}");
                let text = error.to_string();
                let range = format!("{:#x}+{}", memory.address(), memory.range().1);
                for part in [&range, "EFAULT", &format!("byte {offset} ")] {
                    assert!(text.contains(part), "{case}: {text}");
                }
                assert_eq!(memory.resident(), 0, "{case}: a page was touched");
            };
            let register_for_now = |memory: &Pages| {
                let region = register(&engine, memory.range(), kind, Access::FULL, true).unwrap();
                assert!(engine.deregister(region));
            };
            let none = Pages::anonymous(region_length(), Rights::NONE);
            check("no access", &none, 0, InaccessibleReason::NotReadable);
            none.protect(0, 3 * page_bytes(), Rights::WRITE);
            check("last page", &none, 3 * page_bytes(), InaccessibleReason::NotReadable);
            none.protect(0, region_length(), Rights::WRITE);
            register_for_now(&none);
            // A NIC pins them.
            assert!(way.name == "verbs" || none.resident() == 0, "{}: a page was touched", way.name);

            let file_size = page_bytes() + 1;
            let longer = Pages::memfd(file_size, region_length(), Rights::WRITE);
            check(
                "beyond the end",
                &longer,
                2 * page_bytes(),
                InaccessibleReason::BeyondEndOfFile { file_size },
            );
            longer.set_file_size(region_length() - page_bytes() + 1);
            register_for_now(&longer);

            let hole = Pages::anonymous(region_length(), Rights::WRITE);
            hole.unmap(page_bytes(), page_bytes());
            let error = register(&engine, hole.range(), kind, Access::FULL, true).unwrap_err();
            assert!(error.to_string().contains("byte 4096 on: no memory is mapped"), "{error}");
        }
    }
}

/// A registration looks at its own mappings alone: it takes no longer the more regions there are.
#[test]
fn registering_takes_as_long_with_many_regions_as_with_few() {
    const MANY: u64 = 20_000;
    const BATCH: u64 = 200;
    let engine = support::engine(&[]);
    let memory = Pages::anonymous(64 * (MANY + 16 * BATCH), Rights::WRITE);
    let mut next = 0;
    let mut register_some = |count: u64| {
        let start = Instant::now();
        for _ in 0..count {
            register(&engine, (memory.address() + 64 * next, 64), MemoryKind::Host, Access::FULL, true)
                .unwrap();
            next += 1;
        }
        start.elapsed()
    };
    // The quickest of several: other processes take their time too.
    let quickest = |register_some: &mut dyn FnMut(u64) -> Duration| {
        (0..8).map(|_| register_some(BATCH)).min().unwrap() / BATCH as u32
    };
    let few = quickest(&mut register_some);
    let whole = register_some(support::share(MANY));
    let many = quickest(&mut register_some);
    println!("{few:?} for each of the first, {many:?} for each behind {MANY}, which took {whole:?}");
    assert!(many < few * 4 + Duration::from_micros(20), "{few:?} at first, {many:?} with {MANY} regions");
    assert_eq!(memory.resident(), 0, "a page was touched");
}

/// Allocated memory is unmapped by the last that uses it: the buffer, or a registration of the program inside.
#[test]
fn an_allocation_stays_mapped_under_its_last_registration() {
    let engine = support::engine(&[]);
    let is_mapped = |address| flagcx_p2p::internals::memory::inspect(address, 1).is_ok();
    let buffer = engine.allocate(region_length() as usize).unwrap();
    let (start, inside) = (buffer.address(), buffer.address() + page_bytes());
    // SAFETY: deregistered below; the buffer's memory stays mapped until then.
    let id = unsafe { engine.register(inside, 100, RegisterOptions::default()) }.unwrap();
    drop(buffer);
    assert!(is_mapped(start));
    assert!(engine.find_region(start, 1).is_none() && engine.find_region(inside, 100).is_some());
    assert!(engine.deregister(id));
    assert!(!is_mapped(start));
    // An engine that is closed leaves the memory to its buffer.
    let buffer = engine.allocate(region_length() as usize).unwrap();
    engine.close();
    assert!(buffer.write(0, &pattern(1, region_length() as usize)));
    let start = buffer.address();
    drop(buffer);
    assert!(!is_mapped(start));
}

/// What is allocated is sealed and reserved: an access never fails, and bytes are moved as those of anonymous memory.
#[test]
fn allocated_memory_is_treated_as_memory_that_cannot_vanish() {
    let engine = support::engine(&[]);
    let buffer = engine.allocate(region_length() as usize).unwrap();
    let region = engine.find_region(buffer.address(), 1).unwrap();
    assert!(region.readable && region.anonymous && region.access == Access::FULL);
    let options =
        AllocateOptions { access: Access::READ_ONLY, announced: false, ..AllocateOptions::default() };
    let other = engine.allocate_with(100, options).unwrap();
    let region = engine.find_region(other.address(), 100).unwrap();
    assert!(!region.announced && region.access == Access::READ_ONLY && region.length == 100);
    assert!(matches!(engine.allocate(0).unwrap_err(), EngineError::Allocation(_)));
    let huge =
        engine.allocate_with(1 << 40, AllocateOptions { huge_pages: true, ..AllocateOptions::default() });
    assert!(huge.unwrap_err().to_string().contains("vm.nr_hugepages"));
}

/// A descriptor that is not that of the memory is refused before anything is registered.
#[test]
fn memory_is_registered_by_the_file_that_it_is_mapped_from() {
    let engine = support::engine(&[]);
    let pages = Pages::memfd(region_length(), region_length(), Rights::WRITE);
    let other = rustix::fs::memfd_create("other", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&other, region_length()).unwrap();
    let file = SharedFile { fd: std::os::fd::AsRawFd::as_raw_fd(&other), offset: 0, is_own: false };
    let options = RegisterOptions { file: Some(file), ..RegisterOptions::default() };
    // SAFETY: mapped until the end of the test.
    let refused = unsafe { engine.register(pages.address(), region_length(), options) }.unwrap_err();
    assert!(matches!(refused, EngineError::SharedFile(_)), "{refused}");
    assert!(refused.to_string().contains("another file"), "{refused}");
    assert!(engine.find_region(pages.address(), 1).is_none());
    // The engine's own memory has its own file, whatever is said.
    let buffer = engine.allocate(region_length() as usize).unwrap();
    // SAFETY: as above.
    let id = unsafe { engine.register(buffer.address() + 1, 10, options) }.unwrap();
    assert!(engine.deregister(id));
}
