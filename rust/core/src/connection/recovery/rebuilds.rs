//! Queue pairs that are to take the place of broken ones, until they do.

use crate::fabric::QueuePair;
use crate::sync::{Mutex, lock};

/// Our half of one attempt to rebuild a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct Half {
    pub(in crate::connection) lane: usize,
    pub(in crate::connection) attempt: u32,
}

/// Created and not installed. The connection's task puts and takes them; the end of the connection destroys them.
#[derive(Debug, Default)]
pub(in crate::connection) struct Rebuilds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    halves: Vec<(Half, Box<dyn QueuePair>)>,
    ended: bool,
}

impl Rebuilds {
    /// Keeps a queue pair; not once the connection has ended, when none is wanted.
    pub(super) fn put(&self, half: Half, queue_pair: Box<dyn QueuePair>) {
        let mut state = lock(&self.0);
        if !state.ended {
            state.halves.push((half, queue_pair));
        }
    }

    pub(super) fn take(&self, half: Half) -> Option<Box<dyn QueuePair>> {
        let mut state = lock(&self.0);
        let index = state.halves.iter().position(|(kept, _)| *kept == half)?;
        Some(state.halves.swap_remove(index).1)
    }

    /// The connection has ended: destroys them, because the peer may be connected to them.
    pub(in crate::connection) fn end(&self) {
        let mut state = lock(&self.0);
        state.ended = true;
        let halves = std::mem::take(&mut state.halves);
        drop(state);
        drop(halves);
    }
}
