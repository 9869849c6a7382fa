//! The CUDA driver as a program uses it: found at run time, nothing of CUDA is needed to build.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names the driver's library; without it the stand-in is built and used.
const LIBRARY: &str = "GPU_SUITE_LIBCUDA";

/// A context, as the driver names it; null for none.
pub type Context = *mut c_void;

macro_rules! functions {
    ($($field:ident: $name:literal ($($argument:ty),*);)*) => {
        /// The driver's functions that the suite itself calls.
        #[derive(Debug)]
        pub struct Cuda {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)*
            _library: libloading::Library,
        }

        impl Cuda {
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
    init: "cuInit" (c_uint);
    driver_version: "cuDriverGetVersion" (*mut c_int);
    error_string: "cuGetErrorString" (c_int, *mut *const c_char);
    device_count: "cuDeviceGetCount" (*mut c_int);
    device_name: "cuDeviceGetName" (*mut c_char, c_int, c_int);
    primary_context: "cuDevicePrimaryCtxRetain" (*mut Context, c_int);
    primary_state: "cuDevicePrimaryCtxGetState" (c_int, *mut c_uint, *mut c_int);
    reset_primary: "cuDevicePrimaryCtxReset_v2" (c_int);
    create_context: "cuCtxCreate_v2" (*mut Context, c_uint, c_int);
    destroy_context: "cuCtxDestroy_v2" (Context);
    get_context: "cuCtxGetCurrent" (*mut Context);
    set_context: "cuCtxSetCurrent" (Context);
    synchronise: "cuCtxSynchronize" ();
    allocate: "cuMemAlloc_v2" (*mut u64, usize);
    free: "cuMemFree_v2" (u64);
    allocate_pinned: "cuMemAllocHost_v2" (*mut *mut c_void, usize);
    free_pinned: "cuMemFreeHost" (*mut c_void);
    allocate_managed: "cuMemAllocManaged" (*mut u64, usize, c_uint);
    copy: "cuMemcpy" (u64, u64, usize);
}

/// The driver, loaded and initialised at the first call.
pub fn cuda() -> &'static Cuda {
    static CUDA: OnceLock<Cuda> = OnceLock::new();
    CUDA.get_or_init(|| {
        let library = library();
        // SAFETY: the driver's library may be loaded at any time; the stand-in does nothing when it is.
        let library = unsafe { libloading::Library::new(&library) }
            .unwrap_or_else(|error| panic!("cannot load {}: {error}", library.display()));
        let cuda = Cuda::from_library(library);
        // SAFETY: takes no pointer.
        cuda.check("cuInit", unsafe { (cuda.init)(0) });
        cuda
    })
}

/// The file that is the driver for this run.
pub fn library() -> PathBuf {
    // The stand-in is built once in a process: it may be loaded by then.
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| std::env::var_os(LIBRARY).map_or_else(stand_in, PathBuf::from)).clone()
}

/// Whether the driver is the stand-in: its speed says nothing.
pub fn is_stand_in() -> bool {
    library().to_string_lossy().contains("nullcuda")
}

/// Tells this process and those that it starts which driver to take.
pub fn choose(library: &Path, command: &mut Command) {
    command.env(LIBRARY, library);
}

fn stand_in() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/nullcuda/build.sh");
    let built = Command::new(script).arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("nullcuda")).output();
    let built = built.expect("tests/nullcuda/build.sh can be run");
    assert!(built.status.success(), "it needs a C compiler: {}", String::from_utf8_lossy(&built.stderr));
    PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
}

impl Cuda {
    #[track_caller]
    fn check(&self, operation: &str, code: c_int) {
        let mut text = std::ptr::null();
        // SAFETY: the out parameter is valid.
        if code != 0 && unsafe { (self.error_string)(code, &raw mut text) } == 0 {
            // SAFETY: the driver answers a constant string.
            panic!("{operation}: error {code}, {}", unsafe { CStr::from_ptr(text) }.to_string_lossy());
        }
        assert_eq!(code, 0, "{operation}: an error without a text");
    }

    /// `name of device 0, driver version`.
    pub fn describe(&self) -> String {
        let (mut name, mut version) = ([0 as c_char; 128], 0);
        // SAFETY: the out parameters are valid and as long as said; the last byte stays NUL.
        unsafe {
            self.check("cuDeviceGetName", (self.device_name)(name.as_mut_ptr(), 127, 0));
            self.check("cuDriverGetVersion", (self.driver_version)(&raw mut version));
            format!("{}, CUDA driver {version}", CStr::from_ptr(name.as_ptr()).to_string_lossy())
        }
    }

