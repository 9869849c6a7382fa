//! The threads that use something, which closing waits for.

use std::thread;
use std::time::Duration;

use crate::sync::{AtomicU32, Ordering, yield_now};

/// Set in [`Users::state`] once it is closed.
const CLOSED: u32 = 1 << 31;

/// Looks without a pause, before a copy under way is waited for by sleeping: a copy of 64 KiB takes 10 us.
const SPINS: u32 = 100;
const PAUSE: Duration = Duration::from_micros(20);

/// Counts the threads inside. Entering is one addition, and never waits.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// The threads inside, and [`CLOSED`]. Changed by those that enter (Acquire, after what the closing thread did before it is
    /// closed) and leave (Release), and by the closing thread, which waits for zero (Acquire): what those inside did happens
    /// before [`Users::close`] returns.
    state: AtomicU32,
}

/// A thread inside, until this is dropped.
#[derive(Debug)]
pub(super) struct User<'a>(&'a Users);

impl Users {
    /// Enters; `None` once it is closed.
    #[inline]
    pub(super) fn enter(&self) -> Option<User<'_>> {
        let before = self.state.fetch_add(1, Ordering::Acquire);
        // Dropped on both ways out, which gives the count back.
        let user = User(self);
        (before & CLOSED == 0).then_some(user)
    }

    /// Lets no thread enter any more, and waits for those inside. Idempotent.
    pub(super) fn close(&self) {
        let mut looks = 0_u32;
        let mut inside = self.state.fetch_or(CLOSED, Ordering::AcqRel) & !CLOSED;
        while inside != 0 {
            looks = looks.saturating_add(1);
            if looks < SPINS {
                yield_now()
            } else {
                thread::sleep(PAUSE)
            }
            inside = self.state.load(Ordering::Acquire) & !CLOSED;
        }
    }
}

impl Drop for User<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, flagcx_p2p_loom))]
#[allow(clippy::unwrap_used, reason = "tests")]
#[allow(unsafe_code, reason = "loom watches accesses to a cell")]
mod models {
    use loom::cell::UnsafeCell;

    use super::*;
    use crate::sync::Arc;

    /// Memory that a user reads and that is changed behind [`Users::close`]; loom reports accesses that nothing orders.
    #[derive(Default)]
    struct Used(Users, UnsafeCell<u32>);

    // SAFETY: loom reports what two threads would do at a time.
    unsafe impl Sync for Used {}

    #[test]
    fn what_users_do_happens_before_the_close_returns() {
        loom::model(|| {
            let used = Arc::new(Used::default());
            let users: Vec<_> = (0..2)
                .map(|_| {
                    let used = used.clone();
                    loom::thread::spawn(move || {
                        if let Some(_user) = used.0.enter() {
                            used.1.with(|_| ());
                        }
                    })
                })
                .collect();
            used.0.close();
            used.1.with_mut(|_| ());
            users.into_iter().for_each(|user| user.join().unwrap());
        });
    }
}
