//! A name that is published in etcd.

use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::internals::fork::OfProcess;

use super::keeper::{Keeper, Place};
use crate::lease::Held;
use crate::{Error, Name};

/// Keeps the directory, and with it the lease.
#[derive(Debug)]
pub(super) struct Published {
    keeper: Arc<OfProcess<Keeper>>,
    name: Name,
    place: Arc<Place>,
}

impl Published {
    pub(super) fn new(keeper: Arc<OfProcess<Keeper>>, name: Name, place: Arc<Place>) -> Self {
        Self { keeper, name, place }
    }
}

impl Held for Published {
    fn lost(&self) -> bool {
        self.place.is_lost()
    }

    fn withdraw(&self, deadline: Instant) -> Result<(), Error> {
        // In a forked child the name stays: it is the parent's.
        let Ok(keeper) = OfProcess::here(&self.keeper) else { return Ok(()) };
        keeper.withdraw(&self.name, &self.place, deadline)
    }
}

impl Drop for Published {
    /// Nothing is left to do for one that was withdrawn.
    fn drop(&mut self) {
        let Ok(keeper) = OfProcess::here(&self.keeper) else { return };
        if let Err(error) = self.withdraw(Instant::now() + keeper.patience()) {
            tracing::warn!(
                name = %self.name,
                %error,
                "not withdrawn yet: it is tried again, and the name vanishes with the time of its lease at the latest"
            );
        }
    }
}
