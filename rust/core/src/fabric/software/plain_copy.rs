//! Copies inside this process, by address and without the kernel.
//!
//! Registered memory is shared with its owner, which may look at it or change it at any time, as with a NIC: what a
//! concurrent access sees is unspecified, and nothing here depends on it.
#![allow(unsafe_code, reason = "reads and writes memory that callers registered by address")]

use super::socket::Range;

/// Copies the bytes of `sources` to `targets`, lists of the same total that are cut differently; answers how many. Ranges may
/// overlap.
///
/// # Safety
/// All ranges are mapped in this process, the sources readable and the targets writable, until the call returns.
#[inline]
pub(super) unsafe fn copy(sources: &[Range], targets: &[Range]) -> u64 {
    // Most are one range, which needs no cutting.
    if let ([source], [target]) = (sources, targets)
        && source.length == target.length
    {
        // SAFETY: both are mapped by the caller's promise; `copy` allows overlap.
        unsafe { std::ptr::copy(source.address as *const u8, target.address as *mut u8, source.length) };
        return source.length as u64;
    }
    // SAFETY: by the caller's promise.
    unsafe { copy_cut(sources, targets) }
}

/// # Safety
/// As [`copy`].
unsafe fn copy_cut(sources: &[Range], targets: &[Range]) -> u64 {
    let (mut sources, mut targets) = (sources.iter().copied(), targets.iter().copied());
    let (mut source, mut target) = (Range::default(), Range::default());
    let mut copied = 0;
    loop {
        if source.length == 0 {
            let Some(next) = sources.next() else { return copied };
            source = next;
        }
        if target.length == 0 {
            let Some(next) = targets.next() else { return copied };
            target = next;
        }
        let length = source.length.min(target.length);
        // SAFETY: both are within their ranges, which are mapped by the caller's promise; `copy` allows overlap.
        unsafe { std::ptr::copy(source.address as *const u8, target.address as *mut u8, length) };
        source = Range { address: source.address + length, length: source.length - length };
        target = Range { address: target.address + length, length: target.length - length };
        copied += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_that_are_cut_differently_are_copied_in_order() {
        let source = *b"abcdefgh";
        let mut target = [0_u8; 8];
        let address = target.as_mut_ptr() as u64;
        let sources = [Range::of(&source[..3]), Range::of(&source[3..3]), Range::of(&source[3..])];
        let targets = [Range::new(address + 6, 2), Range::new(address, 6)];
        // SAFETY: all ranges are of the two arrays.
        assert_eq!(unsafe { copy(&sources, &targets) }, 8);
        assert_eq!(&target, b"cdefghab");
    }
}
