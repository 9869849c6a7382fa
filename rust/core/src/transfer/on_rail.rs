//! The iovs of a transfer as a further rail needs them: with the keys that the peer's memory has there.

use std::cell::Cell;
use std::ops::Range;

use super::{Iov, IovSource, RemoteRange};
use crate::fabric::Opcode;
use crate::memory::{KeyOnRail, RemoteCheck, RemoteTable};

/// Iovs with the keys of a further rail in the place of those of the first.
///
/// A descriptor names memory by its key on the first rail, by which it is checked. On another rail the memory at that address has
/// another key, which is that of the region there that holds the range, or of a segment of it. One without such a key is passed on as it
/// is, and [`OnRail::fits`] is false from then on: what was made of the iovs is to be thrown away.
#[derive(Debug)]
pub struct OnRail<'a, S: ?Sized> {
    source: &'a S,
    first: &'a RemoteTable,
    rail: &'a RemoteTable,
    opcode: Opcode,
    /// The memory of the last iov that is in one segment: neighbours mostly share it.
    last: Cell<KeyOnRail>,
    fits: Cell<bool>,
}

impl<'a, S: IovSource + ?Sized> OnRail<'a, S> {
    /// `first` and `rail` are the peer's regions on both rails.
    pub fn new(source: &'a S, first: &'a RemoteTable, rail: &'a RemoteTable, opcode: Opcode) -> Self {
        Self { source, first, rail, opcode, last: Cell::default(), fits: Cell::new(true) }
    }

    /// Whether each iov that was asked for until now has a key on this rail.
    pub fn fits(&self) -> bool {
        self.fits.get()
    }

    #[inline(always)]
    fn on_rail(&self, iov: Iov) -> Iov {
        let (first, address, length) = (iov.remote.rkey, iov.remote.address, iov.length);
        // By its numbers: an iov that is referred to would be written to the stack, each of them.
        let found = self.last.get().of(first, address, length).or_else(|| self.find(first, address, length));
        let Some(rkey) = found else {
            self.fits.set(false);
            return iov;
        };
        Iov { remote: RemoteRange { rkey, ..iov.remote }, ..iov }
    }

    #[inline(never)]
    fn find(&self, rkey: u32, address: u64, length: u64) -> Option<u32> {
        if !self.fits.get() {
            // What is made of the others is thrown away.
            return None;
        }
        let opcode = self.opcode;
        if let RemoteCheck::Inside(first) = self.first.check(rkey, address, length) {
            if first.read_only && opcode == Opcode::Write {
                return None;
            }
            if let Some(rail) = self.rail.key_for(rkey, address, length, opcode) {
                self.last.set(KeyOnRail::new(&first, &rail));
                return Some(rail.rkey);
            }
        }
        // Of one that is in several segments each has a key of its own, which is found when the iov is cut.
        self.rail.key_across(self.first, rkey, address, length, opcode)
    }
}

impl<S: IovSource + ?Sized> IovSource for OnRail<'_, S> {
    #[inline]
    fn len(&self) -> usize {
        self.source.len()
    }
    #[inline]
    fn iovs(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.source.iovs(range).map(|iov| self.on_rail(iov))
    }
    #[inline]
    fn lengths(&self) -> impl Iterator<Item = u64> {
        self.source.lengths()
    }
    #[inline]
    fn named(&self, range: Range<usize>) -> impl Iterator<Item = Iov> {
        self.source.named(range)
    }
    #[inline]
    fn last_key(&self) -> Option<KeyOnRail> {
        Some(self.last.get())
    }
}
