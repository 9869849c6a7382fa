//! The one place where an error becomes a refused call: a log line, the calling thread's last error, and -1 or null.

use std::cell::RefCell;
use std::fmt::Display;
use std::ptr;

use crate::logging::of_kind;

/// The answer of a call that succeeded.
pub(crate) const OK: i32 = 0;
/// The answer of a refused call.
pub(crate) const REFUSED: i32 = -1;

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a C call answers for a core call's result.
pub(crate) trait OrRefuse<T> {
    /// The value, or `None` after the refusal was logged and remembered under `call`, the name of the C function.
    fn or_refuse(self, call: &str) -> Option<T>;

    /// 0 after `keep` took the value, or -1.
    fn status(self, call: &str, keep: impl FnOnce(T)) -> i32
    where
        Self: Sized,
    {
        match self.or_refuse(call) {
            Some(value) => {
                keep(value);
                OK
            }
            None => REFUSED,
        }
    }

    /// The pointer that `give` makes of the value, or null.
    fn pointer<P>(self, call: &str, give: impl FnOnce(T) -> *mut P) -> *mut P
    where
        Self: Sized,
    {
        self.or_refuse(call).map_or(ptr::null_mut(), give)
    }
}

impl<T, E: Display> OrRefuse<T> for Result<T, E> {
    fn or_refuse(self, call: &str) -> Option<T> {
        self.inspect_err(|error| refuse(call, error)).ok()
    }
}

/// Logs and remembers that `call` was refused. Refusals in a row are counted by call in the log, and each is remembered.
#[cold]
pub(crate) fn refuse(call: &str, reason: &dyn Display) {
    let text = format!("{call}: {reason}");
    of_kind(call, || tracing::warn!(target: "flagcx_p2p", "{text}"));
    remember(text);
}

/// [`refuse`] for what a correct program causes as well: an info line, not a warning.
#[cold]
pub(crate) fn decline(call: &str, reason: &dyn Display) {
    let text = format!("{call}: {reason}");
    of_kind(call, || tracing::info!(target: "flagcx_p2p", "{text}"));
    remember(text);
}

/// Remembers, without a log line, that `call` was refused: for calls that are repeated until they answer otherwise.
#[cold]
pub(crate) fn note(call: &str, reason: &dyn Display) {
    remember(format!("{call}: {reason}"));
}

fn remember(text: String) {
    // A thread that is ending has no last error any more.
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
}

/// [`refuse`] for the facade, which checks for null arguments by itself.
pub(crate) fn refuse_call(call: &str, reason: &str) {
    refuse(call, &reason);
}

/// Why the last refused call of this thread was refused; empty before the first.
pub(crate) fn last_error() -> String {
    LAST_ERROR.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_remembered_with_its_call_and_only_by_its_thread() {
        let refused: Result<u32, &str> = Err("because");
        assert_eq!(refused.status("someCall", |_| panic!("there is no value")), REFUSED);
        assert_eq!(last_error(), "someCall: because");
        assert_eq!(std::thread::spawn(last_error).join().unwrap(), "");
    }

    #[test]
    fn an_answer_is_handed_over_and_leaves_the_last_error() {
        refuse("earlierCall", &"because");
        let mut kept = 0;
        assert_eq!(Ok::<_, &str>(7).status("someCall", |value| kept = value), OK);
        assert_eq!(kept, 7);
        assert_eq!(last_error(), "earlierCall: because");
    }
}
