//! The lanes of an end, by their indices: those of a rail follow each other.

use std::ops::{Index, IndexMut};

use super::fabric::Lane;
use crate::connection::rail::LANES_PER_RAIL;

/// The lanes of rail 0, and those of rail 1 once it is open.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    rails: [Vec<Lane>; 2],
}

impl Lanes {
    pub(super) fn push(&mut self, rail: usize, lane: Lane) {
        self.rails[rail].push(lane);
    }

    pub(super) fn len(&self) -> usize {
        self.rails.iter().map(Vec::len).sum()
    }

    pub(super) fn of_rail(&self, rail: usize) -> &[Lane] {
        &self.rails[rail]
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = usize> + use<> {
        let [first, second] = self.rails.each_ref().map(Vec::len);
        (0..first).chain(LANES_PER_RAIL..LANES_PER_RAIL + second)
    }

    /// The index of a lane, of all that are there.
    pub(super) fn nth(&self, number: u64) -> usize {
        let number = (number % self.len() as u64) as usize;
        self.indices().nth(number).unwrap()
    }

    pub(super) fn contains(&self, lane: usize) -> bool {
        self.indices().any(|index| index == lane)
    }
}

impl Index<usize> for Lanes {
    type Output = Lane;

    fn index(&self, index: usize) -> &Lane {
        &self.rails[index / LANES_PER_RAIL][index % LANES_PER_RAIL]
    }
}

impl IndexMut<usize> for Lanes {
    fn index_mut(&mut self, index: usize) -> &mut Lane {
        &mut self.rails[index / LANES_PER_RAIL][index % LANES_PER_RAIL]
    }
}
