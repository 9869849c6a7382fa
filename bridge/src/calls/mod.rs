//! Bodies of the bridge's functions, one file per family.

pub(crate) mod engine;
pub(crate) mod info;
pub(crate) mod memory;
pub(crate) mod notify;
pub(crate) mod transfer;

use std::borrow::Cow;

/// Text of C++, which need not be UTF-8; what is not is replaced and will not be found.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