    pub fn devices(&self) -> i32 {
        let mut count = 0;
        // SAFETY: the out parameter is valid.
        self.check("cuDeviceGetCount", unsafe { (self.device_count)(&raw mut count) });
        count
    }

    /// The calling thread's context.
    pub fn context(&self) -> Context {
        let mut context = std::ptr::null_mut();
        // SAFETY: the out parameter is valid.
        self.check("cuCtxGetCurrent", unsafe { (self.get_context)(&raw mut context) });
        context
    }

    pub fn set_context(&self, context: Context) {
        // SAFETY: the driver refuses what is no context.
        self.check("cuCtxSetCurrent", unsafe { (self.set_context)(context) });
    }

    /// The context that a device shares with the CUDA runtime library. Never released here.
    pub fn primary(&self, device: i32) -> Context {
        let mut context = std::ptr::null_mut();
        // SAFETY: the out parameter is valid.
        let code = unsafe { (self.primary_context)(&raw mut context, device) };
        self.check("cuDevicePrimaryCtxRetain", code);
        context
    }

    /// Whether the context that a device shares with the CUDA runtime library is made.
    pub fn has_primary(&self, device: i32) -> bool {
        let (mut flags, mut active) = (0, 0);
        // SAFETY: the out parameters are valid.
        let code = unsafe { (self.primary_state)(device, &raw mut flags, &raw mut active) };
        self.check("cuDevicePrimaryCtxGetState", code);
        active != 0
    }

    /// As `cudaDeviceReset`.
    pub fn reset_primary(&self, device: i32) {
        // SAFETY: takes no pointer.
        self.check("cuDevicePrimaryCtxReset", unsafe { (self.reset_primary)(device) });
    }

    /// A context of the program's own, which is then current.
    pub fn create_context(&self, device: i32) -> Context {
        let mut context = std::ptr::null_mut();
        // SAFETY: the out parameter is valid.
        self.check("cuCtxCreate", unsafe { (self.create_context)(&raw mut context, 0, device) });
        context
    }

    pub fn destroy_context(&self, context: Context) {
        // SAFETY: made by `create_context`.
        self.check("cuCtxDestroy", unsafe { (self.destroy_context)(context) });
    }

    /// Memory of the current context's device.
    pub fn allocate(&self, length: usize) -> u64 {
        let mut address = 0;
        // SAFETY: the out parameter is valid.
        self.check("cuMemAlloc", unsafe { (self.allocate)(&raw mut address, length) });
        address
    }

    pub fn free(&self, address: u64) {
        // SAFETY: the driver refuses what it has not given out.
        self.check("cuMemFree", unsafe { (self.free)(address) });
    }

    pub fn allocate_pinned(&self, length: usize) -> u64 {
        let mut address = std::ptr::null_mut();
        // SAFETY: the out parameter is valid.
        self.check("cuMemAllocHost", unsafe { (self.allocate_pinned)(&raw mut address, length) });
        address as u64
    }

    pub fn free_pinned(&self, address: u64) {
        // SAFETY: the driver refuses what it has not given out.
        self.check("cuMemFreeHost", unsafe { (self.free_pinned)(address as *mut c_void) });
    }

    pub fn allocate_managed(&self, length: usize) -> u64 {
        const ATTACH_GLOBAL: c_uint = 1;
        let mut address = 0;
        // SAFETY: the out parameter is valid.
        let code = unsafe { (self.allocate_managed)(&raw mut address, length, ATTACH_GLOBAL) };
        self.check("cuMemAllocManaged", code);
        address
    }

    pub fn synchronise(&self) {
        // SAFETY: takes nothing.
        self.check("cuCtxSynchronize", unsafe { (self.synchronise)() });
    }

    /// `cuMemcpy`, and the end of it.
    ///
    /// # Safety
    /// Both ranges are valid.
    pub unsafe fn copy(&self, to: u64, from: u64, length: usize) {
        // SAFETY: the caller's promise.
        self.check("cuMemcpy", unsafe { (self.copy)(to, from, length) });
        self.synchronise();
    }
}
