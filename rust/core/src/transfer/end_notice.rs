//! What is told of the end of a transfer: for callers that neither ask nor sleep.

use std::fmt::Debug;
use std::sync::Arc;

use super::{TransferGeneration, TransferId};
use crate::pool::{EndState, OwnedDriveGuard};

/// Told once of the end of a transfer.
pub(crate) trait AtEnd: Debug + Send + Sync {
    /// The transfer has ended like that; `None` if it was asked about before, and how it ended is not remembered any more. Its
    /// record may be another transfer's already: nothing is to be read from it.
    ///
    /// The calling thread may hold a worker's lock: nothing here may wait, run code of the program, or drop what may be the last
    /// reference to a connection. What must do so goes to [`Worker::run_soon`](crate::pool::Worker::run_soon).
    fn ended(self: Arc<Self>, state: Option<EndState>);

    /// Whether it is told of the end even if another one takes its place.
    fn stays(&self) -> bool {
        false
    }
}

/// An [`AtEnd`] of one generation of a record; in the record until that ends.
#[derive(Debug)]
pub(crate) struct EndNotice {
    id: TransferId,
    generation: TransferGeneration,
    at_end: Arc<dyn AtEnd>,
    /// What stays of the notices that this one has taken the place of.
    former: Vec<Arc<dyn AtEnd>>,
    /// Keeps the threads of the workers driving until then.
    _driving: Vec<OwnedDriveGuard>,
}

impl EndNotice {
    pub(crate) fn new(
        id: TransferId,
        generation: TransferGeneration,
        at_end: Arc<dyn AtEnd>,
        driving: Vec<OwnedDriveGuard>,
    ) -> Self {
        Self { id, generation, at_end, former: Vec::new(), _driving: driving }
    }

    /// The transfer's.
    pub(super) fn id(&self) -> TransferId {
        self.id
    }

    pub(super) fn generation(&self) -> TransferGeneration {
        self.generation
    }

    /// Takes the place of a notice of the same generation.
    pub(super) fn replace(&mut self, former: &Self) {
        self.former.clone_from(&former.former);
        self.former.extend(Some(&former.at_end).filter(|at_end| at_end.stays()).cloned());
    }

    pub(super) fn fire(self, state: Option<EndState>) {
        self.former.into_iter().for_each(|at_end| at_end.ended(state));
        self.at_end.ended(state);
    }
}
