//! Values that several commands take.

use flagcx_p2p::internals::control::{self, HostError};

use crate::output::units::{bytes, parse_size};

/// `host:port` as it was written: the look-up of a name comes later.
pub(super) fn parse_server(text: &str) -> Result<String, HostError> {
    let (host, port) = control::split_session(text)?;
    control::numeric(host, port)?;
    Ok(text.to_owned())
}

pub(super) fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (least..=most).contains(&size) {
        Ok(size)
    } else {
        Err(format!("`{text}` is not within {} to {}", bytes(least), bytes(most)))
    }
}
