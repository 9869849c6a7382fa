//! The queue pair of a lane that has none yet.

use crate::fabric::{Batch, FabricError, PathKind, Paths, Posted, QueuePairCaps, WorkQueue};

/// Stands for a queue pair that is to be made. It is drained and takes nothing.
#[derive(Debug)]
pub(super) struct AbsentQueuePair;

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

    fn paths(&self) -> Paths {
        Paths::both(PathKind::None)
    }
}
