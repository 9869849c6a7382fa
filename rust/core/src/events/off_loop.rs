//! Values of tasks that a helper thread drops, because dropping them may block.

use std::sync::{Arc, Weak};

use scopeguard::ScopeGuard;

use super::EventLoopHandle;

/// Calls `with` with the value if it still exists. If all other references are dropped meanwhile, a helper thread
/// drops the value: dropping it in a task might block the loop.
pub(crate) fn with_upgraded<T, R>(
    handle: &EventLoopHandle,
    value: &Weak<T>,
    with: impl FnOnce(&Arc<T>) -> R,
) -> Option<R>
where
    T: Send + Sync + 'static,
{
    let value = value.upgrade()?;
    let result = with(&value);
    if let Some(last) = Arc::into_inner(value) {
        handle.detach(move || drop(last));
    }
    Some(result)
}

/// Holds `value` in a task. Dropped with the guard, it is dropped by a helper thread.
pub(crate) fn off_loop<T: Send + 'static>(
    handle: &EventLoopHandle,
    value: T,
) -> ScopeGuard<T, impl FnOnce(T) + use<T>> {
    let handle = handle.clone();
    scopeguard::guard(value, move |value| handle.detach(move || drop(value)))
}
