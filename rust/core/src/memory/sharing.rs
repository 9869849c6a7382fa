//! What other processes of this host open the GPU memory of a region by: made once, ended with the registration.

use std::sync::Arc;

use crate::gpu::{GpuError, Share};
use crate::sync::{Mutex, lock};

/// How a region is shared with other processes, as far as that has been asked.
#[derive(Debug)]
pub(crate) struct Sharing(Mutex<State>);

#[derive(Debug)]
enum State {
    NotAsked,
    Shared(Arc<Share>),
    /// It has no way to be shared.
    Refused,
    /// The region is being deregistered.
    Ended,
}

impl Sharing {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::NotAsked))
    }

    /// What is shared, made by `make` at the first call. `None` if that has failed, then or earlier.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> Result<Share, GpuError>) -> Option<Arc<Share>> {
        let mut state = lock(&self.0);
        if matches!(*state, State::NotAsked) {
            *state = make().map_or(State::Refused, |share| State::Shared(Arc::new(share)));
        }
        match &*state {
            State::Shared(share) => Some(Arc::clone(share)),
            _ => None,
        }
    }

    /// No process opens the memory any more. What is open stays so.
    pub(super) fn end(&self) {
        *lock(&self.0) = State::Ended;
    }
}
