//! Limits of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No descriptor is left from now on.
pub(crate) fn no_descriptor_left() {
    // The three standard streams are open. Under a higher limit room could come back: what is closed on another thread.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
    assert!(std::fs::File::open("/").is_err(), "there is still room for a descriptor");
}

/// Descriptors can be opened again.
pub(crate) fn descriptors_as_before() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// Less address space is left than a region is long.
pub(crate) fn no_addresses_left() {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().next().unwrap().parse().unwrap();
    let limit = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(pages * 4096 + (16 << 20)), ..limit }).unwrap();
}
