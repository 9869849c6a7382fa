//! Says which TCP socket of a process its endpoint listens on, to processes that may look at its descriptors.
//!
//! The note is the name of an empty file in memory, which `/proc/PID/fd` shows. So `flagcx-p2p stat PID` does not have to ask every
//! listener of the process, some of which take what they are asked for a stray client.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::config::MetricsAddress;
use crate::fork::OwnSocket;

/// The note, as long as the endpoint is open; children that are forked do not keep it.
#[derive(Debug)]
pub(super) struct Note {
    _file: OwnSocket<OwnedFd>,
}

impl Note {
    /// `None` where the system has no such files, or none to spare.
    pub(super) fn new(address: SocketAddr) -> Option<Self> {
        let file = memfd_create(MetricsAddress::note(address), MemfdFlags::CLOEXEC).ok()?;
        Some(Self { _file: OwnSocket::new(file) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn noted() -> Vec<SocketAddr> {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().flatten();
        descriptors.filter_map(|entry| MetricsAddress::noted(&fs::read_link(entry.path()).ok()?)).collect()
    }

    #[test]
    fn it_is_found_while_it_is_there() {
        for address in ["127.0.0.1:1", "[fe80::1]:65535"].map(|text| text.parse().unwrap()) {
            let note = Note::new(address);
            assert!(noted().contains(&address), "{address}");
            drop(note);
            assert!(!noted().contains(&address), "{address}");
        }
        let others = [
            "/memfd:region (deleted)",
            "/memfd:flagcx-p2p-metrics x (deleted)",
            "flagcx-p2p-metrics 1.2.3.4:5",
        ];
        assert!(others.iter().all(|other| MetricsAddress::noted(Path::new(other)).is_none()));
    }
}
