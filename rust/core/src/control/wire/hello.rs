//! The hello with which FlagCX's next version opens a bootstrap socket: one frame each way before the handles. What
//! follows is then as without it.
//!
//! ```text
//! 0 magic (u32)   4 version (u16)   6 implementation (u16)   8 transport (u16)   10 reserved, 0 (u16)   12 size, 16 (u32)
//! ```

use std::fmt;

use super::WireError;
use super::fields::{Fields, Record};

/// Bytes of the record.
pub const HELLO_SIZE: usize = 16;

const MAGIC: u32 = 0x4658_5031;

/// The hello of one side. Both sides of a session must send equal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the protocol: 3 for the layouts of this module, 5 for others.
    pub version: u16,
    /// 1 for the engine of those layouts, 2 for the one that FlagCX builds with `USE_SHARED_P2P_ENGINE=1`.
    pub implementation: u16,
    /// 1 for InfiniBand verbs, 2 for BAREX.
    pub transport: u16,
    /// 0.
    pub reserved: u16,
    /// Bytes of the record, as the sender counts them.
    pub wire_size: u32,
}

impl Hello {
    /// The hello of this engine.
    pub const OURS: Self =
        Self { version: 3, implementation: 1, transport: 1, reserved: 0, wire_size: HELLO_SIZE as u32 };

    /// Writes the record.
    pub fn encode(&self) -> [u8; HELLO_SIZE] {
        Record::new()
            .put(0, &MAGIC.to_le_bytes())
            .put(4, &self.version.to_le_bytes())
            .put(6, &self.implementation.to_le_bytes())
            .put(8, &self.transport.to_le_bytes())
            .put(10, &self.reserved.to_le_bytes())
            .put(12, &self.wire_size.to_le_bytes())
            .0
    }

    /// Reads a record, of any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new("hello", bytes, HELLO_SIZE)?;
        let magic = fields.u32(0)?;
        if magic != MAGIC {
            return Err(WireError::new("hello", format!("magic {magic:#010x}, expected {MAGIC:#010x}")));
        }
        Ok(Self {
            version: fields.u16(4)?,
            implementation: fields.u16(6)?,
            transport: fields.u16(8)?,
            reserved: fields.u16(10)?,
            wire_size: fields.u32(12)?,
        })
    }

    /// Fails for a peer's hello that differs from ours; the error names both.
    pub fn check(&self) -> Result<(), WireError> {
        if *self == Self::OURS {
            return Ok(());
        }
        let ours = Self::OURS;
        let problem =
            format!("the peer has {self}; this engine has {ours}; use the same version on both sides");
        Err(WireError::refused("incompatible hello", problem))
    }
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, implementation, transport, reserved, wire_size } = self;
        write!(f, "version {version} of implementation {implementation}")?;
        write!(f, "{}", named(*implementation, [" (legacy)", " (shared)"]))?;
        write!(f, " over transport {transport}{}", named(*transport, [" (IBRC)", " (BAREX)"]))?;
        if (*reserved, *wire_size) != (Self::OURS.reserved, Self::OURS.wire_size) {
            write!(f, ", reserved field {reserved}, size {wire_size}")?;
        }
        Ok(())
    }
}

fn named(number: u16, names: [&'static str; 2]) -> &'static str {
    names.get(usize::from(number).wrapping_sub(1)).copied().unwrap_or_default()
}
