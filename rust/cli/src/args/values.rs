//! Values that several commands take.

use flagcx_p2p::internals::control::{self, HostError};

use crate::names::PeerName;
use crate::output::units::{bytes, parse_size};

/// `host:port` as it was written: the look-up of a name comes later.
pub(super) fn parse_server(text: &str) -> Result<String, String> {
    match control::split_session(text).and_then(|(host, port)| control::numeric(host, port)) {
        Ok(_) => Ok(text.to_owned()),
        Err(HostError::Session(_)) => {
            Err("expected host:port or [IPv6 address]:port, such as 192.0.2.7:7733".to_owned())
        }
        Err(error @ HostError::Address(_)) => Err(error.to_string()),
    }
}

/// `host:port`, or the name of a peer with what is wanted of it: `decode-3:`, `store:models/a.bin`.
pub(super) fn parse_peer(text: &str) -> Result<PeerName, String> {
    PeerName::parse(text)
}

pub(super) fn size_within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let size = parse_size(text)?;
    if (least..=most).contains(&size) {
        Ok(size)
    } else {
        Err(format!("`{text}` is not within {} to {}", bytes(least), bytes(most)))
    }
}
