//! Ranges in whole pages.

/// Start and length of the whole pages around `length` bytes at `start`. `page`: bytes of a page, which [`page_size`](rustix::param::page_size)
/// or [`page_of_file`](super::page_of_file()) says: 4, 16 or 64 KiB, or those of huge pages. `None`: they end behind the last address.
pub(crate) fn whole_pages(start: u64, length: u64, page: u64) -> Option<(u64, u64)> {
    let lead = start.checked_rem(page)?;
    let first = start - lead;
    let whole = lead.checked_add(length)?.checked_next_multiple_of(page)?;
    first.checked_add(whole).map(|_| (first, whole))
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The pages hold the range, and there is none of them that it does not touch.
        #[test]
        fn the_fewest_pages_that_hold_a_range(
            start in any::<u64>(), length in prop_oneof![1_u64..1 << 20, any::<u64>()],
            page in prop::sample::select(vec![4_u64 << 10, 16 << 10, 64 << 10, 2 << 20]),
        ) {
            let end = u128::from(start) + u128::from(length);
            match whole_pages(start, length, page) {
                Some((first, whole)) => {
                    prop_assert!(first.is_multiple_of(page) && whole.is_multiple_of(page));
                    prop_assert!(first <= start && start - first < page);
                    let last = u128::from(first) + u128::from(whole);
                    prop_assert!(last >= end);
                    prop_assert!(length == 0 || last - end < u128::from(page));
                }
                None => prop_assert!(end + u128::from(page) > 1 << 64),
            }
        }
    }

    #[test]
    fn a_range_of_no_byte_and_a_page_of_none() {
        assert_eq!(whole_pages(8192, 0, 4096), Some((8192, 0)));
        assert_eq!(whole_pages(8192, 1, 0), None);
    }
}
