//! A small file between its content and a slot, by the caller's thread: starting another one takes longer.

use super::{BLOCK, Digest, failed};
use crate::ring::Ring;
use crate::store::{Content, StoreError};

/// Reads all of `content` into the small slot `sequence`. It must not be longer than the slot.
pub(crate) fn fill(mut content: Content, ring: &Ring, sequence: u64) -> Result<Digest, StoreError> {
    if let Some(whole) = content.whole() {
        if !ring.write_small(sequence, 0, whole) {
            return Err(failed("read", "it is larger than a slot"));
        }
        return Ok(Digest { bytes: whole.len() as u64, hash: blake3::hash(whole).into() });
    }
    let (mut hasher, mut block, mut bytes) = (blake3::Hasher::new(), vec![0; BLOCK], 0);
    while !content.is_at_end() {
        let read = content.read(&mut block)?;
        let part = block.get(..read).unwrap_or_default();
        hasher.update(part);
        if !ring.write_small(sequence, bytes, part) {
            return Err(failed("read", "it is larger than a slot"));
        }
        bytes += read;
    }
    content.check_unchanged()?;
    Ok(Digest { bytes: bytes as u64, hash: hasher.finalize().into() })
}

/// Copies the `length` bytes of the small slot `sequence` out of it; `None` if the slot has fewer.
pub(crate) fn take(ring: &Ring, sequence: u64, length: u32) -> Option<(Vec<u8>, Digest)> {
    let mut bytes = vec![0; length as usize];
    // The hash is of this copy, which is what is written: the peer may change the slot at any time.
    ring.read_small(sequence, &mut bytes).then(|| {
        let hash = blake3::hash(&bytes).into();
        (bytes, Digest { bytes: u64::from(length), hash })
    })
}
