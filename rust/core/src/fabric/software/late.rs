//! WRITEs that arrive after they were flushed, for tests: see [`super::switches::FaultSwitches::set_late`].
#![allow(unsafe_code, reason = "copies into registered memory")]

use std::sync::Arc;
use std::time::Duration;

use super::address_space::AddressSpace;
use super::device_core::Core;
use super::far_end::Here;
use super::send_queue::{Piece, SendQueue};
use super::socket::Range;
use super::table::{Counterpart, Right};
use crate::fabric::{Opcode, QpAddress};

/// Requests of a queue pair that are left on the way at most.
const MOST: u64 = 64;
/// Bytes of each.
const BYTES: u64 = 64 << 10;

/// A WRITE on the way.
struct Packet {
    rkey: u32,
    address: u64,
    bytes: Vec<u8>,
}

/// Leaves the unfinished WRITEs of `queue`, which is flushed, on the way to `far`.
pub(super) fn leave_on_the_way(device: &Arc<Core>, own: &QpAddress, queue: &SendQueue, far: &Here) {
    let Some(switches) = device.switches() else { return };
    let Some(late) = switches.lateness() else { return };
    let end = queue.posted.min(queue.executed + MOST);
    let packets: Vec<_> = (queue.executed..end).filter_map(|index| packet(device, queue, index)).collect();
    if packets.is_empty() {
        return;
    }
    switches.note_left(packets.len() as u64);
    let (device, far, own) = (Arc::clone(device), (Arc::clone(&far.endpoint), Arc::clone(&far.device)), *own);
    let land_all = move || {
        std::thread::sleep(late.min(LONGEST));
        let far = Here { endpoint: far.0, device: far.1 };
        let landed = packets.iter().filter(|packet| land(packet, &own, &far)).count();
        if let Some(switches) = device.switches() {
            switches.note_landed(landed as u64);
        }
    };
    // Without a thread nothing is late.
    let _ = std::thread::Builder::new().name("p2p-late".to_owned()).spawn(land_all);
}

/// A test that waits longer for it has ended.
const LONGEST: Duration = Duration::from_secs(2);

fn packet(device: &Core, queue: &SendQueue, index: u64) -> Option<Packet> {
    let request = queue.get(index).filter(|request| request.opcode == Opcode::Write)?;
    let Piece { address, length, lkey } = queue.pieces(index, 0).next()?;
    let length = length.min(BYTES);
    let pinned = device.regions.view().pin(lkey).ok()?;
    pinned.check(address, length, Right::LocalRead).ok()?;
    let mut bytes = vec![0; length as usize];
    let (from, to) = ([Range::new(address, length)], [Range::new(bytes.as_mut_ptr() as u64, length)]);
    // SAFETY: the source was checked against its region, which is pinned until after the call; the kernel makes the copy. The other
    // range is the vector's own.
    let moved = unsafe { AddressSpace::Same.copy(Opcode::Write, &from, &to, false) };
    (moved == Ok(length)).then_some(Packet { rkey: request.rkey, address: request.remote_address, bytes })
}

/// Whether it has arrived: its queue pair takes requests, and its memory is still registered.
fn land(packet: &Packet, own: &QpAddress, far: &Here) -> bool {
    let switches = far.device.switches();
    // A queue pair that goes to ERROR waits for this.
    let _landing = switches.map(|switches| switches.landing());
    if far.endpoint.counterpart(own) != Counterpart::Ready {
        return false;
    }
    let length = packet.bytes.len() as u64;
    let Ok(pinned) = far.device.regions.view().pin(packet.rkey) else { return false };
    if pinned.check(packet.address, length, Right::RemoteWrite).is_err() {
        return false;
    }
    let (from, to) =
        ([Range::new(packet.bytes.as_ptr() as u64, length)], [Range::new(packet.address, length)]);
    // SAFETY: the target was checked against its region, which is pinned until after the call; the kernel makes the copy. The other
    // range is the vector's own.
    unsafe { AddressSpace::Same.copy(Opcode::Write, &from, &to, false) == Ok(length) }
}
