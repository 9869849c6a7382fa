//! The software fabric: reliable connected queue pairs without a NIC.
//!
//! A queue pair's bytes travel one of three ways, found out when it connects and the same from then on, with two exceptions:
//! when the kernel denies the cross-memory copy of a direction (READ or WRITE), at the start or later, that direction takes
//! TCP from then on; and a region of another process of this host that is mapped here is copied by that mapping.
//!
//! | path | when | which side copies |
//! |---|---|---|
//! | in-process | both ends in this process | the initiator, with plain copies where both ends are anonymous memory, else the kernel |
//! | shared | the region's owner has registered it with its file, which is mapped here | the initiator, with plain copies where neither end can fault, else the kernel |
//! | cross-memory | both on this host, and the kernel lets the initiator | the initiator, with `process_vm_readv/writev` |
//! | TCP | otherwise | the initiator sends and receives, the target's data thread serves |
//!
//! The initiator's half of all of them runs in `SharedQueue::run`, without the worker's lock: posting only
//! queues, polling only reports, and one thread at a time advances a queue pair. Every access is
//! checked against key, bounds and rights in the region table of the memory's owner, and pins the region while it
//! lasts; the table lies in memory that peers on the same host can read, so that all but TCP need nothing of
//! the target's CPU.
//!
//! Memory that cannot be accessed, because its file has become shorter or it was unmapped or protected, is the failure of
//! the request that names it. Nothing handles signals for that: an instruction of this process touches registered memory
//! only where it cannot fault: anonymous memory, which only this process itself can take away, and files that are sealed and
//! reserved. Everything else is copied, sent and received by the kernel, which answers `EFAULT`.
//!
//! ```text
//!   queue_pair (post) ── incoming ──▶ requester ──▶ copier | same_host (copier, tcp) | tcp ──▶ region table, memory
//!                                      ▲    │                                         └────▶ responder (the peer's)
//!   completion_queue (poll) ◀── shared_queue (run)
//! ```

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::{Device, FabricError, PathKind, SoftwareOptions};

mod address_space;
mod batch;
mod completion_queue;
mod connect;
mod copier;
mod denial;
mod descriptors;
mod device;
mod device_core;
mod dial;
mod direct;
mod endpoint;
mod far_end;
mod faults;
mod file_mapping;
mod foreign;
mod hello;
mod identity;
mod incoming;
mod keepalive;
mod kept_files;
mod kernel_copy;
mod keys;
mod late;
mod life_word;
mod link;
mod link_messages;
mod links;
#[cfg_attr(flagcx_p2p_loom, path = "mapping/model.rs")]
mod mapping;
mod mapping_budget;
mod mappings;
mod pins;
mod plain_copy;
mod probe;
mod questions;
mod queue_pair;
mod redial;
mod region;
mod region_file;
mod requester;
mod responder;
mod same_host;
mod send_queue;
mod shared_queue;
mod signal;
mod socket;
mod socket_watch;
mod switches;
mod table;
mod tcp;
mod tokens;
mod transport;
mod users;
mod wake;
mod watched;
mod work;
mod wrong_keys;

pub use device::SoftwareDevice;
#[doc(hidden)]
pub use hello::replies_to;

pub use faults::{FaultPlan, FaultPlanError, faults_injected};
pub use switches::FaultSwitches;

/// Opens the software devices: `sw0`, `sw1`, ..., as many as `options` ask for, at least one.
pub fn open(options: &SoftwareOptions) -> Result<Vec<Arc<dyn Device>>, FabricError> {
    let devices = open_software(options)?;
    Ok(devices.into_iter().map(|device| device as Arc<dyn Device>).collect())
}

/// [`open`] with the devices' own type, which also counts the faults that it injected.
pub fn open_software(options: &SoftwareOptions) -> Result<Vec<Arc<SoftwareDevice>>, FabricError> {
    let plan =
        FaultPlan::from_str(&options.faults).map_err(|error| FabricError::Unsupported(error.to_string()))?;
    if let Some(force @ (PathKind::None | PathKind::Rdma)) = options.force {
        let reason =
            format!("the software fabric has no path {force}: force in-process, cross-memory, shared or tcp");
        return Err(FabricError::Unsupported(reason));
    }
    if let Some(address) = options.advertise.or(options.bind).filter(IpAddr::is_unspecified) {
        let reason = format!(
            "peers cannot be told {address} as the data listener's: they need an address to reach it by"
        );
        return Err(FabricError::Unsupported(reason));
    }
    if !plan.is_empty() {
        tracing::warn!(plan = options.faults, "the software fabric injects faults (FLAGCX_P2P_FAULTS)");
    }
    (0..options.device_count.max(1))
        .map(|index| Ok(Arc::new(SoftwareDevice::new(index, options, plan.clone())?)))
        .collect()
}
