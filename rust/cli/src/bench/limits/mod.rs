//! What the machine carries without an engine: copies of the same pieces within this process, copies by the kernel between
//! the two processes, and a socket to the same server. Measured in the same run, and kept simple.

mod memcpy;
mod process_vm;
mod registration;
mod socket;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::row::Operation;
use crate::error::{CliError, Result};

pub(super) use memcpy::Copies;
pub(super) use process_vm::{KernelCopies, PROCESS_VM};
pub(super) use registration::RegistrationRate;
pub(super) use socket::socket;

/// A limit, as the JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineLimit {
    pub(crate) name: String,
    /// None where it holds for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<Operation>,
    /// Bytes per piece; none where it does not depend on that.
    pub(crate) size: Option<u32>,
    pub(crate) gigabytes_per_second: f64,
}

impl MachineLimit {
    /// `process_vm write`, `memcpy`.
    pub(crate) fn text(&self) -> String {
        let operation = self.operation.map(|operation| format!(" {}", operation.name()));
        format!("{}{}", self.name, operation.unwrap_or_default())
    }
}

/// Time for a limit.
const TIME: Duration = Duration::from_millis(100);

/// Memory of this process with every page in place.
fn filled(length: usize, value: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let reserved = bytes.try_reserve_exact(length);
    reserved.map_err(|error| CliError::other(format!("memory for the limits: {error}")))?;
    bytes.resize(length, value);
    Ok(bytes)
}
