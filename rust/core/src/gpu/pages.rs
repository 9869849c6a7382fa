//! Whole pages of the host around a range, which is what dma-bufs cover.

use super::GpuError;

/// Pages around a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// Where they begin.
    pub(super) start: u64,
    /// Their bytes.
    pub(super) bytes: usize,
    /// Where the range begins in them.
    pub(super) offset: u64,
}

impl Pages {
    /// Those around `length` bytes at `address`.
    pub(super) fn around(
        runtime: &'static str,
        operation: &'static str,
        address: u64,
        length: u64,
    ) -> Result<Self, GpuError> {
        let page = rustix::param::page_size() as u64;
        let offset = address % page;
        let pages = offset.checked_add(length).and_then(|bytes| bytes.checked_next_multiple_of(page));
        let bytes = pages.filter(|pages| (address - offset).checked_add(*pages).is_some());
        let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| {
            let answer = format!("no range of {length} bytes at {address:#x}");
            GpuError::Malformed { runtime, operation, answer }
        })?;
        Ok(Self { start: address - offset, bytes, offset })
    }
}
