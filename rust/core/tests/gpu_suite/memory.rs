//! Memory of each kind, and contexts that are the same before and after.

use std::sync::Arc;

use flagcx_p2p::internals::engine::{Engine, RegisterOptions};
use flagcx_p2p::internals::memory::RegionId;

use super::cuda::{Context, cuda};

/// Where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The C library's.
    Host,
    /// `cuMemAllocHost`.
    Pinned,
    /// `cuMemAllocManaged`: the CPU reaches it, and the GPU.
    Managed,
    /// `cuMemAlloc`.
    Gpu,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Host, Self::Pinned, Self::Managed, Self::Gpu];

    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Pinned => "pinned",
            Self::Managed => "managed",
            Self::Gpu => "GPU",
        }
    }
}

/// Memory of one kind. Given back when dropped.
#[derive(Debug)]
pub struct Memory {
    kind: Kind,
    device: i32,
    pub address: u64,
    pub length: usize,
    /// Of kind `Host`.
    _heap: Vec<u8>,
}

impl Memory {
    /// Of device 0.
    pub fn new(kind: Kind, length: usize) -> Self {
        Self::of(0, kind, length)
    }

    pub fn of(device: i32, kind: Kind, length: usize) -> Self {
        if kind == Kind::Host {
            let mut heap = vec![0_u8; length];
            let address = heap.as_mut_ptr().expose_provenance() as u64;
            return Self { kind, device, address, length, _heap: heap };
        }
        let address = in_context_of(device, || match kind {
            Kind::Host => 0,
            Kind::Pinned => cuda().allocate_pinned(length),
            Kind::Managed => cuda().allocate_managed(length),
            Kind::Gpu => cuda().allocate(length),
        });
        Self { kind, device, address, length, _heap: Vec::new() }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.length);
        // SAFETY: both ranges are valid, as checked.
        unsafe { self.copy(self.address, bytes.as_ptr() as u64, bytes.len()) };
    }

    pub fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0_u8; self.length];
        // SAFETY: both ranges are valid.
        unsafe { self.copy(bytes.as_mut_ptr() as u64, self.address, bytes.len()) };
        bytes
    }

    /// Memory of the host needs no context, and none is made for it.
    ///
    /// # Safety
    /// Both ranges are valid.
    unsafe fn copy(&self, to: u64, from: u64, length: usize) {
        if self.kind == Kind::Host {
            // SAFETY: the caller's promise; both are memory of the host.
            return unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, length) };
        }
        // SAFETY: the caller's promise.
        in_context_of(self.device, || unsafe { cuda().copy(to, from, length) });
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.kind == Kind::Host {
            return;
        }
        in_context_of(self.device, || match self.kind {
            Kind::Host => {}
            Kind::Pinned => cuda().free_pinned(self.address),
            Kind::Managed | Kind::Gpu => cuda().free(self.address),
        });
    }
}

/// Memory that an engine has registered. Ended in this order when dropped.
#[derive(Debug)]
pub struct Registered {
    engine: Arc<Engine>,
    pub region: RegionId,
    pub memory: Memory,
}

impl Registered {
    pub fn new(engine: &Arc<Engine>, kind: Kind, length: usize) -> Self {
        Self::of(engine, Memory::new(kind, length))
    }

    pub fn of(engine: &Arc<Engine>, memory: Memory) -> Self {
        let region = keeps("register", || {
            // SAFETY: the memory lives until it is deregistered in `drop`.
            unsafe { engine.register(memory.address, memory.length as u64, RegisterOptions::default()) }
        });
        let region = region.unwrap_or_else(|error| panic!("{} memory: {error}", memory.kind().name()));
        Self { engine: Arc::clone(engine), region, memory }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        keeps("deregister", || self.engine.deregister(self.region));
    }
}

/// Runs `act` with the context of device 0 current, then the one before.
pub fn in_context<T>(act: impl FnOnce() -> T) -> T {
    in_context_of(0, act)
}

/// The same with that of another device.
pub fn in_context_of<T>(device: i32, act: impl FnOnce() -> T) -> T {
    let before = cuda().context();
    cuda().set_context(cuda().primary(device));
    let made = act();
    cuda().set_context(before);
    made
}

/// Runs a call of the engine, and panics if the thread's context is another one afterwards.
#[track_caller]
pub fn keeps<T>(call: &str, act: impl FnOnce() -> T) -> T {
    let before: Context = cuda().context();
    let answer = act();
    assert_eq!(cuda().context(), before, "{call} has changed the caller's context");
    answer
}

/// The process ends: nothing is current any more.
pub fn forget_contexts() {
    cuda().set_context(std::ptr::null_mut());
}
