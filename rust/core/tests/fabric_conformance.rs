//! The provider conformance suite over the software fabric: every path, one process and two.

mod conformance;

use std::sync::Arc;

use conformance::{LocalPeer, Rig, run};
use flagcx_p2p::fabric::{PathKind, SoftwareOptions, software};

fn options(force: Option<PathKind>) -> SoftwareOptions {
    SoftwareOptions { force, device_count: 2, ..SoftwareOptions::default() }
}

/// Both ends in this process, on two devices.
fn one_process(path: PathKind) -> Rig {
    let devices = software::open(&options(Some(path))).unwrap();
    Rig { device: Arc::clone(&devices[0]), peer: Box::new(LocalPeer::new(Arc::clone(&devices[1]))), path }
}

#[test]
fn in_process() {
    run(|| one_process(PathKind::InProcess));
}
