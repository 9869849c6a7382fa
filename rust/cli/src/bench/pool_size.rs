//! How large a pool is: 256 MiB or a quarter of the free memory, but what a transfer needs.

use super::layout;
use super::options::Workload;
use crate::output::units;

/// Bytes of a pool unless others are asked for: more than the caches of most processors hold.
const USUAL: u64 = 256 << 20;
/// Room for a piece of the part of a pool that one direction uses begins at a page.
const DIRECTIONS: u64 = 2;

/// Bytes of the pool of one end. `available`: bytes of memory on this machine; `pools`: how many pools are on it. An
/// error says what does not fit. Pools are whole pages, of `page` bytes.
pub(crate) fn pool_size(workload: &Workload, available: u64, pools: u64, page: u64) -> Result<u64, String> {
    let directions = if workload.bidirectional { DIRECTIONS } else { 1 };
    let pools = pools.max(1);
    let need = |case: &super::Case| {
        layout::needed(case.batch, case.size, workload.contiguous).next_multiple_of(page) * directions
    };
    let largest = workload.cases.iter().max_by_key(|case| need(case));
    let needed = largest.map_or(page, need);
    let size = match workload.pool {
        Some(size) if size < needed => {
            return Err(format!(
                "--pool {}: a transfer of {} needs {}{}",
                units::bytes(size),
                largest.map(ToString::to_string).unwrap_or_default(),
                units::bytes(needed),
                if directions > 1 { " for both directions" } else { "" }
            ));
        }
        Some(size) => size.next_multiple_of(page),
        None => USUAL.min(available / 4 / pools / page * page).max(needed),
    };
    match size.checked_mul(pools).filter(|total| *total <= available) {
        Some(_) => Ok(size),
        None => Err(format!(
            "{pools} {} of {} are more than the {} of memory that are available here; choose a smaller --pool, fewer \
             --clients or smaller transfers",
            if pools == 1 { "pool" } else { "pools" },
            units::bytes(size),
            units::bytes(available)
        )),
    }
}

/// Bytes of memory that programs can still take here; everything where that cannot be read.
pub(crate) fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available(&text).unwrap_or(u64::MAX)
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Case;
    use super::*;

    fn workload(batch: u32, size: u32, pool: Option<u64>, bidirectional: bool) -> Workload {
        Workload { cases: vec![Case { batch, size }], pool, bidirectional, ..Workload::for_test() }
    }

    #[test]
    fn sizes() {
        let size = |batch, size, pool, two| pool_size(&workload(batch, size, pool, two), 8 << 30, 2, 4096);
        assert_eq!(size(1, 4096, None, false), Ok(256 << 20));
        assert_eq!(size(1, 1 << 30, None, false), Ok(1 << 30));
        assert_eq!(size(1, 1 << 30, None, true), Ok(2 << 30));
        assert_eq!(size(1, 4096, Some(5000), false), Ok(8192));
        let small = size(64, 4096, Some(4096), false).unwrap_err();
        assert!(small.contains("64x4K needs 256.00 KiB"), "{small}");
        let huge = size(1, 4096, Some(1 << 50), false).unwrap_err();
        assert!(huge.contains("available here"), "{huge}");
        assert_eq!(pool_size(&workload(1, 4096, None, false), 256 << 20, 2, 4096), Ok(32 << 20), "a quarter");
        assert_eq!(available("MemTotal: 1 kB\nMemAvailable:   17 kB\n"), Some(17 * 1024));
        assert_eq!(available(""), None);
    }

    proptest! {
        #[test]
        fn a_pool_fits_what_it_is_for(batch in 1_u32..70_000, size in 1_u32..=1 << 30, pool in proptest::option::of(any::<u64>()),
                                      two in any::<bool>(), available in any::<u64>(), pools in 0_u64..200,
                                      page in prop::sample::select(vec![4_u64 << 10, 16 << 10, 64 << 10])) {
            prop_assume!(pool.is_none_or(|pool| pool < 1 << 60));
            if let Ok(found) = pool_size(&workload(batch, size, pool, two), available, pools, page) {
                let directions = if two { 2 } else { 1 };
                prop_assert!(found / directions >= u64::from(batch) * u64::from(size));
                prop_assert!(found * pools.max(1) <= available);
                prop_assert!(found.is_multiple_of(page));
            }
        }
    }
}
