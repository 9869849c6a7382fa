//! Memory that has no legacy IPC handle: of `cuMemCreate`, mapped side by side, and of a pool.

use std::ffi::{c_int, c_ulonglong, c_void};
use std::sync::OnceLock;

use super::cuda::{cuda, library};
use super::memory::in_context;

macro_rules! functions {
    ($($field:ident: $name:literal ($($argument:ty),*);)*) => {
        struct Vmm {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)*
            _library: libloading::Library,
        }

        impl Vmm {
            fn from_library(library: libloading::Library) -> Self {
                Self {
                    $(
                        // SAFETY: the type is that of the driver's documentation for this name.
                        $field: *unsafe { library.get(concat!($name, "\0").as_bytes()) }.unwrap(),
                    )*
                    _library: library,
                }
            }
        }
    };
}

functions! {
    create: "cuMemCreate" (*mut u64, usize, *const Properties, c_ulonglong);
    granularity: "cuMemGetAllocationGranularity" (*mut usize, *const Properties, c_int);
    release: "cuMemRelease" (u64);
    reserve: "cuMemAddressReserve" (*mut u64, usize, usize, u64, c_ulonglong);
    free: "cuMemAddressFree" (u64, usize);
    map: "cuMemMap" (u64, usize, usize, u64, c_ulonglong);
    unmap: "cuMemUnmap" (u64, usize);
    set_access: "cuMemSetAccess" (u64, usize, *const Access, usize);
    create_pool: "cuMemPoolCreate" (*mut *mut c_void, *const PoolProperties);
    destroy_pool: "cuMemPoolDestroy" (*mut c_void);
    take: "cuMemAllocFromPoolAsync" (*mut u64, usize, *mut c_void, *mut c_void);
    give_back: "cuMemFreeAsync" (u64, *mut c_void);
}

/// `CUmemLocation` of device 0.
#[repr(C)]
struct Location(c_int, c_int);

/// `CUmemAllocationProp`.
#[repr(C)]
struct Properties {
    kind: c_int,
    handle_types: c_int,
    location: Location,
    rest: [u64; 2],
}

/// `CUmemAccessDesc`.
#[repr(C)]
struct Access(Location, c_int);

/// `CUmemPoolProps`.
#[repr(C)]
struct PoolProperties {
    kind: c_int,
    handle_types: c_int,
    location: Location,
    rest: [u64; 9],
}

const PINNED: c_int = 1;
const DEVICE_0: Location = Location(1, 0);

fn vmm() -> &'static Vmm {
    static VMM: OnceLock<Vmm> = OnceLock::new();
    VMM.get_or_init(|| {
        cuda();
        // SAFETY: it is loaded already.
        Vmm::from_library(unsafe { libloading::Library::new(library()) }.unwrap())
    })
}

#[track_caller]
fn check(call: &str, code: c_int) {
    assert_eq!(code, 0, "{call}");
}

/// Whether the memory may be opened by other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareable {
    Yes,
    No,
}

fn properties(shareable: Shareable) -> Properties {
    let handle_types = c_int::from(shareable == Shareable::Yes);
    Properties { kind: PINNED, handle_types, location: DEVICE_0, rest: [0; 2] }
}

/// Allocations that are mapped side by side at one range of addresses, as PyTorch's expandable segments are.
#[derive(Debug)]
pub struct Segments {
    pub address: u64,
    /// Of one segment.
    pub each: usize,
    pub count: usize,
    reserved: usize,
}

impl Segments {
    pub fn new(count: usize, shareable: Shareable) -> Self {
        let (mut each, mut address) = (0, 0);
        // SAFETY: the out parameters are valid.
        unsafe {
            check("granularity", (vmm().granularity)(&raw mut each, &properties(shareable), 0));
            check("reserve", (vmm().reserve)(&raw mut address, each * count, 0, 0, 0));
        }
        let segments = Self { address, each, count, reserved: each * count };
        segments.map(shareable);
        segments
    }

    pub fn length(&self) -> usize {
        self.each * self.count
    }

    fn map(&self, shareable: Shareable) {
        for segment in 0..self.count {
            let (mut handle, at) = (0, self.address + (segment * self.each) as u64);
            // SAFETY: the addresses are reserved; the mapping keeps the allocation.
            unsafe {
                check("create", (vmm().create)(&raw mut handle, self.each, &properties(shareable), 0));
                check("map", (vmm().map)(at, self.each, 0, handle, 0));
                check("release", (vmm().release)(handle));
            }
        }
        // SAFETY: all of it is mapped.
        let code = unsafe { (vmm().set_access)(self.address, self.length(), &Access(DEVICE_0, 3), 1) };
        check("set_access", code);
    }

    fn unmap(&self) {
        for segment in 0..self.count {
            // SAFETY: mapped by `map`.
            let code = unsafe { (vmm().unmap)(self.address + (segment * self.each) as u64, self.each) };
            check("unmap", code);
        }
    }

    /// Leaves a hole where the last one was; its addresses stay reserved.
    pub fn drop_last(&mut self) {
        self.count -= 1;
        // SAFETY: mapped by `map`.
        let code = unsafe { (vmm().unmap)(self.address + self.length() as u64, self.each) };
        check("unmap", code);
    }

    /// Other memory at the same addresses.
    pub fn renew(&self) {
        self.unmap();
        self.map(Shareable::Yes);
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.unmap();
        // SAFETY: reserved in `new`, nothing is mapped there.
        check("free", unsafe { (vmm().free)(self.address, self.reserved) });
    }
}

/// An allocation of a pool.
#[derive(Debug)]
pub struct OfPool {
    pool: *mut c_void,
    pub address: u64,
}

impl OfPool {
    /// The second one of its pool.
    pub fn new(length: usize, shareable: Shareable) -> Self {
        let handle_types = c_int::from(shareable == Shareable::Yes);
        let properties = PoolProperties { kind: PINNED, handle_types, location: DEVICE_0, rest: [0; 9] };
        let (mut pool, mut addresses) = (std::ptr::null_mut(), [0; 2]);
        // SAFETY: the out parameters are valid; no stream is the default one.
        in_context(|| unsafe {
            check("create_pool", (vmm().create_pool)(&raw mut pool, &raw const properties));
            for address in &mut addresses {
                check("take", (vmm().take)(address, length, pool, std::ptr::null_mut()));
            }
            check("give_back", (vmm().give_back)(addresses[0], std::ptr::null_mut()));
            cuda().synchronise();
        });
        Self { pool, address: addresses[1] }
    }
}

impl Drop for OfPool {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        in_context(|| unsafe {
            check("give_back", (vmm().give_back)(self.address, std::ptr::null_mut()));
            cuda().synchronise();
            check("destroy_pool", (vmm().destroy_pool)(self.pool));
        });
    }
}
