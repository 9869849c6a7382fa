//! The function that a GPU runtime calls on the host once a stream has come so far.
#![allow(unsafe_code, reason = "gives a notifier to C code and takes it back")]

use std::ffi::c_void;
use std::sync::Arc;

use crate::events::Notifier;

/// Type of the function, as the runtimes declare it.
pub(super) type HostFn = unsafe extern "C" fn(*mut c_void);

/// Has `launch` hand [`called`] and its argument to the runtime. If that fails the function will not be called, and nothing
/// is left behind; if the runtime drops the call later, as on a stream of a failed context, the notifier stays until the
/// process ends.
pub(super) fn launch<E>(
    notifier: &Arc<Notifier>,
    launch: impl FnOnce(HostFn, *mut c_void) -> Result<(), E>,
) -> Result<(), E> {
    let argument = Arc::into_raw(Arc::clone(notifier));
    let launched = launch(called, argument.cast_mut().cast::<c_void>());
    if launched.is_err() {
        // SAFETY: the pointer is of `into_raw` just above, and the runtime has not taken it.
        drop(unsafe { Arc::from_raw(argument) });
    }
    launched
}

/// # Safety
/// `argument` is that of [`launch`], and this is its only call.
unsafe extern "C" fn called(argument: *mut c_void) {
    // SAFETY: the caller's promise.
    let notifier = unsafe { Arc::from_raw(argument.cast_const().cast::<Notifier>()) };
    notifier.notify();
}
