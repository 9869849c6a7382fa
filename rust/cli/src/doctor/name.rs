//! The name of a peer: whether the directory answers, and what it has of the name.

use std::time::Instant;

use flagcx_p2p::internals::config::Hidden;

use super::finding::Report;
use crate::names::{self, Peer, PeerName};

/// The address of `peer`, looked up until `deadline` where it is a name; `None` where it has none.
pub(super) fn report(peer: &Peer, deadline: Instant, report: &mut Report) -> Option<String> {
    let name = match &peer.name {
        PeerName::Address(address) => return Some(address.clone()),
        PeerName::Name { name, .. } => name,
    };
    report.section("directory");
    match names::record_of(peer.directory.as_ref().map(Hidden::reveal), name, deadline) {
        Ok((found, address)) => {
            report.ok("published", name, found);
            Some(address)
        }
        Err(error) => {
            let action =
                "flagcx-p2p peers lists what is published; is the peer running, with the same directory?";
            report.fail("published", name, error.to_string(), action);
            None
        }
    }
}
