//! Arguments of `doctor`.

use std::time::Duration;

use clap::Args;

use crate::doctor::DoctorOptions;
use crate::names::PeerName;

use super::directory::DirectoryArgs;
use super::values::parse_peer;

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// A peer to look at instead of this machine: an engine's RPC port, a `serve` or a `bench serve`
    #[arg(value_name = "HOST:PORT|NAME:", value_parser = parse_peer)]
    peer: Option<PeerName>,
    /// Longest time for a peer in seconds, 1 to 600
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600), value_name = "S")]
    timeout: u16,
    /// Print a JSON list of {id, level, subject, finding, action}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    directory: DirectoryArgs,
}

impl From<DoctorArgs> for DoctorOptions {
    fn from(args: DoctorArgs) -> Self {
        let DoctorArgs { peer, timeout, json, directory } = args;
        let peer = peer.map(|peer| directory.peer(peer));
        Self { peer, timeout: Duration::from_secs(timeout.into()), json }
    }
}
