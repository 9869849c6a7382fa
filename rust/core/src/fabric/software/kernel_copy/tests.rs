use std::ptr::null_mut;

use proptest::prelude::*;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::*;

fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Pages of memory, unmapped when dropped.
struct Pages(*mut libc::c_void, usize);

impl Pages {
    fn new(pages: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping.
        let start =
            unsafe { mmap_anonymous(null_mut(), pages * page_bytes(), protection, MapFlags::PRIVATE) };
        Self(start.unwrap(), pages)
    }

    fn range(&self, offset: usize, length: usize) -> Range {
        Range { address: self.0 as usize + offset, length }
    }

    fn protect(&self, page: usize, protection: MprotectFlags) {
        // SAFETY: the page belongs to this test.
        unsafe { mprotect(self.0.wrapping_byte_add(page * page_bytes()), page_bytes(), protection) }.unwrap();
    }

    fn byte(&self, offset: usize) -> u8 {
        // SAFETY: the tests ask for bytes of pages that are there.
        unsafe { self.0.cast::<u8>().add(offset).read() }
    }

    fn fill(&self, bytes: &[u8]) {
        // SAFETY: fits, and is there.
        unsafe { self.0.cast::<u8>().copy_from(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`.
        unsafe { munmap(self.0, self.1 * page_bytes()) }.unwrap();
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Ranges of any size, with a page in the way of the source, of the target or of neither: both ways say the same of it,
    /// and what is before it is copied.
    #[test]
    fn says_which_side_is_gone(
        offset in 0..page_bytes(),
        length in 1..40 * page_bytes(),
        gone in prop_oneof![Just(None), (0..42_usize).prop_map(Some)],
        of_source: bool,
        through_pipe: bool,
    ) {
        let (source, target) = (Pages::new(42), Pages::new(42));
        let content = bytes(42 * page_bytes());
        source.fill(&content);
        if let Some(page) = gone {
            // A target that can be read is as good as none.
            match of_source {
                true => source.protect(page, MprotectFlags::empty()),
                false => target.protect(page, MprotectFlags::READ),
            }
        }
        let good = gone.map_or(length, |page| (page * page_bytes()).saturating_sub(offset).min(length));
        let (from, to) = (source.range(offset, length), target.range(offset, length));
        // SAFETY: the target is of this test.
        let answer = unsafe {
            if through_pipe { pipe::copy(from, to) } else { copy(&[from], &[to]) }
        };
        let in_the_way = gone.is_some_and(|page| page >= offset / page_bytes() && page * page_bytes() < offset + length);
        let fault = if of_source { CopyError::Source } else { CopyError::Target };
        prop_assert_eq!(answer, if in_the_way { Err(fault) } else { Ok(()) });
        let good = if in_the_way { good } else { length };
        // All that could be copied before the first bad page, but for the pipe's last pieces.
        let surely = if in_the_way { good.saturating_sub(16 * page_bytes()) } else { good };
        prop_assert!((offset..offset + surely).all(|at| target.byte(at) == content[at]));
    }
}

#[test]
fn many_ranges_are_copied_by_one_call_and_the_bad_one_is_found() {
    let (source, target) = (Pages::new(16), Pages::new(16));
    let content = bytes(16 * page_bytes());
    source.fill(&content);
    // As many as one call takes, over all pages.
    let step = 16 * page_bytes() / MAX_RANGES;
    let pieces = |pages: &Pages| (0..MAX_RANGES).map(|at| pages.range(at * step, 100)).collect::<Vec<_>>();
    // SAFETY: the target is of this test.
    assert_eq!(unsafe { copy(&pieces(&source), &pieces(&target)) }, Ok(()));
    assert!(
        (0..16 * page_bytes()).all(|at| target.byte(at) == if at % step < 100 { content[at] } else { 0 })
    );
    source.protect(9, MprotectFlags::empty());
    // SAFETY: as above.
    assert_eq!(unsafe { copy(&pieces(&source), &pieces(&target)) }, Err(CopyError::Source));
    source.protect(9, MprotectFlags::READ);
    target.protect(3, MprotectFlags::empty());
    // SAFETY: as above.
    assert_eq!(unsafe { copy(&pieces(&source), &pieces(&target)) }, Err(CopyError::Target));
}

#[test]
fn a_byte_is_readable_or_not() {
    let pages = Pages::new(2);
    pages.protect(1, MprotectFlags::empty());
    let start = pages.0 as u64;
    assert!(
        is_readable(start)
            && is_readable(start + page_bytes() as u64 - 1)
            && !is_readable(start + page_bytes() as u64)
    );
    assert!(
        pipe::is_readable(Range::new(start, 1))
            && !pipe::is_readable(Range::new(start + page_bytes() as u64, 1))
    );
}
