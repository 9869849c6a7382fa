//! The iovs of a transfer as a further rail needs them: with the keys that the peer's memory has there.

use std::cell::Cell;
use std::ops::Range;

use super::{Iov, IovSource, RemoteRange};
use crate::fabric::Opcode;
use crate::memory::{RemoteCheck, RemoteRegion, RemoteTable, holds};

/// Iovs with the keys of a further rail in the place of those of the first.
///
/// A descriptor names memory by its key on the first rail, by which it is checked. On another rail the memory at that address has
/// another key, which is that of the region there that holds the range. One without such a key is passed on as it is, and
/// [`OnRail::fits`] is false from then on: what was made of the iovs is to be thrown away.
#[derive(Debug)]
pub struct OnRail<'a, S: ?Sized> {
    source: &'a S,
    first: &'a RemoteTable,
    rail: &'a RemoteTable,
    opcode: Opcode,
    /// The regions of the last iov, on the first rail and on this one: neighbours mostly share them.
    last: Cell<(RemoteRegion, RemoteRegion)>,
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

    fn on_rail(&self, iov: Iov) -> Iov {
        let (address, length) = (iov.remote.address, iov.length);
        let (first, rail) = self.last.get();
        let rkey = if first.holds(iov.remote.rkey, address, length)
            && holds(rail.base, rail.size, address, length)
        {
            rail.rkey
        } else {
            match self.find(&iov) {
                Some(rkey) => rkey,
                None => {
                    self.fits.set(false);
                    return iov;
                }
            }
        };
        Iov { remote: RemoteRange { rkey, ..iov.remote }, ..iov }
    }

    fn find(&self, iov: &Iov) -> Option<u32> {
        let (address, length) = (iov.remote.address, iov.length);
        let RemoteCheck::Inside(first) = self.first.check(iov.remote.rkey, address, length) else {
            return None;
        };
        if first.read_only && self.opcode == Opcode::Write {
            return None;
        }
        let rail = self.rail.key_for(iov.remote.rkey, address, length, self.opcode)?;
        self.last.set((first, rail));
        Some(rail.rkey)
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
}
