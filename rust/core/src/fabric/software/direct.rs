//! Copies by the thread that starts a transfer: the way by copies without send queue, completion and the locks of both.
//!
//! What is not plainly possible is left to the queue pair's requests, which report it: a key, range or right that does not fit,
//! a peer that has not connected yet or is gone, a denied direction, memory that cannot be accessed. Bytes that were copied
//! before that are copied again with the requests, which is harmless: they come from the same source, and the transfer has not
//! ended.
#![allow(unsafe_code, reason = "copies into registered memory")]

use std::sync::Arc;

use super::address_space::AddressSpace;
use super::device_core::Core;
use super::endpoint::Endpoint;
use super::far_end::{FarMemory, FarView};
use super::link::Link;
use super::socket::Range;
use super::table::{Counterpart, Violation, end_of_copy};
use super::users::Users;
use super::work::{PinSet, Unpinned, rights};
use crate::fabric::{DirectCopy, DirectPiece, MOST_DIRECT_PIECES, NotDirect, Opcode};

/// Regions on either side of one direct copy; transfers between more take the queue.
const REGIONS: usize = 4;

/// The remote key is not among those that the peer has announced.
const UNKNOWN: Result<bool, Unpinned> = Err(Unpinned::Violation(Violation::UnknownKey));

/// Direct copies of one connected queue pair.
#[derive(Debug)]
pub(super) struct Direct {
    device: Arc<Core>,
    endpoint: Arc<Endpoint>,
    far: FarView,
    copies: Users,
}

impl Direct {
    pub(super) fn new(device: Arc<Core>, endpoint: Arc<Endpoint>, far: FarView) -> Self {
        Self { device, endpoint, far, copies: Users::default() }
    }

    /// Allows no copies any more, and waits for those under way.
    pub(super) fn close(&self) {
        self.copies.close();
    }

    /// Whether both ends stand as they do while requests are carried out.
    #[inline]
    fn is_open(&self) -> bool {
        !self.endpoint.is_error() && self.far.counterpart(&self.endpoint) == Counterpart::Ready
    }

    /// Whether the way to that space is allowed, and its process is there. Asked right before the copy.
    #[inline]
    fn may_copy(&self, opcode: Opcode, space: AddressSpace) -> bool {
        self.far.allows(opcode, space) && self.far.memory().link().is_none_or(Link::is_alive)
    }
}

impl DirectCopy for Direct {
    fn copy(&self, opcode: Opcode, pieces: &[DirectPiece]) -> Result<(), NotDirect> {
        match pieces {
            [piece] => self.copy_one(opcode, piece),
            _ => self.copy_several(opcode, pieces),
        }
    }
}

impl Direct {
    /// Copies one piece, as [`Direct::copy_several`] does: with sets of pins and lists of ranges it took 220 instructions more, a
    /// seventh of a whole WRITE of 4 KiB.
    #[inline]
    fn copy_one(&self, opcode: Opcode, piece: &DirectPiece) -> Result<(), NotDirect> {
        let _user = self.copies.enter().ok_or(NotDirect)?;
        if !self.is_open() {
            return Err(NotDirect);
        }
        let memory = self.far.memory();
        let &DirectPiece { local: address, remote: remote_address, length, lkey, rkey } = piece;
        let (local_right, remote_right) = rights(opcode);
        let local = self.device.regions.view().pin(lkey).map_err(|_| NotDirect)?;
        local.check(address, length, local_right).map_err(|_| NotDirect)?;
        let remote = memory.pin(rkey).map_err(|_| NotDirect)?;
        remote.check(remote_address, length, remote_right).map_err(|_| NotDirect)?;
        let place = memory.locate(&remote, remote_address, length, opcode);
        if !self.may_copy(opcode, place.space) {
            return Err(NotDirect);
        }
        let plain = local.cannot_fault() && place.cannot_fault;
        let (near, far) = (Range::new(address, length), Range::new(place.address, length));
        // SAFETY: both ranges were checked against their regions, which are pinned until after the call, so that neither
        // registration ends before. Plain ones cannot fault, by what their owners promised.
        let moved = unsafe { place.space.copy(opcode, &[near], &[far], plain) };
        if moved != Ok(length) {
            return Err(NotDirect);
        }
        if memory.link().is_some() {
            end_of_copy();
            // As in `copy_several`.
            if !(local.is_live() && remote.is_live()) {
                return Err(NotDirect);
            }
        }
        Ok(())
    }

