//! Arguments of `doctor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::doctor::{DoctorOptions, TopologyOptions};
use crate::names::PeerName;

use super::directory::DirectoryArgs;
use super::values::parse_peer;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DoctorArgs {
    #[command(subcommand)]
    part: Option<Part>,
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

/// A part of `doctor` with an output of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// Show the paths between the GPUs and the NICs of this machine, and which NIC an engine uses for each GPU, and why
    ///
    /// FLAGCX_IB_HCA, FLAGCX_P2P_NIC_MAP, FLAGCX_TOPO_FILE and FLAGCX_P2P_DEST_DEV_AFFINITY count as for an engine. The status is 1 for a map that names no NIC.
    Topology(TopologyArgs),
}

#[derive(Debug, Args)]
struct TopologyArgs {
    /// Print JSON: the GPUs, the NICs, each path, each choice
    #[arg(long)]
    json: bool,
    /// A directory with the `sys` of another machine, to look at that
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
}

impl From<DoctorArgs> for DoctorOptions {
    fn from(args: DoctorArgs) -> Self {
        let DoctorArgs { part, peer, timeout, json, directory } = args;
        let topology = part.map(|Part::Topology(TopologyArgs { json, root })| TopologyOptions { json, root });
        let peer = peer.map(|peer| directory.peer(peer));
        Self { topology, peer, timeout: Duration::from_secs(timeout.into()), json }
    }
}
