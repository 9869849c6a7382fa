//! Requests without bytes and entries.

use flagcx_p2p::internals::fabric::{Access, CompletionStatus, Posted};

use super::Rig;
use super::cases::{SENTINEL, brief, success};
use super::initiator::{Initiator, Window, request, writes};

/// What probes a path: it completes in its turn, touches nothing, and is flushed as any request is.
pub(super) fn no_bytes_and_no_entries(rig: &mut Rig) {
    let mut side = Initiator::new(rig);
    let local = Window::patterned(&rig.device, 64);
    let remote = rig.peer.buffer(64, SENTINEL, Access::FULL);
    let (place, accepted) = ((remote.address, remote.rkey), Posted { accepted: 1, errno: None });
    assert_eq!(side.queue_pair.post_empty(1, place), accepted);
    assert_eq!(side.wait(1), [success(1)]);
    assert!(rig.peer.bytes(remote.index).iter().all(|byte| *byte == SENTINEL));
    let write = [request(remote.address, remote.rkey, 0)];
    side.post_all(&writes(2, &write, &[local.sge(0, 64)]));
    assert_eq!(side.queue_pair.post_empty(3, place), accepted);
    side.post_all(&writes(4, &write, &[local.sge(0, 64)]));
    assert_eq!(side.wait(3), [success(2), success(3), success(4)]);
    assert_eq!(rig.peer.bytes(remote.index), local.bytes());
    side.queue_pair.set_error().unwrap();
    assert_eq!(side.queue_pair.post_empty(5, place), accepted);
    assert_eq!(brief(&side.wait(1)), [(5, CompletionStatus::Flushed)]);
}
