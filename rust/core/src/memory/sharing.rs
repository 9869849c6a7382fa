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

    /// What is shared, made by `make` unless it is there. `None` if that fails now, or has failed for good. `make` is called
    /// without a lock; of two that are made at a time one is dropped.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> Result<Share, GpuError>) -> Option<Arc<Share>> {
        if let Some(answer) = lock(&self.0).answer() {
            return answer;
        }
        let made = match make() {
            Ok(share) => State::Shared(Arc::new(share)),
            Err(GpuError::Unsupported { .. } | GpuError::NotShared { .. }) => State::Refused,
            // It may pass: no descriptors left, no memory.
            Err(_) => return None,
        };
        // Declared before the lock is taken, so dropped after it.
        let _not_needed;
        let mut state = lock(&self.0);
        match *state {
            State::NotAsked => *state = made,
            _ => _not_needed = made,
        }
        state.answer().flatten()
    }

    /// No process opens the memory any more. What is open stays so.
    pub(super) fn end(&self) {
        // Dropped without the lock: it may have many files.
        let former = std::mem::replace(&mut *lock(&self.0), State::Ended);
        drop(former);
    }
}

impl State {
    /// `None` if it is not known yet.
    fn answer(&self) -> Option<Option<Arc<Share>>> {
        match self {
            Self::NotAsked => None,
            Self::Shared(share) => Some(Some(Arc::clone(share))),
            Self::Refused | Self::Ended => Some(None),
        }
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use super::*;

    fn share() -> Share {
        Share::played([1; 64])
    }

    #[test]
    fn a_failure_that_may_pass_is_not_kept() {
        let sharing = Sharing::new();
        let (runtime, operation) = ("played", "share memory");
        let failed = GpuError::Call { runtime, operation, code: 24, text: String::new() };
        assert!(sharing.get_or_make(|| Err(failed)).is_none());
        assert!(sharing.get_or_make(|| Ok(share())).is_some());
    }

    #[test]
    fn memory_without_a_way_to_be_shared_is_asked_once() {
        let (runtime, operation) = ("played", "share memory");
        for refusal in [
            GpuError::Unsupported { runtime, operation },
            GpuError::NotShared { reason: "of no file".to_owned() },
        ] {
            let sharing = Sharing::new();
            assert!(sharing.get_or_make(|| Err(refusal)).is_none());
            assert!(sharing.get_or_make(|| panic!("asked again")).is_none());
        }
    }

    #[test]
    fn the_driver_is_asked_outside_the_lock() {
        let sharing = Sharing::new();
        let other = [2; 64];
        let first = sharing.get_or_make(|| {
            assert_eq!(sharing.get_or_make(|| Ok(Share::played(other))).unwrap().handle, other);
            Ok(share())
        });
        assert_eq!(first.unwrap().handle, other, "peers have that one already");
    }

    #[test]
    fn what_is_made_after_the_end_is_not_shared() {
        let sharing = Sharing::new();
        let made = sharing.get_or_make(|| {
            sharing.end();
            Ok(share())
        });
        assert!(made.is_none());
        assert!(sharing.get_or_make(|| panic!("asked again")).is_none());
    }
}
