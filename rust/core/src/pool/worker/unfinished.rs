//! What has not ended: for operators that look for what is stuck.

use std::collections::HashMap;
use std::time::Duration;

use super::WorkerState;
use crate::fabric::Opcode;
use crate::pool::clock;
use crate::pool::lane_key::LaneKey;

/// A part that has not ended.
#[derive(Clone, Debug)]
pub struct UnfinishedPart {
    /// The address of its owner, to compare.
    pub owner: usize,
    /// Names the use of its owner.
    pub generation: u64,
    /// What it does.
    pub opcode: Opcode,
    /// How its bytes travel.
    pub path: &'static str,
    /// Its bytes.
    pub bytes: u64,
    /// Its work requests.
    pub requests: usize,
    /// How many of these are done.
    pub done: usize,
    /// Since a worker found it first.
    pub age: Duration,
}

impl WorkerState {
    /// How long the oldest part of each lane with parts has not ended, by the lane's number.
    pub fn oldest_ages(&mut self) -> HashMap<u32, Duration> {
        let now = clock::ms(clock::now_ns());
        let mut ages = HashMap::new();
        for index in self.lanes.indices() {
            self.start_clocks(index, now);
            let Some((key, first)) = self.lanes.at(index).map(|lane| (lane.key, lane.parts.first())) else {
                continue;
            };
            let Some(part) = self.parts.get(first) else { continue };
            ages.insert(key.number(), Duration::from_millis(now.saturating_sub(part.since)));
        }
        ages
    }

    /// Adds the parts of a lane that have not ended for at least `older_than`, the oldest first.
    pub fn unfinished(&mut self, key: LaneKey, older_than: Duration, out: &mut Vec<UnfinishedPart>) {
        let now = clock::ms(clock::now_ns());
        self.start_clocks(key.index(), now);
        let Some(lane) = self.lanes.get(key) else { return };
        let (paths, mut next) = (lane.counts.paths(), lane.parts.first());
        while let Some(part) = self.parts.get(next) {
            let age = Duration::from_millis(now.saturating_sub(part.since));
            if age < older_than {
                return;
            }
            next = part.behind();
            let Some(owner) = part.owner else { continue };
            // Those that wait for the rebuild of their lane were flushed, from `rewind` on.
            let posted = part.rewind.unwrap_or(part.cursor);
            out.push(UnfinishedPart {
                owner: std::ptr::from_ref(owner).addr(),
                generation: owner.generation(),
                opcode: part.list.opcode,
                path: paths.of(part.list.opcode.into()),
                bytes: part.list.bytes,
                requests: part.list.len(),
                done: posted.saturating_sub(part.outstanding as usize),
                age,
            });
        }
    }
}
