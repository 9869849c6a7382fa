//! How the bytes are to travel.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use clap::ValueEnum;
use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, PathKind};
use flagcx_p2p::{Config, EngineOptions};
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};
use crate::settings;

/// A path to measure. The order of the variants is the format on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Path {
    /// What the engine chooses
    Auto,
    /// Both ends in one process
    InProcess,
    /// Memory that both processes map
    Shared,
    /// Copies by the kernel between two processes
    CrossMemory,
    /// A TCP stream
    Tcp,
    /// An RDMA device
    Verbs,
}

impl Path {
    /// All that `bench local` tries.
    pub(crate) const LOCAL: [Self; 5] =
        [Self::InProcess, Self::Shared, Self::CrossMemory, Self::Tcp, Self::Verbs];

    /// The path of `FLAGCX_P2P_PATH`.
    pub(crate) fn of_kind(kind: PathKind) -> Self {
        match kind {
            PathKind::None => Self::Auto,
            PathKind::Rdma => Self::Verbs,
            PathKind::InProcess => Self::InProcess,
            PathKind::CrossMemory => Self::CrossMemory,
            PathKind::Tcp => Self::Tcp,
            PathKind::Shared => Self::Shared,
        }
    }

    /// Options of an engine that uses only this path. `own` is this side's address towards the peer.
    pub(crate) fn engine_options(self, config: &Config, own: IpAddr) -> Result<EngineOptions> {
        let kind = match self {
            Self::Auto => return Ok(EngineOptions::default()),
            Self::Verbs => return over_verbs(config),
            Self::InProcess => PathKind::InProcess,
            Self::Shared => PathKind::Shared,
            Self::CrossMemory => PathKind::CrossMemory,
            Self::Tcp => PathKind::Tcp,
        };
        settings::engine_options_over(kind, config, own)
    }
}

fn over_verbs(config: &Config) -> Result<EngineOptions> {
    let mut options = config.fabric_options().map_err(|error| CliError::other(error.to_string()))?;
    if options.choice == FabricChoice::Software {
        return Err(CliError::other("FLAGCX_P2P_FABRIC=software allows no RDMA device"));
    }
    options.choice = FabricChoice::Verbs;
    let devices = DeviceList::open(&options)?;
    let selection = devices.selection();
    if selection.provider.is_none() {
        let refusal = selection.refusal.as_ref().map(ToString::to_string);
        return Err(CliError::other(refusal.unwrap_or_else(|| selection.reason.clone())));
    }
    Ok(EngineOptions { devices: Some(Arc::new(devices)), ..EngineOptions::default() })
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::InProcess => "in-process",
            Self::Shared => "shared",
            Self::CrossMemory => "cross-memory",
            Self::Tcp => "tcp",
            Self::Verbs => "verbs",
        })
    }
}
