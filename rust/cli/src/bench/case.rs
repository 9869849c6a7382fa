//! What to measure: `64x4K`.

use std::fmt;
use std::str::FromStr;

use crate::output::units;

/// Most bytes of a transfer: what a server's ring may hold.
const MAX_BYTES: u64 = 64 << 20;
/// Most pieces of a transfer.
const MAX_BATCH: u32 = 4096;

/// Transfers of `batch` pieces of `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// Pieces per transfer.
    pub(crate) batch: u32,
    /// Bytes per piece.
    pub(crate) size: u32,
}

impl Case {
    /// Bytes per transfer.
    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.batch) * u64::from(self.size)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (batch, size) =
            text.split_once('x').ok_or_else(|| format!("`{text}`: expected BATCHxSIZE, such as 64x4K"))?;
        let batch = batch.trim().parse::<u32>().ok().filter(|batch| (1..=MAX_BATCH).contains(batch));
        let batch = batch.ok_or_else(|| format!("`{text}`: 1 to {MAX_BATCH} pieces per transfer"))?;
        let size = units::parse_size(size)?;
        let fits = size > 0 && size.checked_mul(u64::from(batch)).is_some_and(|bytes| bytes <= MAX_BYTES);
        match u32::try_from(size) {
            Ok(size) if fits => Ok(Self { batch, size }),
            _ => Err(format!("`{text}`: 1 byte to {} per transfer", units::bytes(MAX_BYTES))),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.batch, units::bytes(u64::from(self.size)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        assert_eq!("64x4K".parse(), Ok(Case { batch: 64, size: 4096 }));
        assert_eq!("1x64M".parse::<Case>().unwrap().bytes(), 64 << 20);
        for bad in ["", "4K", "0x4K", "1x0", "2x64M", "5000x1", "1x8G", "x", "64*4K"] {
            assert!(bad.parse::<Case>().is_err(), "{bad}");
        }
    }
}