    /// Copies pieces of at most [`REGIONS`] regions on either side.
    fn copy_several(&self, opcode: Opcode, pieces: &[DirectPiece]) -> Result<(), NotDirect> {
        let _user = self.copies.enter().ok_or(NotDirect)?;
        if !self.is_open() {
            return Err(NotDirect);
        }
        let memory = self.far.memory();
        let mut local = PinSet::<REGIONS>::new(self.device.regions.view());
        let mut remote = PinSet::<REGIONS>::new(memory.view());
        let mut ranges = Ranges::<MOST_DIRECT_PIECES>::new(memory.space());
        for piece in pieces {
            ranges.add(opcode, piece, memory, &mut local, &mut remote)?;
        }
        if !self.may_copy(opcode, ranges.space) {
            return Err(NotDirect);
        }
        let (locals, remotes) = ranges.lists();
        // SAFETY: the ranges were checked against their regions, which are pinned by `local` and `remote` until after the call,
        // so that neither registration ends before. Plain ones cannot fault, by what their owners promised.
        let moved = unsafe { ranges.space.copy(opcode, locals, remotes, ranges.plain) };
        if moved != Ok(ranges.bytes) {
            return Err(NotDirect);
        }
        if memory.link().is_some() {
            end_of_copy();
            // The regions of another process are pinned as well, so this can fail only if their owner gave up waiting for us.
            if !(local.all_live() && remote.all_live()) {
                return Err(NotDirect);
            }
        }
        Ok(())
    }
}

/// The ranges to copy between.
#[derive(Debug)]
struct Ranges<const N: usize> {
    local: [Range; N],
    remote: [Range; N],
    count: usize,
    bytes: u64,
    /// Where all remote ones lie.
    space: AddressSpace,
    /// Copied without the kernel.
    plain: bool,
}

impl<const N: usize> Ranges<N> {
    /// None yet. `space` is that of regions of which nothing else is known.
    fn new(space: AddressSpace) -> Self {
        let none = [Range::default(); N];
        Self { local: none, remote: none, count: 0, bytes: 0, space, plain: true }
    }

    /// Checks both sides of a piece, pins their regions, and adds it.
    fn add<'a, const R: usize>(
        &mut self,
        opcode: Opcode,
        piece: &DirectPiece,
        memory: &'a FarMemory,
        local: &mut PinSet<'_, R>,
        remote: &mut PinSet<'a, R>,
    ) -> Result<(), NotDirect> {
        let &DirectPiece { local: address, remote: remote_address, length, lkey, rkey } = piece;
        let (local_right, remote_right) = rights(opcode);
        let is_fixed = local.check(lkey, address, length, local_right).map_err(|_| NotDirect)?;
        if remote.check(rkey, remote_address, length, remote_right) == UNKNOWN
            && !memory.add_granted(rkey, remote)
        {
            return Err(NotDirect);
        }
        let pinned = remote.checked(rkey, remote_address, length, remote_right).map_err(|_| NotDirect)?;
        let place = memory.locate(pinned, remote_address, length, opcode);
        if self.count > 0 && place.space != self.space {
            return Err(NotDirect);
        }
        self.space = place.space;
        self.plain &= is_fixed && place.cannot_fault;
        let (Some(local), Some(remote)) = (self.local.get_mut(self.count), self.remote.get_mut(self.count))
        else {
            return Err(NotDirect);
        };
        *local = Range::new(address, length);
        *remote = Range::new(place.address, length);
        self.count += 1;
        self.bytes += length;
        Ok(())
    }

    /// Those of either side.
    fn lists(&self) -> (&[Range], &[Range]) {
        let count = self.count;
        (self.local.get(..count).unwrap_or_default(), self.remote.get(..count).unwrap_or_default())
    }
}
