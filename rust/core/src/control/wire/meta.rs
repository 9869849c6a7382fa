//! The control meta: GPU index, notification port and locality of a side.

use super::WireError;
use super::fields::{Fields, Record};

/// Bytes of the record.
pub const META_SIZE: usize = 16;

const LOCAL: u32 = 1;
const SAME_PROCESS: u32 = 2;

/// The control meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMeta {
    /// GPU index of the sender.
    pub gpu_index: i32,
    /// Port of the sender's notification receiver, 0 for none.
    pub notify_port: u16,
    /// Both ends are on one host.
    pub local: bool,
    /// Both ends are in one process.
    pub same_process: bool,
}

impl ControlMeta {
    /// Writes the record.
    pub fn encode(&self) -> [u8; META_SIZE] {
        let mut flags = 0;
        if self.local {
            flags |= LOCAL;
        }
        if self.same_process {
            flags |= SAME_PROCESS;
        }
        Record::new()
            .put(0, &self.gpu_index.to_le_bytes())
            .put(4, &i32::from(self.notify_port).to_le_bytes())
            .put(8, &flags.to_le_bytes())
            .0
    }

    /// Reads the record. An invalid notification port is read as 0.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new("control meta", bytes, META_SIZE)?;
        let flags = fields.u32(8)?;
        Ok(Self {
            gpu_index: fields.i32(0)?,
            notify_port: u16::try_from(fields.i32(4)?).unwrap_or(0),
            local: flags & LOCAL != 0,
            same_process: flags & SAME_PROCESS != 0,
        })
    }
}
