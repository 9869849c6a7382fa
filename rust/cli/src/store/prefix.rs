//! The hash of the first bytes of a file, which a resumed transfer compares before it goes on behind them.

use super::StoreError;

/// Read at once.
const BLOCK: usize = 256 << 10;
/// Bytes between two calls of the caller's function: well below a second of hashing.
const TICK: u64 = 256 << 20;

/// The first bytes of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefix {
    /// How many.
    pub(crate) bytes: u64,
    /// Their hash, to be continued with what follows.
    pub(crate) hasher: blake3::Hasher,
}

impl Prefix {
    /// Their hash.
    pub(crate) fn hash(&self) -> [u8; 32] {
        self.hasher.finalize().into()
    }
}

/// Hashes `length` bytes that `read` gives for an offset. `tick` is called every 256 MiB, and may end it.
pub(super) fn hash_prefix<E: From<StoreError>>(
    length: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<(), StoreError>,
    tick: &mut dyn FnMut() -> Result<(), E>,
) -> Result<Prefix, E> {
    let mut prefix = Prefix::default();
    let mut block = vec![0; BLOCK];
    while prefix.bytes < length {
        if prefix.bytes.is_multiple_of(TICK) {
            tick()?;
        }
        let size = usize::try_from(length - prefix.bytes).unwrap_or(BLOCK).min(BLOCK);
        let part = block.get_mut(..size).unwrap_or_default();
        read(part, prefix.bytes).map_err(E::from)?;
        prefix.hasher.update(part);
        prefix.bytes += size as u64;
    }
    Ok(prefix)
}
