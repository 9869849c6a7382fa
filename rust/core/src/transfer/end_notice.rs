//! What is told of the end of a transfer: for callers that neither ask nor sleep.

use std::fmt::Debug;
use std::sync::Arc;

use super::TaskGeneration;
use crate::pool::Attending;

/// Told once of the end of a transfer.
pub(crate) trait AtEnd: Debug + Send + Sync {
    /// The transfer has ended. The calling thread may hold a worker's lock: nothing here may wait, run code of the program,
    /// or drop what may be the last reference to a connection. What must do so goes to
    /// [`Worker::run_soon`](crate::pool::Worker::run_soon).
    fn ended(self: Arc<Self>);
}

/// An [`AtEnd`] of one generation of a task; in the task until that ends.
#[derive(Debug)]
pub(crate) struct EndNotice {
    generation: TaskGeneration,
    at_end: Arc<dyn AtEnd>,
    /// Keeps the threads of the workers driving until then.
    _attending: Vec<Attending>,
}

impl EndNotice {
    pub(crate) fn new(generation: TaskGeneration, at_end: Arc<dyn AtEnd>, attending: Vec<Attending>) -> Self {
        Self { generation, at_end, _attending: attending }
    }

    pub(super) fn generation(&self) -> TaskGeneration {
        self.generation
    }

    pub(super) fn fire(self) {
        self.at_end.ended();
    }
}
