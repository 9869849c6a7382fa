//! Reading and writing of fields at fixed offsets.

use super::WireError;

/// A record being read.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Starts reading a record of at least `size` bytes.
    pub(super) fn new(what: &'static str, bytes: &'a [u8], size: usize) -> Result<Self, WireError> {
        if bytes.len() < size {
            return Err(WireError::new(what, format!("{} bytes, expected {size}", bytes.len())));
        }
        Ok(Self { what, bytes })
    }

    pub(super) fn array<const N: usize>(&self, offset: usize) -> Result<[u8; N], WireError> {
        let end = offset.saturating_add(N);
        self.bytes
            .get(offset..end)
            .and_then(|field| field.try_into().ok())
            .ok_or_else(|| WireError::new(self.what, format!("ends before byte {end}")))
    }

    pub(super) fn byte(&self, offset: usize) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array(offset)?))
    }

    pub(super) fn u16(&self, offset: usize) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array(offset)?))
    }

    pub(super) fn u32(&self, offset: usize) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array(offset)?))
    }

    pub(super) fn i32(&self, offset: usize) -> Result<i32, WireError> {
        Ok(i32::from_le_bytes(self.array(offset)?))
    }

    pub(super) fn u64(&self, offset: usize) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array(offset)?))
    }
}

/// A record being written, all zero at first. Fields beyond its end are dropped (a fixture test would show it).
pub(super) struct Record<const N: usize>(pub(super) [u8; N]);

impl<const N: usize> Record<N> {
    pub(super) fn new() -> Self {
        Self([0; N])
    }

    pub(super) fn put(mut self, offset: usize, field: &[u8]) -> Self {
        if let Some(place) = self.0.get_mut(offset..offset.saturating_add(field.len())) {
            place.copy_from_slice(field);
        }
        self
    }
}
