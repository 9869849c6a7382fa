//! New queue pairs that are to replace broken ones, until they are installed.

use crate::connection::path_trial::PathTrial;
use crate::events::Task;
use crate::fabric::QueuePair;
use crate::sync::{Mutex, lock};

/// Identifies one attempt to rebuild a lane, and its new queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct AttemptId {
    pub(in crate::connection) lane: usize,
    pub(in crate::connection) attempt: u32,
}

/// Identifies the trial of a path, and its queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct TrialId {
    pub(in crate::connection) rail: usize,
    pub(in crate::connection) number: u32,
}

/// The new queue pairs of a connection, and the commands that create them. Filled by the connection's task; the end
/// of the connection stops the commands and destroys the queue pairs, because the peer may be connected to them.
#[derive(Debug, Default)]
pub(in crate::connection) struct Rebuilds(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Created, and not installed.
    queue_pairs: Vec<(AttemptId, Box<dyn QueuePair>)>,
    /// Of trials of paths.
    trials: Vec<(TrialId, PathTrial)>,
    /// Commands under way, or ended since another one began.
    commands: Vec<Task>,
    ended: bool,
}

impl Rebuilds {
    /// Stores a queue pair; gives it back when the connection has ended, to be destroyed off the loop.
    #[must_use]
    pub(super) fn put(&self, id: AttemptId, queue_pair: Box<dyn QueuePair>) -> Option<Box<dyn QueuePair>> {
        let mut state = lock(&self.0);
        if state.ended {
            return Some(queue_pair);
        }
        state.queue_pairs.push((id, queue_pair));
        None
    }

    /// The same for the queue pair of a trial.
    #[must_use]
    pub(super) fn put_trial(&self, id: TrialId, trial: PathTrial) -> Option<PathTrial> {
        let mut state = lock(&self.0);
        if state.ended {
            return Some(trial);
        }
        state.trials.push((id, trial));
        None
    }

    pub(super) fn take_trial(&self, id: TrialId) -> Option<PathTrial> {
        let mut state = lock(&self.0);
        let index = state.trials.iter().position(|(kept, _)| *kept == id)?;
        Some(state.trials.swap_remove(index).1)
    }

    /// Has the device of a trial go on, where that is work of this process; false if there is no such trial any more.
    pub(super) fn advance_trial(&self, id: TrialId) -> bool {
        let mut state = lock(&self.0);
        let trial = state.trials.iter_mut().find(|(kept, _)| *kept == id);
        trial.map(|(_, trial)| trial.advance()).is_some()
    }

    pub(super) fn take(&self, id: AttemptId) -> Option<Box<dyn QueuePair>> {
        lock(&self.0).take(id)
    }

    /// Calls `install` with the queue pair of `id`, if it is still stored. The end of the connection waits for the
    /// call.
    pub(super) fn install(&self, id: AttemptId, install: impl FnOnce(Box<dyn QueuePair>)) {
        let mut state = lock(&self.0);
        if let Some(queue_pair) = state.take(id) {
            install(queue_pair);
        }
    }

    /// Stores a command until it has ended.
    pub(super) fn add_command(&self, command: Task) {
        let mut state = lock(&self.0);
        state.commands.retain(|command| !command.is_ended());
        state.commands.push(command);
    }

    /// The connection has ended: stops the commands and destroys the queue pairs.
    pub(in crate::connection) fn end(&self) {
        // Stopped commands store their queue pairs, which takes the lock: so not under it.
        let commands = std::mem::take(&mut lock(&self.0).commands);
        drop(commands);
        let mut state = lock(&self.0);
        state.ended = true;
        let left = (std::mem::take(&mut state.queue_pairs), std::mem::take(&mut state.trials));
        drop(state);
        drop(left);
    }
}

impl State {
    fn take(&mut self, id: AttemptId) -> Option<Box<dyn QueuePair>> {
        let index = self.queue_pairs.iter().position(|(kept, _)| *kept == id)?;
        Some(self.queue_pairs.swap_remove(index).1)
    }
}
