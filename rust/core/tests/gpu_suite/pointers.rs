//! What the driver says of an address, and what the engine makes of it.

use std::sync::Arc;

use flagcx_p2p::internals::engine::RegisterOptions;
use flagcx_p2p::internals::gpu::{self, PointerKind};
use flagcx_p2p::internals::memory::MemoryKind;

use super::cuda::cuda;
use super::group::Group;
use super::memory::{Kind, Memory, Registered, in_context, keeps};
use crate::support;

const LENGTH: usize = 1 << 20;

pub fn run(group: &mut Group) {
    group.check("the engine finds the driver that the process has loaded", || {
        assert_eq!(gpu::runtime().name(), "host", "nothing is loaded yet");
        let described = cuda().describe();
        assert_eq!(gpu::runtime().name(), "cuda");
        format!("{described}, {} devices", cuda().devices())
    });
    for kind in Kind::ALL {
        group.check(&format!("{} memory is known for what it is", kind.name()), || expect_kind(kind));
    }
    for kind in Kind::ALL {
        group.check(&format!("{} memory can be registered", kind.name()), || expect_region(kind));
    }
    group.check("a freed GPU pointer is no GPU memory", || {
        let address = freed();
        assert_eq!(gpu::runtime().pointer_kind(address), Ok(PointerKind::Host));
        mapping_of(address)
    });
    group.check("registering a freed GPU pointer is refused", || {
        let (engine, address) = (support::engine(&[]), freed());
        // SAFETY: nothing is there, which is what is to be found.
        let refused = keeps("register", || unsafe {
            engine.register(address, LENGTH as u64, RegisterOptions::default())
        });
        refused.expect_err("refused").to_string()
    });
    group.check("GPU memory is freed while it is registered: the region ends all the same", || {
        let engine = support::engine(&[]);
        let address = in_context(|| cuda().allocate(LENGTH));
        // SAFETY: nothing uses it; that it ends before its registration is what is tried.
        let region = unsafe { engine.register(address, LENGTH as u64, RegisterOptions::default()) }.unwrap();
        in_context(|| cuda().free(address));
        assert!(keeps("deregister", || engine.deregister(region)));
        String::new()
    });
}

/// In its middle and at its last byte too, and on a thread that has no context.
fn expect_kind(kind: Kind) -> String {
    let memory = Memory::new(kind, LENGTH);
    let expected = if kind == Kind::Gpu { PointerKind::Gpu(Some(0)) } else { PointerKind::Host };
    let places = [0, LENGTH as u64 / 2 + 1, LENGTH as u64 - 1];
    let ask = || places.map(|at| gpu::runtime().pointer_kind(memory.address + at).unwrap());
    assert_eq!(ask(), [expected; 3]);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| keeps("pointer_kind", ask)).join().unwrap();
        assert_eq!(asked, [expected; 3], "without a context");
    });
    mapping_of(memory.address)
}

fn expect_region(kind: Kind) -> String {
    let engine = support::engine(&[]);
    let registered = Registered::new(&engine, kind, LENGTH);
    let region = engine.find_region(registered.memory.address + 5, 1).unwrap();
    let expected = if kind == Kind::Gpu { MemoryKind::Gpu } else { MemoryKind::Host };
    assert_eq!(region.kind, expected);
    let ipc = keeps("ipc_info", || engine.ipc_info(registered.memory.address + 5).unwrap());
    assert_eq!(ipc.is_some(), kind == Kind::Gpu, "{ipc:?}");
    if let Some(ipc) = ipc {
        assert_eq!((ipc.base + ipc.offset, ipc.size), (registered.memory.address + 5, LENGTH as u64 - 5));
    }
    drop(Arc::clone(&engine));
    format!("readable by the CPU: {}", region.readable)
}

/// An address that was GPU memory.
pub fn freed() -> u64 {
    in_context(|| {
        let address = cuda().allocate(LENGTH);
        cuda().free(address);
        address
    })
}

/// What the kernel says of an address.
fn mapping_of(address: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap();
        let [from, to] = [range.0, range.1].map(|text| u64::from_str_radix(text, 16).unwrap());
        (from..to).contains(&address)
    };
    let line = maps.lines().find(holds).unwrap_or("not mapped");
    format!("{address:#x}: {}", line.split_whitespace().collect::<Vec<_>>().join(" "))
}
