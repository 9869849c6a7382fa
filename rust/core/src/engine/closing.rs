//! One thread at a time closes an engine; others that do wait for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Instant;

/// Which thread closes an engine. A forked child never comes here: its copy may be locked for ever.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// Locked for moments.
    thread: Mutex<Option<ThreadId>>,
    ended: Condvar,
}

/// What the caller, which is to close the engine, finds.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    /// No other thread closes it until this is dropped.
    Own(Closer<'a>),
    /// The calling thread does so already: it has called a callback, which has called this.
    Nested,
    /// Another thread does, and has not ended by the deadline.
    Late,
}

/// Ends the turn of its thread.
#[derive(Debug)]
pub(super) struct Closer<'a>(&'a Closing);

impl Closing {
    /// Waits until no other thread closes the engine, at most until the deadline.
    pub(super) fn begin(&self, deadline: Instant) -> Turn<'_> {
        let own = thread::current().id();
        let mut closer = self.lock();
        while let Some(other) = *closer {
            if other == own {
                return Turn::Nested;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Turn::Late;
            }
            closer = self.ended.wait_timeout(closer, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *closer = Some(own);
        Turn::Own(Closer(self))
    }

    fn lock(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Closer<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
        self.0.ended.notify_all();
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_thread_waits_and_the_same_thread_does_not() {
        let closing = Closing::default();
        let closer = closing.begin(Instant::now());
        assert!(matches!(closer, Turn::Own(_)));
        assert!(matches!(closing.begin(Instant::now() + Duration::from_secs(60)), Turn::Nested));
        thread::scope(|scope| {
            let late = scope.spawn(|| matches!(closing.begin(Instant::now()), Turn::Late));
            assert!(late.join().is_ok_and(|late| late));
            let next = scope
                .spawn(|| matches!(closing.begin(Instant::now() + Duration::from_secs(60)), Turn::Own(_)));
            drop(closer);
            assert!(next.join().is_ok_and(|next| next));
        });
    }
}
