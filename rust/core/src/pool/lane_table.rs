//! All lanes of a worker.

use std::sync::Arc;

use super::PoolError;
use super::lane::{Lane, LaneSetup};
use super::lane_key::LaneKey;
use crate::fabric::WorkQueue;
use crate::observe::TransferCounts;

/// All lanes of a worker.
#[derive(Debug, Default)]
pub(super) struct Lanes(Vec<LaneEntry>);

#[derive(Debug)]
struct LaneEntry {
    generation: u16,
    /// Its lane is being destroyed: it serves no other one before that is done.
    reserved: bool,
    /// Where the parts of the lane that it had last are counted.
    counts: Option<Arc<TransferCounts>>,
    // In a box: what moves when the table grows, or is looked through, is one word.
    lane: Option<Box<Lane>>,
}

impl Lanes {
    /// Takes a connected queue pair as a new lane.
    pub(super) fn insert(
        &mut self,
        queue_pair: Box<dyn WorkQueue>,
        setup: LaneSetup,
    ) -> Result<LaneKey, PoolError> {
        let index = match self.0.iter().position(|entry| entry.lane.is_none() && !entry.reserved) {
            Some(index) => index,
            None => {
                self.0.push(LaneEntry { generation: 0, reserved: false, counts: None, lane: None });
                self.0.len() - 1
            }
        };
        let (Ok(index), Some(entry)) = (u16::try_from(index), self.0.get_mut(index)) else {
            return Err(PoolError::TooManyLanes);
        };
        entry.generation = entry.generation.wrapping_add(1);
        let key = LaneKey::new(index, entry.generation);
        entry.lane = Some(Box::new(Lane::new(key, queue_pair, setup)));
        Ok(key)
    }

    /// The lane with an index, of whatever generation.
    #[inline]
    pub(super) fn at(&mut self, index: u16) -> Option<&mut Lane> {
        self.0.get_mut(usize::from(index))?.lane.as_deref_mut()
    }

    /// The lane of a key, unless it is gone.
    #[inline]
    pub(super) fn get(&mut self, key: LaneKey) -> Option<&mut Lane> {
        self.at(key.index()).filter(|lane| lane.key == key)
    }

    /// Takes the lane of a key out.
    pub(super) fn remove(&mut self, key: LaneKey) -> Option<Box<Lane>> {
        let entry = self.0.get_mut(usize::from(key.index()))?;
        let lane = entry.lane.take_if(|lane| lane.key == key)?;
        entry.counts = Some(Arc::clone(&lane.counts));
        Some(lane)
    }

    /// Where the parts of a lane are counted that is gone, unless another one has its place.
    pub(super) fn counts_of_gone(&self, key: LaneKey) -> Option<Arc<TransferCounts>> {
        let entry = self.0.get(usize::from(key.index()))?;
        entry.counts.clone().filter(|_| LaneKey::new(key.index(), entry.generation) == key)
    }

    /// Takes the lane of a name out, and reserves its place until [`Lanes::free`].
    pub(super) fn detach(&mut self, key: LaneKey) -> Option<Box<Lane>> {
        let lane = self.remove(key)?;
        self.reserve(key, true);
        Some(lane)
    }

    /// Whether the lane of a name was detached and its place is not free yet.
    pub(super) fn is_detached(&self, key: LaneKey) -> bool {
        let slot = self.0.get(usize::from(key.index()));
        slot.is_some_and(|slot| slot.reserved && LaneKey::new(key.index(), slot.generation) == key)
    }

    /// The place of a lane that was detached may serve another one.
    pub(super) fn free(&mut self, key: LaneKey) {
        self.reserve(key, false);
    }

    fn reserve(&mut self, key: LaneKey, reserved: bool) {
        if let Some(slot) = self.0.get_mut(usize::from(key.index())) {
            slot.reserved = reserved;
        }
    }

    /// Whether there is none, healthy or not.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|entry| entry.lane.is_none())
    }

    /// All indices, with a lane or without.
    pub(super) fn indices(&self) -> impl Iterator<Item = u16> + use<> {
        (0..=u16::MAX).take(self.0.len())
    }
}
