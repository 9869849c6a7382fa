//! Peers by name: what the command line says of them, the directory that knows them, and the names that `serve` publishes.

#[cfg(feature = "directory")]
mod directory;
#[cfg(not(feature = "directory"))]
#[path = "without.rs"]
mod directory;
mod peer;
#[cfg(feature = "directory")]
mod peers;

pub(crate) use directory::{PublishOptions, publish, record_of};
pub(crate) use peer::{Peer, PeerName};
#[cfg(feature = "directory")]
pub(crate) use peers::{PeersOptions, peers};
