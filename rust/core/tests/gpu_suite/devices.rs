//! Several devices, and primary contexts that come late or go: each call works on the device that has the memory.
//!
//! A process of its own: at first no context is made.

use flagcx_p2p::internals::engine::RegisterOptions;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::gpu::{self, PointerKind};
use flagcx_p2p::internals::transfer::Outcome;

use super::calls::{Call, Engines};
use super::cuda::cuda;
use super::group::Group;
use super::memory::{Kind, Memory, Registered, keeps};
use crate::support::pattern;

const LENGTH: usize = (1 << 20) + 13;

pub fn run(group: &mut Group) {
    group.check("engines that were opened before the driver was loaded", expect_late_driver);
    if cuda().devices() > 1 {
        group.check("memory of one device makes no context of another", expect_no_other);
        group.check("memory of each device, from threads with each context", expect_each);
        group.check("pieces of both devices and of the host in one transfer", expect_mixed);
    } else {
        group.note("not run: memory of several devices; there is one device");
    }
    group.check("a primary context that the program resets", expect_reset);
    group.check("a range that goes on behind its allocation", expect_range);
}

/// The thread has no context, nor has the process one; registering host memory makes none.
fn expect_late_driver() -> String {
    let engines = Engines::without_driver();
    assert_eq!(gpu::runtime().name(), "host", "nothing is loaded yet");
    let last = cuda().devices() - 1;
    drop(Registered::new(&engines.client, Kind::Host, LENGTH));
    assert!((0..=last).all(|device| !cuda().has_primary(device)), "nothing needs a context");
    let memory = Memory::of(last, Kind::Gpu, LENGTH);
    assert_eq!(gpu::runtime().pointer_kind(memory.address), Ok(PointerKind::Gpu(Some(last))));
    expect_copy(&engines, &Registered::of(&engines.client, memory), &host(&engines));
    String::new()
}

/// Engines are opened for device 0. Run before anything of device 0 is used.
fn expect_no_other() -> String {
    let engines = Engines::new();
    for context in [std::ptr::null_mut(), cuda().primary(1)] {
        cuda().set_context(context);
        let gpu = Registered::of(&engines.client, Memory::of(1, Kind::Gpu, LENGTH));
        expect_copy(&engines, &gpu, &host(&engines));
        assert!(keeps("ipc_info", || engines.client.ipc_info(gpu.memory.address)).unwrap().is_some());
    }
    cuda().set_context(std::ptr::null_mut());
    assert!(!cuda().has_primary(0), "a context of device 0, of which there is no memory");
    String::new()
}

fn expect_each() -> String {
    let own = cuda().create_context(0);
    for context in [std::ptr::null_mut(), cuda().primary(0), cuda().primary(1), own] {
        cuda().set_context(context);
        let engines = Engines::new();
        for (here, there) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let from = Registered::of(&engines.client, Memory::of(here, Kind::Gpu, LENGTH));
            let to = Registered::of(&engines.server, Memory::of(there, Kind::Gpu, LENGTH));
            expect_copy(&engines, &from, &to);
            let info = keeps("ipc_info", || engines.server.ipc_info(to.memory.address + 5)).unwrap();
            assert_eq!(info.map(|info| info.base + info.offset), Some(to.memory.address + 5));
        }
        keeps("close", || engines.here.close());
        assert_eq!(cuda().context(), context);
    }
    cuda().set_context(std::ptr::null_mut());
    cuda().destroy_context(own);
    String::new()
}

fn expect_mixed() -> String {
    let engines = Engines::new();
    let memory = || {
        [Memory::of(0, Kind::Gpu, LENGTH), Memory::of(1, Kind::Gpu, LENGTH), Memory::new(Kind::Host, LENGTH)]
    };
    let from = memory().map(|memory| Registered::of(&engines.client, memory));
    let to = memory().map(|memory| Registered::of(&engines.server, memory));
    for (seed, from) in (1..).zip(&from) {
        from.memory.write(&pattern(seed, LENGTH));
    }
    let pairs: Vec<_> = from.iter().zip(to.iter().rev()).collect();
    let iovs: Vec<_> =
        pairs.iter().map(|(from, to)| engines.iov((from, 0), (to, 0), LENGTH as u64)).collect();
    assert_eq!(Call::Submit.carry(&engines.here, Opcode::Write, &iovs), Ok(Outcome::Done));
    assert!(pairs.iter().all(|(from, to)| to.memory.read() == from.memory.read()));
    String::new()
}

/// With it go its memory and its streams. A later transfer on the same connection has new ones.
fn expect_reset() -> String {
    let engines = Engines::new();
    for _ in 0..2 {
        let (gpu, there) = (Registered::new(&engines.client, Kind::Gpu, LENGTH), host(&engines));
        expect_copy(&engines, &gpu, &there);
        drop((gpu, there));
        cuda().reset_primary(0);
    }
    String::new()
}

fn expect_range() -> String {
    let engines = Engines::new();
    let memory = Memory::new(Kind::Gpu, 4 << 20);
    let register = |length: u64| {
        // SAFETY: what is no memory is refused, and the memory outlives its region.
        let made = unsafe { engines.client.register(memory.address, length, RegisterOptions::default()) };
        made.map(|region| engines.client.deregister(region)).map_err(|error| error.to_string())
    };
    assert_eq!(keeps("register", || register(4 << 20)), Ok(true));
    let refused = keeps("register", || register(1 << 44)).unwrap_err();
    assert!(refused.contains("are not one range of GPU memory"), "{refused}");
    refused
}

fn host(engines: &Engines) -> Registered {
    Registered::new(&engines.server, Kind::Host, LENGTH)
}

/// There and back, from this thread and from one without a context.
fn expect_copy(engines: &Engines, here: &Registered, there: &Registered) {
    let sent = pattern(here.memory.address >> 12 ^ 1, LENGTH);
    here.memory.write(&sent);
    let iov = [engines.iov((here, 0), (there, 0), LENGTH as u64)];
    assert_eq!(Call::Submit.carry(&engines.here, Opcode::Write, &iov), Ok(Outcome::Done));
    assert!(there.memory.read() == sent);
    here.memory.write(&vec![0; LENGTH]);
    std::thread::scope(|scope| {
        let read = || Call::SubmitAndWait.carry(&engines.here, Opcode::Read, &iov);
        assert_eq!(scope.spawn(read).join().unwrap(), Ok(Outcome::Done));
    });
    assert!(here.memory.read() == sent);
}
