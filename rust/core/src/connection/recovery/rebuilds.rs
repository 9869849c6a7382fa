//! Queue pairs that are to take the place of broken ones, until they do.

use crate::events::Task;
use crate::fabric::QueuePair;
use crate::sync::{Mutex, lock};

/// Our half of one attempt to rebuild a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct AttemptId {
    pub(in crate::connection) lane: usize,
    pub(in crate::connection) attempt: u32,
}

/// The halves of a connection, and the commands that make them. The connection's task fills it; the end of the connection
/// stops the commands and destroys what there is, because the peer may be connected to it.
#[derive(Debug, Default)]
pub(in crate::connection) struct Rebuilds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Created, and not installed.
    halves: Vec<(AttemptId, Box<dyn QueuePair>)>,
    /// Creations and connects under way, or ended since another one began.
    commands: Vec<Task>,
    ended: bool,
}

impl Rebuilds {
    /// Keeps a queue pair; destroys it once the connection has ended.
    pub(super) fn put(&self, id: AttemptId, queue_pair: Box<dyn QueuePair>) {
        let mut state = lock(&self.0);
        if !state.ended {
            state.halves.push((id, queue_pair));
        }
    }

    pub(super) fn take(&self, id: AttemptId) -> Option<Box<dyn QueuePair>> {
        lock(&self.0).take(id)
    }

    /// Calls `install` with a queue pair that is still here. The end of the connection waits for it.
    pub(super) fn install(&self, id: AttemptId, install: impl FnOnce(Box<dyn QueuePair>)) {
        let mut state = lock(&self.0);
        if let Some(queue_pair) = state.take(id) {
            install(queue_pair);
        }
    }

    /// Keeps a command until it has ended.
    pub(super) fn add_command(&self, command: Task) {
        let mut state = lock(&self.0);
        state.commands.retain(|command| !command.is_ended());
        state.commands.push(command);
    }

    /// The connection has ended: stops what is under way, and destroys the queue pairs.
    pub(in crate::connection) fn end(&self) {
        // Stopped commands give back what they hold, so not under the lock.
        let commands = std::mem::take(&mut lock(&self.0).commands);
        drop(commands);
        let mut state = lock(&self.0);
        state.ended = true;
        let halves = std::mem::take(&mut state.halves);
        drop(state);
        drop(halves);
    }
}

impl State {
    fn take(&mut self, id: AttemptId) -> Option<Box<dyn QueuePair>> {
        let index = self.halves.iter().position(|(kept, _)| *kept == id)?;
        Some(self.halves.swap_remove(index).1)
    }
}
