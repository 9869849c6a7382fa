//! In process: memory that the kernel copies stays pinned until it has, however many regions a poll uses.
#![allow(unsafe_code, reason = "writes to memory that was taken back")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod conformance;

use std::sync::Arc;
use std::time::{Duration, Instant};

use conformance::initiator::{reads, request};
use conformance::{Initiator, LocalPeer, Rig, Window, caps};
use flagcx_p2p::internals::fabric::{Access, Backing, PathKind, SoftwareOptions, WorkRequest, software};

/// How long each copy takes.
const COPY: Duration = Duration::from_millis(20);

/// One more READ than there are pins, the last one into two regions: the pins of all go to make room for the second one.
#[test]
fn a_region_is_not_taken_back_before_the_kernel_has_copied() {
    let options = SoftwareOptions {
        force: Some(PathKind::InProcess),
        device_count: 2,
        faults: format!("hold=us:{}", COPY.as_micros()),
        ..SoftwareOptions::default()
    };
    let devices = software::open(&options).unwrap();
    let peer = LocalPeer::with_backing(Arc::clone(&devices[1]), Backing::Mapped);
    let mut rig = Rig { device: Arc::clone(&devices[0]), peer: Box::new(peer), path: PathKind::InProcess };
    let far = rig.peer.buffer(4096, 0x11, Access::FULL);
    let window = |_| Window::with_backing(&rig.device, 64, 0, Access::FULL, Backing::Mapped);
    let windows: Vec<_> = (0..33).map(window).collect();
    let mut initiator = Initiator::with(&mut rig, &caps(), 256);
    let entries: Vec<_> = windows.iter().map(|window| window.sge(0, 64)).collect();
    let mut requests: Vec<WorkRequest> = (0..31).map(|i| request(far.address, far.rkey, i)).collect();
    requests.push(WorkRequest { sge_count: 2, ..request(far.address, far.rkey, 31) });
    let (region, address) = (Arc::clone(&windows[31].region), windows[31].address());
    let owner = std::thread::spawn(move || {
        // While the last READ is under way.
        std::thread::sleep(COPY * 31 + COPY / 2);
        region.revoke(Instant::now() + Duration::from_secs(20)).unwrap();
        // SAFETY: the memory is the window's, which lives until the end of the test.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0xEE, 64) };
        std::thread::sleep(COPY * 5);
        // SAFETY: as above.
        unsafe { std::ptr::read_volatile(address as *const u8) }
    });
    initiator.post_all(&reads(1, &requests, &entries));
    initiator.wait(32);
    assert_eq!(owner.join().unwrap(), 0xEE, "written after the region had been taken back");
}
