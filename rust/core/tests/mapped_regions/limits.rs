//! Limits of this process.

use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What was allowed before something was taken away.
pub(crate) struct Limits([(Resource, Rlimit); 2]);

impl Limits {
    pub(crate) fn now() -> Self {
        Self([Resource::Nofile, Resource::As].map(|resource| (resource, getrlimit(resource))))
    }

    pub(crate) fn restore(self) {
        self.0.into_iter().for_each(|(resource, limit)| setrlimit(resource, limit).unwrap());
    }
}

/// No descriptor is left from now on.
pub(crate) fn no_descriptor_left() {
    let lowest = std::fs::File::open("/").unwrap().as_raw_fd() as u64;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest), ..limit }).unwrap();
    assert!(std::fs::File::open("/").is_err(), "there is still room for a descriptor");
}

/// Less address space is left than a region is long.
pub(crate) fn no_addresses_left() {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().next().unwrap().parse().unwrap();
    let limit = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(pages * 4096 + (16 << 20)), ..limit }).unwrap();
}
