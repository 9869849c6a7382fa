//! The stand-in libibverbs of `tests/nullverbs`, built when first asked for.
#![allow(dead_code, reason = "a module of each test that includes it, which uses its share")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use flagcx_p2p::internals::fabric::VerbsOptions;

/// The stand-in's file: that named by `FLAGCX_P2P_NULLVERBS`, else one built from the sources.
pub(crate) fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| std::env::var_os("FLAGCX_P2P_NULLVERBS").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/nullverbs/build.sh");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nullverbs");
    let status = Command::new(script)
        .arg(&out)
        .stdout(Stdio::null())
        .status()
        .expect("tests/nullverbs/build.sh can be run");
    assert!(status.success(), "tests/nullverbs/build.sh failed: it needs a C compiler and libibverbs-dev");
    out.join("lib/libibverbs.so.1")
}

/// What is alive in a stand-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Live {
    pub(crate) contexts: i64,
    pub(crate) domains: i64,
    pub(crate) regions: i64,
    pub(crate) completion_queues: i64,
    pub(crate) queue_pairs: i64,
}

/// Events that the stand-in can raise, by the numbers of `enum ibv_event_type`.
#[derive(Clone, Copy, Debug)]
#[repr(i32)]
pub(crate) enum Event {
    QueuePairFatal = 1,
    DeviceFatal = 8,
    PortUp = 9,
    PortDown = 10,
    AddressChange = 18,
}

/// A loaded stand-in: a copy of it has settings and devices of its own.
pub(crate) struct Standin {
    file: PathBuf,
    is_copy: bool,
    library: libloading::Library,
}

impl Standin {
    /// Loads a copy and applies `settings`, by the names of the stand-in's README.
    pub(crate) fn new(settings: &[(&str, u64)]) -> Self {
        static COPIES: AtomicU32 = AtomicU32::new(0);
        let copy =
            format!("libnullverbs-{}-{}.so", std::process::id(), COPIES.fetch_add(1, Ordering::Relaxed));
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(copy);
        std::fs::copy(library(), &file).unwrap();
        Self::load(file, true).with(settings)
    }

    fn load(file: PathBuf, is_copy: bool) -> Self {
        // SAFETY: the stand-in's initialisers read the environment and the host's addresses, nothing else.
        let library = unsafe { libloading::Library::new(&file) }.unwrap();
        Self { file, is_copy, library }
    }

    fn with(self, settings: &[(&str, u64)]) -> Self {
        settings.iter().for_each(|(name, value)| self.set(name, *value));
        self
    }

    /// Loads a copy that plays the devices of `profile`: a name, or several with commas between, of the stand-in's
    /// README.
    pub(crate) fn playing(profile: &str, settings: &[(&str, u64)]) -> Self {
        Self::new(&[]).play(profile).with(settings)
    }

    /// The same without a copy: for one that is never dropped, which would leave its file behind.
    pub(crate) fn in_place(profile: &str, settings: &[(&str, u64)]) -> Self {
        Self::load(library().to_owned(), false).play(profile).with(settings)
    }

    fn play(self, profile: &str) -> Self {
        let names = std::ffi::CString::new(profile).unwrap();
        // SAFETY: the prototype is that of nullverbs.h.
        let code = unsafe {
            let apply = self
                .library
                .get::<unsafe extern "C" fn(*const libc::c_char) -> libc::c_int>(b"nullverbs_profile");
            apply.unwrap()(names.as_ptr())
        };
        assert_eq!(code, 0, "the stand-in has no profile {profile:?}");
        self
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Options that open this stand-in.
    pub(crate) fn options(&self) -> VerbsOptions {
        VerbsOptions { library: Some(self.file.to_str().unwrap().to_owned()), ..VerbsOptions::default() }
    }

    /// Changes a setting.
    pub(crate) fn set(&self, name: &str, value: u64) {
        let name = std::ffi::CString::new(name).unwrap();
        // SAFETY: the prototype is that of nullverbs.h.
        let code = unsafe {
            let set = self
                .library
                .get::<unsafe extern "C" fn(*const libc::c_char, u64) -> libc::c_int>(b"nullverbs_set");
            set.unwrap()(name.as_ptr(), value)
        };
        assert_eq!(code, 0, "the stand-in has no setting {name:?}");
    }

    /// Raises `event` on every device.
    pub(crate) fn raise(&self, event: Event) {
        self.raise_on(event, -1);
    }

    /// Raises `event` on one device.
    pub(crate) fn raise_on(&self, event: Event, device: i32) {
        // SAFETY: the prototype is that of nullverbs.h.
        unsafe {
            let raise =
                self.library.get::<unsafe extern "C" fn(libc::c_int, libc::c_int)>(b"nullverbs_raise");
            raise.unwrap()(event as libc::c_int, device);
        }
    }

    /// Completion queues that exist on a completion vector.
    pub(crate) fn queues_on(&self, vector: u64) -> u64 {
        // SAFETY: the prototype is that of nullverbs.h.
        unsafe {
            let ask = self.library.get::<unsafe extern "C" fn(u64) -> u64>(b"nullverbs_queues_on");
            ask.unwrap()(vector)
        }
    }

    /// Calls of `ibv_fork_init`; one with a context open counts 1000.
    pub(crate) fn fork_inits(&self) -> u64 {
        // SAFETY: the prototype is that of nullverbs.h.
        unsafe { self.library.get::<unsafe extern "C" fn() -> u64>(b"nullverbs_fork_inits").unwrap()() }
    }

    /// Calls that wait: registrations as `held_devices` says, destroys as `destroy_qp_ns` does.
    pub(crate) fn held(&self) -> u64 {
        // SAFETY: the prototype is that of nullverbs.h.
        unsafe { self.library.get::<unsafe extern "C" fn() -> u64>(b"nullverbs_held").unwrap()() }
    }

    /// What is alive now.
    pub(crate) fn live(&self) -> Live {
        let mut live = Live::default();
        // SAFETY: the prototype is that of nullverbs.h, and the structures are alike.
        unsafe {
            let ask = self.library.get::<unsafe extern "C" fn(*mut Live)>(b"nullverbs_live");
            ask.unwrap()(&raw mut live);
        }
        live
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        // The provider keeps the library loaded; only the file goes.
        if self.is_copy {
            let _ = std::fs::remove_file(&self.file);
        }
    }
}
