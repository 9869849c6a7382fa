//! What a connection with several NICs asks of workers.

use std::time::{Duration, Instant};

use super::Worker;
use crate::pool::lane_key::LaneKey;
use crate::pool::taken_part::TakenPart;
use crate::pool::worker::ProbeError;

impl Worker {
    /// Puts parts on a lane, the oldest first, and answers those that the lane does not take. `bit` is that of this worker, see
    /// [`worker_bit`](crate::pool::worker_bit). Its thread goes on with them.
    #[must_use = "parts that are dropped never end"]
    pub fn put_parts(&self, lane: LaneKey, mut parts: Vec<TakenPart>, bit: usize) -> Vec<TakenPart> {
        parts.iter_mut().for_each(TakenPart::count_move);
        self.put_back(lane, parts, bit)
    }

    /// As [`Worker::put_parts`], on the lane that they were taken off.
    #[must_use = "parts that are dropped never end"]
    pub fn put_back(&self, lane: LaneKey, parts: Vec<TakenPart>, bit: usize) -> Vec<TakenPart> {
        let put = |part, state: &mut super::WorkerState| state.put_part(lane, part, bit).err();
        let left = self.with_state(|state| parts.into_iter().filter_map(|part| put(part, state)).collect());
        self.wake_if_parked();
        left
    }

    /// [`WorkerState::post_probe`](super::WorkerState::post_probe), and has the thread look for the answer. For the event loop, which must not
    /// wait: [`ProbeError::Busy`] too if another thread holds the worker's lock for long.
    pub fn post_probe(&self, lane: LaneKey, number: u32, remote: (u64, u32)) -> Result<(), ProbeError> {
        let state = self.lock_until(Some(Instant::now() + LOCK_LIMIT));
        state.ok_or(ProbeError::Busy)?.post_probe(lane, number, remote)?;
        self.wake_if_parked();
        Ok(())
    }
}

/// For how long a probe waits for the worker's lock: longer than it takes to post a list.
const LOCK_LIMIT: Duration = Duration::from_micros(100);
