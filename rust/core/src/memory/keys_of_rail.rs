//! What the table of a further rail says: the keys that memory of the peer has there, which descriptors name by its key on the first rail.
//!
//! A key is good for what the caller has checked against the table of the first rail, by the key there: that the peer has registered
//! other memory at the address since, the table of a further rail may not know yet.

use super::remote_level::Entry;
use super::remote_table::{RemoteRegion, RemoteTable};
use crate::fabric::Opcode;

impl RemoteTable {
    /// The region, or segment, by which an operation may reach a range that has this key on the first rail. `None` without one, also for a
    /// range that is in several segments: see [`RemoteTable::key_at`] and [`RemoteTable::key_across`].
    pub fn key_for(
        &self,
        first_rkey: u32,
        address: u64,
        length: u64,
        opcode: Opcode,
    ) -> Option<RemoteRegion> {
        let allows = |entry: &Entry| !(opcode == Opcode::Write && entry.region.read_only);
        let counts =
            |entry: &Entry| entry.first_rkey == Some(first_rkey) && allows(entry) && !self.is_gone(entry);
        let newest_first = self.levels.iter().rev();
        newest_first
            .filter_map(|level| level.newest(address, length, counts))
            .map(|entry| entry.region)
            .next()
    }

    /// As [`RemoteTable::key_for`], with how many bytes of the range it is for: all if one holds them, else those up to the end of the one
    /// that has the first byte.
    pub fn key_at(
        &self,
        first_rkey: u32,
        address: u64,
        length: u64,
        opcode: Opcode,
    ) -> Option<(RemoteRegion, u64)> {
        if let Some(whole) = self.key_for(first_rkey, address, length, opcode) {
            return Some((whole, length));
        }
        let region = self.key_for(first_rkey, address, 1, opcode)?;
        Some((region, length.min(region.size - (address - region.base))))
    }

    /// The key on the first rail of a range that has this key here, and how many bytes of it have that key.
    pub fn first_key_at(&self, rkey: u32, address: u64, length: u64) -> Option<(u32, u64)> {
        let entries = || self.levels.iter().flat_map(|level| level.of_key(rkey));
        let of = |length| {
            let mut holding =
                entries().filter(move |entry| entry.holds(address, length) && !self.is_gone(entry));
            holding.find_map(|entry| Some((entry.first_rkey?, entry.region)))
        };
        if let Some((first_rkey, _)) = of(length) {
            return Some((first_rkey, length));
        }
        let (first_rkey, region) = of(1)?;
        Some((first_rkey, length.min(region.size - (address - region.base))))
    }

    /// A key of a range that is in several segments here, or on the first rail, of which `first` is the table: by it
    /// [`RemoteTable::segments`] finds all that are here. `None` if any part of the range is not known here as the same memory, or may not
    /// be used so.
    #[cold]
    pub fn key_across(
        &self,
        first: &Self,
        first_rkey: u32,
        address: u64,
        length: u64,
        opcode: Opcode,
    ) -> Option<u32> {
        let on_first = first.segments(first_rkey, address, length)?;
        let rkey = self.key_for(on_first.first()?.rkey, address, 1, opcode)?.rkey;
        let here = self.entries_across(rkey, address, length)?;
        let range_end = address.checked_add(length)?;
        // Each is cut where the first rail's are, if the peer makes no mistake: one that goes on into another segment would have its key there.
        let is_same = |entry: &Entry| {
            let start = entry.region.base.max(address);
            let of_start = on_first.partition_point(|segment| segment.base <= start).checked_sub(1);
            let of_start = of_start.and_then(|at| on_first.get(at));
            let end = entry.end().map_or(range_end, |end| end.min(range_end));
            of_start.is_some_and(|segment| {
                entry.first_rkey == Some(segment.rkey) && end <= segment.base.saturating_add(segment.size)
            })
        };
        let forbids = |region: &RemoteRegion| opcode == Opcode::Write && region.read_only;
        let is_allowed = !on_first.iter().chain(here.iter().map(|entry| &entry.region)).any(forbids);
        (is_allowed && here.into_iter().all(is_same)).then_some(rkey)
    }
}
