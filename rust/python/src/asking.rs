//! Whether this thread may ask a peer for a region, which takes up to a second: an event loop's may not.

use std::cell::Cell;

thread_local! {
    static ALLOWED: Cell<bool> = const { Cell::new(true) };
    static MISSED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the peer may be asked; if not, notes that it would have been.
pub(crate) fn is_allowed() -> bool {
    let allowed = ALLOWED.get();
    if !allowed {
        MISSED.set(true);
    }
    allowed
}

/// Makes a call that asks no peer. `None` if it had to.
pub(crate) fn without<T, E>(call: impl FnOnce() -> Result<T, E>) -> Result<Option<T>, E> {
    ALLOWED.set(false);
    MISSED.set(false);
    let answer = call();
    ALLOWED.set(true);
    match answer {
        Err(_) if MISSED.get() => Ok(None),
        answer => answer.map(Some),
    }
}
