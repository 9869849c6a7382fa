//! The queue pair of a lane that has none yet.

use crate::fabric::{Batch, FabricError, PathKind, Paths, Posted, QueuePairCaps, WorkQueue};

/// Stands for a queue pair that is to be made. It is drained and takes nothing.
#[derive(Debug)]
pub(super) struct AbsentQueuePair {
    names_failed_request: bool,
    path_fails_as_local: bool,
}

impl AbsentQueuePair {
    pub(super) fn new() -> Self {
        Self { names_failed_request: true, path_fails_as_local: false }
    }

    /// In the place of one that is being destroyed, of which completions may still come.
    pub(super) fn in_place_of(queue_pair: &dyn WorkQueue) -> Self {
        Self {
            names_failed_request: queue_pair.names_failed_request(),
            path_fails_as_local: queue_pair.path_fails_as_local(),
        }
    }
}

impl WorkQueue for AbsentQueuePair {
    fn caps(&self) -> QueuePairCaps {
        QueuePairCaps { send_depth: 0, max_sge: 0, max_inline: 0 }
    }

    fn post(&mut self, _batch: &Batch<'_>) -> Posted {
        Posted::cut(0, libc::ENOTCONN)
    }

    fn set_error(&mut self) -> Result<(), FabricError> {
        Ok(())
    }

    fn is_broken(&self) -> bool {
        true
    }

    fn names_failed_request(&self) -> bool {
        self.names_failed_request
    }

    fn path_fails_as_local(&self) -> bool {
        self.path_fails_as_local
    }

    fn paths(&self) -> Paths {
        Paths::both(PathKind::None)
    }
}
