//! The pins on the regions of a device: of threads of this process, and of processes that copy in and out by themselves.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::mapping::SharedArray;
use super::table::{Pinned, REGION_SLOTS, RegionEntry, slot_of};
use crate::process;
use crate::sync::{AtomicBool, Mutex, Ordering, SequentialU32, lock};

/// Processes remembered as late; with more of them all are forgotten, which costs no more than their patience again.
const MAX_LATE: usize = 4096;

/// All pins on the regions of one device.
#[derive(Debug)]
pub(super) struct Pins {
    /// Pins of this process's own threads: in-process copies, local buffers, the TCP responder.
    own: SharedArray<SequentialU32>,
    /// Pins of the processes that copy in and out by themselves.
    peers: Mutex<Vec<Arc<PeerPins>>>,
    /// Processes that have kept a pin for too long, by their pids. Kept when a link ends, or a process that forges pins would
    /// only have to connect again.
    late: Mutex<BTreeSet<u32>>,
}

/// The pins that one peer process holds on our regions.
#[derive(Debug)]
pub(super) struct PeerPins {
    /// The process.
    pid: u32,
    pins: SharedArray<SequentialU32>,
    /// The regions that it alone sees, because it has named their keys. Written under the lock of [`Pins::peers`].
    grants: SharedArray<RegionEntry>,
    /// Set by the responder when the peer's link is closed, read by revocations; Relaxed, for a revocation looks
    /// again until it sees it.
    void: AtomicBool,
}

/// The holders of a pin on a slot: at least one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Holders {
    this_process: bool,
    peers: BTreeSet<u32>,
}

impl Pins {
    pub(super) fn new() -> io::Result<Self> {
        let own = SharedArray::private(REGION_SLOTS)?;
        Ok(Self { own, peers: Mutex::default(), late: Mutex::default() })
    }

    /// Those of this process.
    pub(super) fn own(&self) -> &SharedArray<SequentialU32> {
        &self.own
    }

    /// From now on this peer's pins count too. `pins` is the array that the peer published. Comes with the descriptor of the
    /// table of what is granted to it.
    pub(super) fn add_peer(&self, pid: u32, pins: BorrowedFd<'_>) -> io::Result<(Arc<PeerPins>, OwnedFd)> {
        let pins = SharedArray::open(pins, REGION_SLOTS)?;
        let (grants, file) = SharedArray::published("flagcx-p2p-grants", REGION_SLOTS)?;
        let peer = Arc::new(PeerPins { pid, pins, grants, void: AtomicBool::new(false) });
        lock(&self.peers).push(Arc::clone(&peer));
        Ok((peer, file))
    }

    /// Shows the region that `find` pins to one peer. False: there is none.
    pub(super) fn grant<'a>(&self, peer: &PeerPins, find: impl FnOnce() -> Option<Pinned<'a>>) -> bool {
        // A revocation takes the key away first and then, under this lock, the grants: it sees this one, or this sees that.
        let _peers = lock(&self.peers);
        let Some(pinned) = find() else { return false };
        if let Some(entry) = peer.grants.get(slot_of(pinned.key())) {
            pinned.publish_to(entry);
        }
        true
    }

    /// Takes what was granted of `slot` back from all peers.
    pub(super) fn revoke_grants(&self, slot: usize) {
        for entry in lock(&self.peers).iter().filter_map(|peer| peer.grants.get(slot)) {
            entry.revoke();
        }
    }

    /// Whether the region of `key` is shown to `peer` alone.
    pub(super) fn is_granted(peer: &PeerPins, key: u32) -> bool {
        peer.grants.get(slot_of(key)).is_some_and(|entry| entry.is_of(key))
    }

    /// The peer is gone, or has closed its link: what it has pinned counts no more.
    pub(super) fn remove_peer(&self, peer: &Arc<PeerPins>) {
        peer.void.store(true, Ordering::Relaxed);
        lock(&self.peers).retain(|other| !Arc::ptr_eq(other, peer));
    }

    /// The holders of a pin on `slot` now.
    pub(super) fn holders(&self, slot: usize) -> Option<Holders> {
        let held = |pins: &SharedArray<SequentialU32>| pins.get(slot).is_some_and(|count| count.load() != 0);
        let this_process = held(&self.own);
        let peers: BTreeSet<_> = lock(&self.peers)
            .iter()
            .filter(|peer| held(&peer.pins) && !peer.void.load(Ordering::Relaxed))
            .map(|peer| peer.pid)
            .collect();
        (this_process || !peers.is_empty()).then_some(Holders { this_process, peers })
    }

    /// These have not released their pins in time.
    pub(super) fn note_late(&self, holders: &Holders) {
        let mut late = lock(&self.late);
        if late.len() >= MAX_LATE {
            late.clear();
        }
        late.extend(&holders.peers);
    }

    /// Whether each of these has been late before.
    pub(super) fn are_late(&self, holders: &Holders) -> bool {
        !holders.this_process && holders.peers.is_subset(&lock(&self.late))
    }
}

impl std::fmt::Display for Holders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let own = self.this_process.then(|| "this process".to_owned());
        let all: Vec<_> =
            own.into_iter().chain(self.peers.iter().map(|pid| process::describe(*pid))).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod models {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fabric::software::table::RegionView;
    use crate::fabric::software::table::key_of;
    use crate::fabric::software::table::models::range;
    use crate::sync::Arc as ModelArc;

    /// A region is shown to a peer that has named its key, while it ends: nothing stays shown.
    #[test]
    fn what_is_granted_while_it_ends_is_taken_back() {
        loom::model(|| {
            let pins = Pins::new().unwrap();
            let (peer, _) = pins.add_peer(1, nowhere().as_fd()).unwrap();
            let entries = SharedArray::<RegionEntry>::private(REGION_SLOTS).unwrap();
            let key = key_of(1, 1);
            entries.get(1).unwrap().publish(key, &range(0x1000), false);
            let all = ModelArc::new((pins, peer, entries));
            let other = all.clone();
            let responder = loom::thread::spawn(move || {
                let (pins, peer, entries) = &*other;
                pins.grant(peer, || RegionView { entries, pins: pins.own() }.pin(key).ok())
            });
            let (pins, peer, entries) = &*all;
            entries.get(1).unwrap().revoke();
            pins.revoke_grants(1);
            responder.join().unwrap();
            assert!(!Pins::is_granted(peer, key));
        });
    }

    fn nowhere() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }
}
