//! Memory of one end, of any kind.

use std::sync::Arc;

use flagcx_p2p::internals::engine::{Engine, RegisterOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Access, Backing};
use flagcx_p2p::internals::memory::{MemoryKind, RegionId};

#[cfg(feature = "verbs")]
use crate::gpu_memory::GpuMemory;
use crate::mapped::{self, Memory};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `Engine::allocate`.
    Allocated,
    /// The program's own, registered by its address.
    Heap,
    /// A mapping of a file that other processes may change.
    File,
    /// The same, and the engine is told of the file.
    NamedFile,
    /// Memory of the first played GPU.
    #[cfg(feature = "verbs")]
    Gpu,
}

/// The kind of memory at each end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) here: Kind,
    pub(crate) there: Kind,
}

impl Kinds {
    /// Host memory, of one kind at both ends.
    pub(crate) const OF_HOSTS: [Self; 4] = [
        Self::of_both(Kind::Allocated),
        Self::of_both(Kind::Heap),
        Self::of_both(Kind::File),
        Self::of_both(Kind::NamedFile),
    ];
    /// Memory of a GPU at both ends, or at one.
    #[cfg(feature = "verbs")]
    pub(crate) const OF_GPUS: [Self; 3] = [
        Self::of_both(Kind::Gpu),
        Self { here: Kind::Gpu, there: Kind::Heap },
        Self { here: Kind::Allocated, there: Kind::Gpu },
    ];

    const fn of_both(kind: Kind) -> Self {
        Self { here: kind, there: kind }
    }
}

/// Registered until it is dropped.
pub(crate) struct Window {
    memory: Backed,
    engine: Arc<Engine>,
    pub(crate) region: RegionId,
}

enum Backed {
    Allocated(RegisteredBuffer),
    Own(Memory),
    #[cfg(feature = "verbs")]
    Gpu(GpuMemory),
}

impl Window {
    pub(crate) fn new(engine: &Arc<Engine>, kind: Kind, bytes: &[u8]) -> Self {
        Self::with(engine, kind, bytes, Access::FULL, true)
    }

    /// With these rights; memory of the engine's has all of them, and is always announced.
    pub(crate) fn with(
        engine: &Arc<Engine>,
        kind: Kind,
        bytes: &[u8],
        access: Access,
        announced: bool,
    ) -> Self {
        let of = match kind {
            Kind::Allocated if access == Access::FULL && announced => {
                let buffer = engine.allocate(bytes.len()).unwrap();
                assert!(buffer.write(0, bytes));
                let region = buffer.region();
                return Self { memory: Backed::Allocated(buffer), engine: Arc::clone(engine), region };
            }
            #[cfg(feature = "verbs")]
            Kind::Gpu => {
                let memory = GpuMemory::new(bytes);
                let options = RegisterOptions {
                    kind: MemoryKind::Gpu,
                    access,
                    announced,
                    ..RegisterOptions::default()
                };
                // SAFETY: as below.
                let region =
                    unsafe { engine.register(memory.address(), bytes.len() as u64, options) }.unwrap();
                return Self { memory: Backed::Gpu(memory), engine: Arc::clone(engine), region };
            }
            Kind::Allocated | Kind::Heap => mapped::Kind::Heap(Backing::Anonymous),
            Kind::File | Kind::NamedFile => mapped::Kind::Foreign,
        };
        let mut memory = Memory::new(of, bytes.len(), 0);
        memory.bytes_mut().copy_from_slice(bytes);
        let address = memory.bytes().as_ptr().expose_provenance() as u64;
        let file = memory.file().filter(|_| kind == Kind::NamedFile);
        let options =
            RegisterOptions { kind: MemoryKind::Host, access, announced, file, ..RegisterOptions::default() };
        // SAFETY: mapped until it is deregistered, by `drop` at the latest, and no reference into it is kept.
        let region = unsafe { engine.register(address, bytes.len() as u64, options) }.unwrap();
        Self { memory: Backed::Own(memory), engine: Arc::clone(engine), region }
    }

    pub(crate) fn address(&self) -> u64 {
        match &self.memory {
            Backed::Allocated(buffer) => buffer.address(),
            Backed::Own(memory) => memory.bytes().as_ptr().expose_provenance() as u64,
            #[cfg(feature = "verbs")]
            Backed::Gpu(memory) => memory.address(),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        match &self.memory {
            Backed::Allocated(buffer) => {
                let mut bytes = vec![0; buffer.len()];
                assert!(buffer.read(0, &mut bytes));
                bytes
            }
            Backed::Own(memory) => std::hint::black_box(memory.bytes()).to_vec(),
            #[cfg(feature = "verbs")]
            Backed::Gpu(memory) => memory.bytes(),
        }
    }

    /// Takes it back from the engine; the memory stays.
    pub(crate) fn deregister(&self) {
        assert!(self.engine.deregister(self.region));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.engine.deregister(self.region);
    }
}
